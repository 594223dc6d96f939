//! The physics of one server: what load does to its CPU, disk, memory and answers, and what its counters show of that.
//!
//! Quasi-static: in each second the load is constant, and queues stand where an M/M/1 queue of that utilisation would
//! (`1 / (1 - utilisation)`), so that latency and disk wait rise steeply before anything is full, as on real servers.
//! Enough to be worth controlling, little enough to be understood; counts are expectations, not draws, so that noise is
//! in the load alone.

use crate::rng::Rng;

/// Upper bounds of `http.server.request.duration`, seconds, as the semantic conventions advise.
pub const HTTP_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Cores of every server.
pub const CORES: usize = 4;
/// Memory of every server, bytes.
pub const MEMORY_BYTES: f64 = 16.0 * (1u64 << 30) as f64;
/// Filesystem of every server, bytes.
pub const FILESYSTEM_BYTES: f64 = 200.0 * (1u64 << 30) as f64;
/// Operations a second at which the disk is full.
pub const DISK_OPERATIONS_PER_SECOND: f64 = 500.0;

/// Core-seconds of a request.
const REQUEST_CPU_SECONDS: f64 = 0.004;
/// Disk operations of a request.
const REQUEST_OPERATIONS: f64 = 0.15;
/// Duration of a request on an idle server.
const REQUEST_SECONDS: f64 = 0.02;
/// Bytes of a disk operation.
const OPERATION_BYTES: f64 = 16_384.0;
/// Share of requests that fail on a healthy server.
const ERROR_RATIO: f64 = 0.001;
/// The highest utilisation for which a queue length is derived.
const QUEUE_UTILISATION_MAX: f64 = 0.98;

/// What a server is asked to do in a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Foreground requests a second.
    pub requests_per_second: f64,
    /// Background work: cores kept busy.
    pub background_cores: f64,
    /// Background work: disk operations a second.
    pub background_operations: f64,
    /// Fails most requests at once.
    pub fails_fast: bool,
}

/// A request histogram since the server's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// One more than [`HTTP_BOUNDS`]; fractional, reported rounded down.
    pub buckets: [f64; HTTP_BOUNDS.len() + 1],
    /// Sum of the durations, seconds.
    pub sum_seconds: f64,
}

impl Requests {
    /// What a sender reports: whole requests per bucket.
    pub fn counts(&self) -> [u64; HTTP_BOUNDS.len() + 1] {
        self.buckets.map(|count| count as u64)
    }

    /// Adds `count` requests whose durations are exponentially distributed around `mean_seconds`.
    fn add(&mut self, count: f64, mean_seconds: f64) {
        let mut below = 0.0;
        for (at, bucket) in self.buckets.iter_mut().enumerate() {
            let upto = HTTP_BOUNDS.get(at).map_or(1.0, |bound| 1.0 - (-bound / mean_seconds).exp());
            *bucket += count * (upto - below);
            below = upto;
        }
        self.sum_seconds += count * mean_seconds;
    }
}

/// What a server's operating system and service count, since its start, and their present values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plant {
    /// Share of the CPU in use, 0-1.
    pub cpu_busy: f64,
    /// What the CPU was asked for, as a share of it; above 1 when it is too much.
    pub cpu_demand: f64,
    /// Share of the time in which the disk is busy, 0-1.
    pub disk_busy: f64,
    /// Mean time of a disk operation, seconds.
    pub disk_await_seconds: f64,
    /// Mean duration of a request that does not fail, seconds.
    pub http_seconds: f64,
    /// Share of requests that fail.
    pub error_ratio: f64,
    /// Memory in use, bytes.
    pub memory_used_bytes: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load_average: [f64; 3],
    /// Core-seconds per core: user, system, iowait, idle.
    pub cpu_seconds: [[f64; 4]; CORES],
    /// Time in which the disk was busy, seconds.
    pub disk_busy_seconds: f64,
    /// Disk operations: read, written.
    pub disk_operations: [f64; 2],
    /// Time of the disk operations, seconds: read, written.
    pub disk_operation_seconds: [f64; 2],
    /// Bytes read from and written to disk.
    pub disk_bytes: [f64; 2],
    /// Page faults: major, minor.
    pub faults: [f64; 2],
    /// Network bytes: received, transmitted.
    pub network_bytes: [f64; 2],
    /// Packets dropped: received, transmitted.
    pub network_dropped: [f64; 2],
    /// Requests answered.
    pub requests_ok: Requests,
    /// Requests failed.
    pub requests_failed: Requests,
    /// Filesystem in use, bytes.
    pub filesystem_used_bytes: f64,
}

