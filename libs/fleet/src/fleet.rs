//! The servers, the traffic that reaches them, and the scheduler that hands them background work: a closed loop.
//!
//! Foreground traffic cannot be refused; it follows the time of day with some noise. Background work of four classes
//! arrives at each pool, and the pool's scheduler spreads it over its servers in proportion to what each admits: at most
//! the admit fraction times the class's nominal. What finds no room waits in the pool's backlog, which is bounded. So an
//! admit fraction below 1 really lowers load, and what was held back comes later.

use std::f64::consts::TAU;

use headroom_model::time::NANOS_PER_SECOND;

use crate::plant::{CORES, DISK_OPERATIONS_PER_SECOND, Load, Plant, requests_for};
use crate::rng::Rng;
use crate::spec::{Dialect, FleetSpec, Incident, IncidentKind, NOMINAL_FACTOR, WorkClass};

/// Ordinary share of a server's CPU that its foreground traffic takes at the middle of the day's range.
const FOREGROUND_SHARE: f64 = 0.27;

/// Backlog of a class, in seconds of ordinary arrivals at the pool; what comes on top is given up and counted.
pub const BACKLOG_SECONDS_MAX: f64 = 3_600.0;

/// A longer gap between two steps is jumped over.
pub const STEP_SECONDS_MAX: i64 = 3_600;

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name, unique in the fleet: `host.name`.
    pub name: String,
    /// Its machine's id: `host.id`.
    pub host_id: String,
    /// Its cell.
    pub cell: String,
    /// Its pool's name, which is its service's too.
    pub pool: String,
    /// Its pool's index over all cells.
    pub pool_index: usize,
    /// Which sender runs on it.
    pub dialect: Dialect,
    /// When its counters began, ns since 1970.
    pub start_ns: i64,
    /// Its physical state.
    pub plant: Plant,
    /// Admit fraction of each class, 0-1.
    pub admission: [f64; 4],
    /// Background work it was given in the last second, per class, as a share of the nominal.
    pub in_use: [f64; 4],
    skew: f64,
    noise: f64,
    rng: Rng,
}

/// One pool of a cell.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its cell.
    pub cell: String,
    /// Its name.
    pub name: String,
    /// Indices of its servers.
    pub servers: std::ops::Range<usize>,
    /// Work of each class that waits, in server-seconds of ordinary load (1 = what one server is ordinarily given of the
    /// class in a second).
    pub backlog: [f64; 4],
    /// Work of each class done, in the same unit.
    pub done: [f64; 4],
    /// Work of each class given up because the backlog was full, in the same unit.
    pub given_up: [f64; 4],
}

/// A simulated fleet. Inputs: [`Fleet::step`], [`Fleet::set_admission`], [`Fleet::add_incident`], [`Fleet::restart`];
/// outputs: [`Fleet::export`] and the public fields of servers and pools. What it does depends on the specification and
/// the inputs alone, not on how a span of time is cut into steps.
#[derive(Clone, Debug)]
pub struct Fleet {
    spec: FleetSpec,
    servers: Vec<Server>,
    pools: Vec<Pool>,
    incidents: Vec<Incident>,
    /// Whole seconds since the start that were simulated.
    seconds: i64,
}

