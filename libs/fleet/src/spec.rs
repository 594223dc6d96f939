//! What a fleet consists of, and what is done to it.

/// How a server's telemetry is spelt: which real sender runs on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// The OpenTelemetry Collector's hostmetrics receiver, and an SDK for the service beside it.
    CollectorHostmetrics,
    /// The Python SDK with its system metrics instrumentation.
    Python,
    /// The Node SDK with its host metrics, which know no disk.
    Node,
    /// The semantic conventions by the letter.
    Semconv,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 4] = [Self::CollectorHostmetrics, Self::Python, Self::Node, Self::Semconv];
}

/// A class of background work, by the names of the default policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum WorkClass {
    /// Must run now.
    Urgent = 0,
    /// A customer waits for it.
    CustomerExpectation = 1,
    /// We want it done.
    InternalMaintenance = 2,
    /// May wait for a quiet hour.
    Discretionary = 3,
}

impl WorkClass {
    /// Every class, the most important first.
    pub const ALL: [Self; 4] =
        [Self::Urgent, Self::CustomerExpectation, Self::InternalMaintenance, Self::Discretionary];

    /// Its name in policies and decisions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::CustomerExpectation => "customerExpectation",
            Self::InternalMaintenance => "internalMaintenance",
            Self::Discretionary => "discretionary",
        }
    }

    /// The class of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Share of a server's CPU that the class uses on an ordinary day.
    pub(crate) fn cpu_share(self) -> f64 {
        [0.02, 0.05, 0.06, 0.10][self as usize]
    }

    /// Share of a server's disk that the class uses on an ordinary day. Lower classes copy and scrub.
    pub(crate) fn disk_share(self) -> f64 {
        [0.01, 0.03, 0.06, 0.12][self as usize]
    }
}

/// A class's nominal on a server, as a multiple of what arrives on an ordinary day.
pub const NOMINAL_FACTOR: f64 = 6.0;

/// What a fleet consists of.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// Determines everything random.
    pub seed: u64,
    /// Number of cells: `eu-1`, `eu-2`, …
    pub cells: usize,
    /// Number of pools in each cell: `web`, `api`, `search`, `batch`, `pool-5`, …
    pub pools: usize,
    /// Servers in each pool: `web-1`, `web-2`, …; the numbers run on over cells, so that names are unique.
    pub servers_per_pool: usize,
    /// How often a server reports, seconds.
    pub interval_seconds: u32,
    /// When the simulation starts, ns since 1970.
    pub start_ns: i64,
    /// The time of day that it is in the fleet when the simulation starts, seconds: how much traffic there is must not
    /// depend on when somebody runs it.
    pub start_second_of_day: u32,
    /// Which senders run on the servers, with weights; servers take turns. Empty: all are Collectors.
    pub dialects: Vec<(Dialect, u32)>,
}

impl Default for FleetSpec {
    /// Two cells of three pools of ten servers, six in ten of them with a Collector.
    fn default() -> Self {
        Self {
            seed: 1,
            cells: 2,
            pools: 3,
            servers_per_pool: 10,
            interval_seconds: 10,
            start_ns: 1_795_255_200_000_000_000,
            start_second_of_day: 10 * 3_600,
            dialects: vec![
                (Dialect::CollectorHostmetrics, 6),
                (Dialect::Python, 1),
                (Dialect::Semconv, 2),
                (Dialect::Node, 1),
            ],
        }
    }
}

/// What goes wrong.
#[derive(Clone, PartialEq, Debug)]
pub enum IncidentKind {
    /// A runaway process takes three fifths of the server's CPU.
    HotServer {
        /// Index of the server.
        server: usize,
    },
    /// The server refuses 60 % of its requests at once: little CPU, low latency, and it looks idle.
    FailsFastIdle {
        /// Index of the server.
        server: usize,
    },
    /// Background work of a class arrives at a pool at a multiple of the ordinary rate.
    BackgroundBurst {
        /// Index of the pool, over all cells.
        pool: usize,
        /// The class.
        class: WorkClass,
        /// The multiple.
        factor: f64,
    },
}

/// What goes wrong, and when.
#[derive(Clone, PartialEq, Debug)]
pub struct Incident {
    /// What.
    pub kind: IncidentKind,
    /// From when on, ns since 1970.
    pub start_ns: i64,
    /// Until when, ns since 1970, exclusive.
    pub end_ns: i64,
}

impl Incident {
    pub(crate) fn is_active(&self, now_ns: i64) -> bool {
        (self.start_ns..self.end_ns).contains(&now_ns)
    }
}