impl Plant {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            memory_used_bytes: 0.35 * MEMORY_BYTES,
            filesystem_used_bytes: (0.3 + 0.3 * rng.unit()) * FILESYSTEM_BYTES,
            ..Self::default()
        }
    }

    /// All counters begin again, as after a restart.
    pub(crate) fn restart(&mut self) {
        *self = Self { filesystem_used_bytes: self.filesystem_used_bytes, ..Self::default() };
        self.memory_used_bytes = 0.35 * MEMORY_BYTES;
    }

    /// `seconds` of `load`.
    pub(crate) fn run(&mut self, load: Load, seconds: f64) {
        let cost = if load.fails_fast { 0.05 } else { 1.0 };
        let foreground = load.requests_per_second * REQUEST_CPU_SECONDS * cost;
        self.cpu_demand = (foreground + load.background_cores) / CORES as f64;
        let queue = 1.0 / (1.0 - self.cpu_demand.min(QUEUE_UTILISATION_MAX));
        self.cpu_busy = self.cpu_demand.min(1.0);
        self.run_cpu(seconds);

        let operations = load.requests_per_second * REQUEST_OPERATIONS * cost + load.background_operations;
        self.run_disk(operations, seconds);

        self.http_seconds = if load.fails_fast { 0.002 } else { REQUEST_SECONDS * queue };
        let overflow = (1.0 - 1.0 / self.cpu_demand.max(1.0)).min(0.9);
        self.error_ratio = if load.fails_fast { 0.6 } else { ERROR_RATIO + overflow };
        let requests = load.requests_per_second * seconds;
        self.requests_ok.add(requests * (1.0 - self.error_ratio), self.http_seconds);
        // A failure is quick if it is a refusal, and as slow as the rest if it is a time-out.
        self.requests_failed.add(requests * self.error_ratio, self.http_seconds);

        let wanted = (0.35 + 0.4 * self.cpu_busy) * MEMORY_BYTES;
        self.memory_used_bytes += (wanted - self.memory_used_bytes) * (seconds / 120.0).min(1.0);
        self.faults[1] += requests * 3.0;
        self.faults[0] += (self.memory_used_bytes / MEMORY_BYTES - 0.9).max(0.0) * 1_000.0 * seconds;
        self.network_bytes[0] += requests * 2_000.0;
        self.network_bytes[1] += requests * 12_000.0;
        self.network_dropped[0] += requests * 1e-5;

        let running = self.cpu_demand * CORES as f64 + (queue - 1.0).min(30.0) * self.cpu_busy.powi(4);
        for (average, minutes) in self.load_average.iter_mut().zip([1.0, 5.0, 15.0]) {
            *average += (running - *average) * (1.0 - (-seconds / (60.0 * minutes)).exp());
        }
    }

    fn run_cpu(&mut self, seconds: f64) {
        let waiting = (0.1 * self.disk_busy).min(1.0 - self.cpu_busy);
        for core in &mut self.cpu_seconds {
            core[0] += 0.8 * self.cpu_busy * seconds;
            core[1] += 0.2 * self.cpu_busy * seconds;
            core[2] += waiting * seconds;
            core[3] += (1.0 - self.cpu_busy - waiting) * seconds;
        }
    }

    fn run_disk(&mut self, operations_per_second: f64, seconds: f64) {
        let done = operations_per_second.min(DISK_OPERATIONS_PER_SECOND);
        self.disk_busy = done / DISK_OPERATIONS_PER_SECOND;
        let service_seconds = 1.0 / DISK_OPERATIONS_PER_SECOND;
        self.disk_await_seconds = service_seconds / (1.0 - self.disk_busy.min(QUEUE_UTILISATION_MAX));
        self.disk_busy_seconds += self.disk_busy * seconds;
        for (direction, share) in [(0, 0.4), (1, 0.6)] {
            let operations = done * share * seconds;
            self.disk_operations[direction] += operations;
            self.disk_operation_seconds[direction] += operations * self.disk_await_seconds;
            self.disk_bytes[direction] += operations * OPERATION_BYTES;
        }
    }
}

/// The rate of requests at which a server without background work has a CPU utilisation of `busy`.
pub(crate) fn requests_for(busy: f64) -> f64 {
    busy * CORES as f64 / REQUEST_CPU_SECONDS
}