impl Fleet {
    /// The fleet at `spec.start_ns`, with every class admitted fully.
    pub fn new(spec: FleetSpec) -> Self {
        let turns: Vec<Dialect> =
            spec.dialects.iter().flat_map(|(dialect, weight)| vec![*dialect; *weight as usize]).collect();
        let (mut servers, mut pools) = (Vec::new(), Vec::new());
        for cell in 0..spec.cells {
            for pool in 0..spec.pools {
                let first = servers.len();
                let name = pool_name(pool);
                for number in 0..spec.servers_per_pool {
                    let index = servers.len();
                    let mut rng = Rng::new(spec.seed, index as u64);
                    servers.push(Server {
                        name: format!("{name}-{}", cell * spec.servers_per_pool + number + 1),
                        host_id: format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()),
                        cell: cell_name(cell),
                        pool: name.clone(),
                        pool_index: pools.len(),
                        dialect: turns
                            .get(index % turns.len().max(1))
                            .copied()
                            .unwrap_or(Dialect::CollectorHostmetrics),
                        start_ns: spec.start_ns,
                        plant: Plant::new(&mut rng),
                        admission: [1.0; 4],
                        in_use: [0.0; 4],
                        skew: 1.0 + 0.03 * rng.bell(),
                        noise: 0.0,
                        rng,
                    });
                }
                pools.push(Pool {
                    cell: cell_name(cell),
                    name,
                    servers: first..servers.len(),
                    backlog: [0.0; 4],
                    done: [0.0; 4],
                    given_up: [0.0; 4],
                });
            }
        }
        Self { spec, servers, pools, incidents: Vec::new(), seconds: 0 }
    }

    /// The specification.
    pub fn spec(&self) -> &FleetSpec {
        &self.spec
    }

    /// All servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// All pools, those of a cell side by side.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The index of the server with this name.
    pub fn server_by_name(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name == name)
    }

    /// Time up to which the fleet was simulated, ns since 1970.
    pub fn now_ns(&self) -> i64 {
        self.spec.start_ns.saturating_add(self.seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Simulates up to `now_ns`, in whole seconds since the start. Going back does nothing; a gap of more than
    /// [`STEP_SECONDS_MAX`] is jumped over but for its end.
    pub fn step(&mut self, now_ns: i64) {
        let target = now_ns.saturating_sub(self.spec.start_ns).div_euclid(NANOS_PER_SECOND);
        self.seconds = self.seconds.max(target.saturating_sub(STEP_SECONDS_MAX));
        while self.seconds < target {
            self.second();
            self.seconds += 1;
        }
    }

    /// Sets how much of a class's nominal a server admits, clamped to 0-1; NaN and unknown servers change nothing.
    pub fn set_admission(&mut self, server: usize, class: WorkClass, fraction: f64) {
        if let Some(server) = self.servers.get_mut(server)
            && !fraction.is_nan()
        {
            server.admission[class as usize] = fraction.clamp(0.0, 1.0);
        }
    }

    /// Adds an incident.
    pub fn add_incident(&mut self, incident: Incident) {
        self.incidents.push(incident);
    }

    /// The incidents that were added.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// Restarts a server: its counters begin again at the present time.
    pub fn restart(&mut self, server: usize) {
        let now_ns = self.now_ns();
        if let Some(server) = self.servers.get_mut(server) {
            server.start_ns = now_ns;
            server.plant.restart();
        }
    }

    fn second(&mut self) {
        let now_ns = self.now_ns();
        let elapsed = (now_ns - self.spec.start_ns).div_euclid(NANOS_PER_SECOND);
        let seconds_of_day = (i64::from(self.spec.start_second_of_day) + elapsed).rem_euclid(86_400) as f64;
        let daily = 1.0 + 0.25 * (TAU * (seconds_of_day / 86_400.0 - 0.3)).sin();
        let swell = 1.0 + 0.08 * (TAU * seconds_of_day / 420.0).sin();
        for at in 0..self.pools.len() {
            self.dispatch(at, now_ns);
        }
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.noise = 0.8 * server.noise + 0.6 * 0.05 * server.rng.bell();
            let traffic = (daily * swell * server.skew * (1.0 + server.noise)).max(0.0);
            let mut load = Load { requests_per_second: requests_for(FOREGROUND_SHARE) * traffic, ..Load::default() };
            for class in WorkClass::ALL {
                let work = server.in_use[class as usize] * NOMINAL_FACTOR;
                load.background_cores += work * class.cpu_share() * CORES as f64;
                load.background_operations += work * class.disk_share() * DISK_OPERATIONS_PER_SECOND;
            }
            for incident in self.incidents.iter().filter(|incident| incident.is_active(now_ns)) {
                match incident.kind {
                    IncidentKind::HotServer { server } if server == index => {
                        load.background_cores += 0.6 * CORES as f64;
                    }
                    IncidentKind::FailsFastIdle { server } if server == index => load.fails_fast = true,
                    _ => {}
                }
            }
            server.plant.run(load, 1.0);
        }
    }

    /// A second of a pool's scheduler: arrivals join the backlog, and the backlog goes where it is admitted.
    fn dispatch(&mut self, at: usize, now_ns: i64) {
        let pool = &mut self.pools[at];
        let servers = &mut self.servers[pool.servers.clone()];
        let ordinary = servers.len() as f64;
        for class in WorkClass::ALL {
            let burst: f64 = self
                .incidents
                .iter()
                .filter(|incident| incident.is_active(now_ns))
                .map(|incident| match incident.kind {
                    IncidentKind::BackgroundBurst { pool, class: of, factor } if pool == at && of == class => factor,
                    _ => 1.0,
                })
                .product();
            let class = class as usize;
            let waiting = pool.backlog[class] + ordinary * burst.max(0.0);
            let admitted: f64 = servers.iter().map(|server| server.admission[class] * NOMINAL_FACTOR).sum();
            let share = if admitted > 0.0 { (waiting / admitted).min(1.0) } else { 0.0 };
            for server in servers.iter_mut() {
                server.in_use[class] = server.admission[class] * share;
            }
            let done = admitted * share;
            let left = waiting - done;
            let kept = left.clamp(0.0, ordinary * BACKLOG_SECONDS_MAX);
            pool.done[class] += done;
            pool.given_up[class] += (left - kept).max(0.0);
            pool.backlog[class] = kept;
        }
    }
}

fn cell_name(cell: usize) -> String {
    format!("eu-{}", cell + 1)
}

fn pool_name(pool: usize) -> String {
    match pool {
        0 => "web".to_owned(),
        1 => "api".to_owned(),
        2 => "search".to_owned(),
        3 => "batch".to_owned(),
        _ => format!("pool-{}", pool + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fleet: &Fleet, seconds: i64) -> i64 {
        fleet.spec().start_ns + seconds * NANOS_PER_SECOND
    }

    fn run(fleet: &mut Fleet, seconds: i64) {
        let now_ns = fleet.now_ns() + seconds * NANOS_PER_SECOND;
        fleet.step(now_ns);
    }

    fn small() -> Fleet {
        Fleet::new(FleetSpec { cells: 2, pools: 2, servers_per_pool: 3, ..FleetSpec::default() })
    }

    #[test]
    fn the_hour_at_which_it_is_run_makes_no_difference() {
        let loads = |start_ns: i64| {
            let mut fleet = Fleet::new(FleetSpec { start_ns, ..small().spec().clone() });
            run(&mut fleet, 300);
            fleet.servers.iter().map(|server| format!("{:?}", server.plant)).collect::<Vec<_>>()
        };
        let start_ns = FleetSpec::default().start_ns;
        assert_eq!(loads(start_ns), loads(start_ns + 11 * 3_600 * NANOS_PER_SECOND));
    }

    #[test]
    fn time_may_be_cut_as_one_likes() {
        let (mut whole, mut cut) = (small(), small());
        run(&mut whole, 100);
        for second in [1, 2, 30, 29, 77, 100] {
            let now_ns = at(&cut, second);
            cut.step(now_ns);
        }
        assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
        let other = Fleet::new(FleetSpec { seed: 2, ..whole.spec().clone() });
        assert_ne!(other.servers()[0].host_id, whole.servers()[0].host_id);
    }

    #[test]
    fn names_are_unique_and_lie_in_their_cell_and_pool() {
        let fleet = small();
        let names: Vec<&str> = fleet.servers().iter().map(|server| &*server.name).collect();
        assert_eq!(&names[..4], ["web-1", "web-2", "web-3", "api-1"]);
        assert_eq!(&names[6..10], ["web-4", "web-5", "web-6", "api-4"]);
        assert_eq!(fleet.servers()[7].cell, "eu-2");
        assert_eq!(fleet.pools()[3].servers, 9..12);
    }

    /// A burst of discretionary work overloads a pool; admitting less of it brings the load down and the work comes
    /// later, none of it lost.
    #[test]
    fn throttling_closes_the_loop() {
        let mut fleet = small();
        run(&mut fleet, 60);
        let calm = fleet.servers()[0].plant.clone();
        let kind = IncidentKind::BackgroundBurst { pool: 0, class: WorkClass::Discretionary, factor: 5.5 };
        fleet.add_incident(Incident { kind, start_ns: at(&fleet, 60), end_ns: at(&fleet, 360) });
        run(&mut fleet, 120);
        let burst = fleet.servers()[0].plant.clone();
        assert!(calm.cpu_busy < 0.65 && burst.cpu_busy > 0.85, "{} {}", calm.cpu_busy, burst.cpu_busy);
        assert!(burst.disk_await_seconds > 3.0 * calm.disk_await_seconds);
        assert!(burst.http_seconds > 1.5 * calm.http_seconds);
        assert!(fleet.servers()[3].plant.cpu_busy < 0.65, "another pool feels nothing");

        for server in 0..3 {
            fleet.set_admission(server, WorkClass::Discretionary, 0.1);
        }
        run(&mut fleet, 60);
        assert!(fleet.servers()[0].plant.cpu_busy < 0.65, "{}", fleet.servers()[0].plant.cpu_busy);
        assert!(fleet.servers()[0].plant.disk_await_seconds < 1.5 * calm.disk_await_seconds);
        let held_back = fleet.pools()[0].backlog[3];
        assert!(held_back > 0.0);

        for server in 0..3 {
            fleet.set_admission(server, WorkClass::Discretionary, 1.0);
        }
        run(&mut fleet, 600);
        let pool = &fleet.pools()[0];
        assert_eq!((pool.backlog[3], pool.given_up[3]), (0.0, 0.0));
        let arrived = 3.0 * (840.0 - 300.0 + 300.0 * 5.5);
        assert!((pool.done[3] - arrived).abs() < 1e-6, "{} {arrived}", pool.done[3]);
    }

    #[test]
    fn a_full_backlog_gives_up_and_counts() {
        let mut fleet = small();
        for server in 0..3 {
            fleet.set_admission(server, WorkClass::Urgent, 0.0);
            fleet.set_admission(server, WorkClass::Urgent, f64::NAN);
        }
        fleet.set_admission(999, WorkClass::Urgent, 0.0);
        for _ in 0..2 {
            run(&mut fleet, 2_000);
        }
        let pool = &fleet.pools()[0];
        assert_eq!((pool.backlog[0], pool.given_up[0], pool.done[0]), (3.0 * 3_600.0, 3.0 * 400.0, 0.0));
    }

    #[test]
    fn incidents_look_as_they_should_from_outside() {
        let mut fleet = small();
        let (start_ns, end_ns) = (at(&fleet, 0), at(&fleet, 100));
        fleet.add_incident(Incident { kind: IncidentKind::HotServer { server: 0 }, start_ns, end_ns });
        fleet.add_incident(Incident { kind: IncidentKind::FailsFastIdle { server: 1 }, start_ns, end_ns });
        run(&mut fleet, 60);
        let [hot, failing, peer] = [0, 1, 2].map(|server| fleet.servers()[server].plant.clone());
        assert!(hot.cpu_busy > 0.95 && hot.http_seconds > 5.0 * peer.http_seconds);
        assert!(
            failing.error_ratio > 0.5 && failing.cpu_busy < peer.cpu_busy && failing.http_seconds < peer.http_seconds
        );
        run(&mut fleet, 60);
        let [hot, failing] = [0, 1].map(|server| &fleet.servers()[server].plant);
        assert!(hot.cpu_busy < 0.65 && failing.error_ratio < 0.01, "both are over");
    }

    #[test]
    fn a_restart_begins_the_counters_again() {
        let mut fleet = small();
        run(&mut fleet, 30);
        fleet.restart(0);
        assert_eq!(fleet.servers()[0].start_ns, at(&fleet, 30));
        assert_eq!(fleet.servers()[0].plant.disk_busy_seconds, 0.0);
        assert!(fleet.servers()[1].plant.disk_busy_seconds > 0.0);
    }
}
