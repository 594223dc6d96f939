//! The states of one server: entry, exit and hold rules.
//!
//! Every rule that the field counts in ticks counts *new reports* here. For a server that reports each tick this is the
//! same; for one that reports once a minute it is what makes "twice in a row" mean two observations and not one looked
//! at twice. Hysteresis is in the values (in at 1.0, out at 0.8) and in the counts (in after 2, out after 6).
//!
//! The axes know nothing of each other: a server that fails fast is `faulty` and stays visibly `underloaded`.

use headroom_model::frame::{FaultState, LoadState, flag};

use crate::WINDOW_INTERVALS;
use crate::latch::Latch;
use crate::step::HealthCounters;

mod checkpoint;

/// Pressure from which a server is overloaded, and the reports it takes.
const OVERLOADED: f32 = 1.0;
const OVERLOADED_REPORTS: u8 = 2;
/// Pressure from which a server is critical, and the reports it takes when no second signal confirms it.
const CRITICAL: f32 = 2.0;
const CRITICAL_REPORTS: u8 = 2;
/// Below this a critical server is on its way back, after so many reports.
const CRITICAL_EXIT: f32 = 1.6;
const CRITICAL_EXIT_REPORTS: u8 = 3;
/// Below this an overloaded server is on its way back, after so many reports and seconds.
const OVERLOADED_EXIT: f32 = 0.8;
const OVERLOADED_EXIT_REPORTS: u8 = 6;
const OVERLOADED_SECONDS_MIN: u32 = 60;
/// Below this a server is underloaded, after so many reports; it leaves at the exit.
const UNDERLOADED: f32 = 0.0;
const UNDERLOADED_REPORTS: u8 = 3;
const UNDERLOADED_EXIT: f32 = 0.15;
/// Reports that lead out of unknown.
const FRESH_REPORTS: u8 = 3;
/// Pressure of the fault axis from which a server is suspect.
const SUSPECT: f32 = 1.0;
/// Suspect in so many of the last [`FAULT_WINDOWS`] windows is faulty.
const FAULTY_WINDOWS: u32 = 3;
const FAULT_WINDOWS: u32 = 5;
/// Reports and seconds without suspicion that lead back to ok.
const FAULT_EXIT_REPORTS: u8 = 6;
const FAULT_SECONDS_MIN: u32 = 60;
/// Two report times closer than this are one: ages are 32-bit floats.
const SAME_REPORT_MS: i64 = 50;

/// The report behind a pressure: that of the signal which carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Its age, seconds; NaN where the signal has none of its own (it is held, or there is none): the server's counts.
    pub(crate) age_seconds: f32,
    /// The interval of the signal, seconds, where it is slower than its server; else 0.
    pub(crate) slow_seconds: f32,
}

/// What a tick shows of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) now: u32,
    /// Age of the newest sample, seconds.
    pub(crate) age_seconds: f32,
    /// The server's interval, seconds; NaN while unknown.
    pub(crate) interval_seconds: f32,
    /// The server's control window, seconds.
    pub(crate) window_seconds: f32,
    /// From this age on a server is unknown, seconds.
    pub(crate) unknown_seconds: f32,
    /// Load pressure over the control window; NaN without one.
    pub(crate) control: f32,
    pub(crate) control_report: Report,
    /// Load pressure over the state window; NaN without one.
    pub(crate) state: f32,
    pub(crate) state_report: Report,
    /// A second family, or latency or errors, is over its set-point too.
    pub(crate) confirmed: bool,
    /// Pressure of the fault axis.
    pub(crate) fault: f32,
    pub(crate) fault_report: Report,
    /// A fatal flag is up.
    pub(crate) fatal: bool,
    /// What is wrong with the server's data, as bits of [`flag`].
    pub(crate) data_flags: u16,
}

impl Observation {
    /// Whether the server is silent for so long that nothing is known of it.
    pub(crate) fn is_stale(&self) -> bool {
        // An age that is not a number is no proof of life.
        self.age_seconds.is_nan() || self.age_seconds > self.unknown_seconds
    }
}

/// What one server remembers between ticks. A row is read and written whole, hence a row and not columns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ServerState {
    /// [`LoadState`] as number.
    pub(crate) load: u8,
    /// [`FaultState`] as number.
    pub(crate) fault: u8,
    /// Reports in a row over the overloaded and the critical line.
    over: u8,
    critical: u8,
    /// Reports in a row beyond the line that leads to the next better state.
    calm: u8,
    /// Reports since the load axis, the fault axis became unknown.
    load_fresh: u8,
    fault_fresh: u8,
    /// Reports in a row without suspicion.
    fault_calm: u8,
    /// The last windows, newest in the lowest bit: whether the server was suspect.
    fault_windows: u8,
    /// When either state last changed; 0 = this slot is new.
    pub(crate) since: u32,
    load_since: u32,
    fault_since: u32,
    /// When the load axis last had a pressure.
    load_known: u32,
    /// When the next of the fault windows ends.
    fault_window_end: u32,
    /// The newest report taken into account, Unix milliseconds.
    last_report_ms: i64,
    /// The newest reports of the signals that carried the pressure, taken into account for `over` and `critical`.
    state_report_ms: i64,
    control_report_ms: i64,
    /// Where a signal that is slower than its server was the last bad one: its interval, seconds, and when the last
    /// report was counted. Reports towards calm count no faster than that signal could have contradicted them.
    load_pace: f32,
    fault_pace: f32,
    calm_at: u32,
    fault_calm_at: u32,
    /// The last ticks at which samples from too far ahead, and values that are no numbers, had come; 0 = none.
    ahead_at: u32,
    not_a_number_at: u32,
}

/// The latches of one server. Apart from the state because only a change looks at more than `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Latches {
    load: Latch,
    fault: Latch,
}

impl Latches {
    /// Whether the server is flapping.
    pub(crate) fn is_closed(&self, now: u32) -> bool {
        self.load.is_closed(now) || self.fault.is_closed(now)
    }
}

impl ServerState {
    /// Takes one tick in.
    pub(crate) fn step(&mut self, seen: &Observation, latches: &mut Latches, counters: &mut HealthCounters) {
        let now = seen.now;
        if self.since == 0 {
            (self.since, self.load_since, self.fault_since) = (now, now, now);
            (self.last_report_ms, self.state_report_ms, self.control_report_ms) = (i64::MIN, i64::MIN, i64::MIN);
        }
        if seen.data_flags & flag::CLOCK_SKEW != 0 {
            self.ahead_at = now;
        }
        if seen.data_flags & flag::NOT_A_NUMBER != 0 {
            self.not_a_number_at = now;
        }
        let stale = seen.is_stale();
        let is_new = !stale && is_news(now, seen.age_seconds, &mut self.last_report_ms);
        self.step_load(seen, is_new, stale, &mut latches.load, counters);
        self.step_fault(seen, is_new, stale, &mut latches.fault, counters);
    }

    /// What is wrong with the server's data. What is taken out as it comes is shown for as long as reports may be missed:
    /// those of a slow sender come at few ticks.
    pub(crate) fn data_flags(&self, seen: &Observation) -> u16 {
        let mut flags = seen.data_flags & !(flag::CLOCK_SKEW | flag::NOT_A_NUMBER);
        for (at, flag) in [(self.ahead_at, flag::CLOCK_SKEW), (self.not_a_number_at, flag::NOT_A_NUMBER)] {
            let is_recent = at != 0 && seen.now.saturating_sub(at) as f32 <= seen.unknown_seconds;
            flags |= if is_recent { flag } else { 0 };
        }
        flags
    }

    fn step_load(
        &mut self,
        seen: &Observation,
        is_new: bool,
        stale: bool,
        latch: &mut Latch,
        counters: &mut HealthCounters,
    ) {
        let blind = seen.state.is_nan();
        if !blind {
            self.load_known = seen.now;
        }
        let blind_seconds = seen.now.saturating_sub(self.load_known) as f32;
        if stale || (blind && blind_seconds > seen.unknown_seconds) {
            (self.load_fresh, self.over, self.critical) = (0, 0, 0);
            self.set_load(LoadState::Unknown as u8, seen, latch, counters);
            return;
        }
        if blind {
            return;
        }
        // A pressure is observed as often as the signal that carries it reports, whoever else speaks in between.
        let of_report = |report: &Report, last_ms: &mut i64| {
            if report.age_seconds.is_nan() { is_new } else { is_news(seen.now, report.age_seconds, last_ms) }
        };
        let state_is_new = of_report(&seen.state_report, &mut self.state_report_ms);
        let control_is_new = of_report(&seen.control_report, &mut self.control_report_ms);
        if !(is_new || state_is_new || control_is_new) {
            return;
        }
        let count = |counter: u8, holds: bool| if holds { counter.saturating_add(1) } else { 0 };
        if state_is_new {
            self.over = count(self.over, seen.state >= OVERLOADED);
        }
        if control_is_new {
            self.critical = count(self.critical, seen.control >= CRITICAL);
        }
        let is_critical = self.critical >= CRITICAL_REPORTS || (self.critical > 0 && seen.confirmed);
        let is_overloaded = self.over >= OVERLOADED_REPORTS;
        let [unknown, underloaded, normal, overloaded, critical] = LoadState::ALL.map(|state| state as u8);
        if self.load == unknown {
            self.load_fresh = self.load_fresh.saturating_add(u8::from(is_new));
            if self.load_fresh < FRESH_REPORTS {
                return;
            }
            let next = match seen.state {
                _ if is_critical => critical,
                _ if is_overloaded => overloaded,
                pressure if pressure < UNDERLOADED => underloaded,
                _ => normal,
            };
            self.set_load(next, seen, latch, counters);
            return;
        }
        let (exit, reports, seconds, better) = match self.load {
            state if state == critical => (CRITICAL_EXIT, CRITICAL_EXIT_REPORTS, 0, overloaded),
            state if state == overloaded => (OVERLOADED_EXIT, OVERLOADED_EXIT_REPORTS, OVERLOADED_SECONDS_MIN, normal),
            _ => (UNDERLOADED, UNDERLOADED_REPORTS, 0, underloaded),
        };
        if seen.state >= exit {
            self.calm = 0;
            if state_is_new {
                (self.load_pace, self.calm_at) = (seen.state_report.slow_seconds, seen.now);
            }
        } else if is_new && has_passed(self.calm_at, self.load_pace, seen.now) {
            self.calm = self.calm.saturating_add(1);
            self.calm_at = seen.now;
        }
        let is_calm = self.calm >= reports && seen.now.saturating_sub(self.load_since) >= seconds;
        let next = if is_critical {
            critical
        } else if is_overloaded && self.load < overloaded {
            overloaded
        } else if self.load == underloaded {
            if seen.state >= UNDERLOADED_EXIT { normal } else { underloaded }
        } else if is_calm {
            better
        } else {
            self.load
        };
        self.set_load(next, seen, latch, counters);
    }

    fn step_fault(
        &mut self,
        seen: &Observation,
        is_new: bool,
        stale: bool,
        latch: &mut Latch,
        counters: &mut HealthCounters,
    ) {
        let [unknown, ok, suspect, faulty] = FaultState::ALL.map(|state| state as u8);
        if stale {
            (self.fault_fresh, self.fault_calm, self.fault_windows) = (0, 0, 0);
            self.set_fault(unknown, seen, latch, counters);
            return;
        }
        if seen.fatal {
            self.fault_calm = 0;
            self.set_fault(faulty, seen, latch, counters);
            return;
        }
        if !is_new {
            return;
        }
        let bad = seen.fault >= SUSPECT;
        if bad {
            self.fault_pace = seen.fault_report.slow_seconds;
        }
        let window_seconds = seen.window_seconds.max(WINDOW_INTERVALS * self.fault_pace);
        if self.fault_windows == 0 {
            // The first bad window starts the count; between incidents there is nothing to keep.
            if bad {
                self.fault_windows = 1;
                self.fault_window_end = seen.now.saturating_add(window_seconds as u32);
            }
        } else if seen.now >= self.fault_window_end {
            self.fault_windows = ((self.fault_windows << 1) | u8::from(bad)) & ((1 << FAULT_WINDOWS) - 1);
            self.fault_window_end = seen.now.saturating_add(window_seconds as u32);
        }
        self.fault_fresh = self.fault_fresh.saturating_add(1);
        if bad {
            (self.fault_calm, self.fault_calm_at) = (0, seen.now);
        } else if has_passed(self.fault_calm_at, self.fault_pace, seen.now) {
            self.fault_calm = self.fault_calm.saturating_add(1);
            self.fault_calm_at = seen.now;
        }
        let is_calm =
            self.fault_calm >= FAULT_EXIT_REPORTS && seen.now.saturating_sub(self.fault_since) >= FAULT_SECONDS_MIN;
        let next = match self.fault {
            state if state == unknown && self.fault_fresh < FRESH_REPORTS => unknown,
            state if state == faulty => {
                if is_calm {
                    ok
                } else {
                    faulty
                }
            }
            _ if self.fault_windows.count_ones() >= FAULTY_WINDOWS => faulty,
            state if state == suspect => {
                if is_calm {
                    ok
                } else {
                    suspect
                }
            }
            _ => {
                if bad {
                    suspect
                } else {
                    ok
                }
            }
        };
        self.set_fault(next, seen, latch, counters);
    }

    fn set_load(&mut self, next: u8, seen: &Observation, latch: &mut Latch, counters: &mut HealthCounters) {
        let next = settle(self.load, next, LoadState::Unknown as u8, seen, latch, counters);
        if next != self.load {
            self.load = next;
            self.calm = 0;
            (self.since, self.load_since) = (seen.now, seen.now);
            counters.transitions += 1;
        }
    }

    fn set_fault(&mut self, next: u8, seen: &Observation, latch: &mut Latch, counters: &mut HealthCounters) {
        let next = settle(self.fault, next, FaultState::Unknown as u8, seen, latch, counters);
        if next != self.fault {
            self.fault = next;
            if next == FaultState::Ok as u8 {
                (self.fault_windows, self.fault_pace) = (0, 0.0);
            }
            (self.since, self.fault_since) = (seen.now, seen.now);
            counters.transitions += 1;
        }
    }
}

/// Whether a report of this age at `now` is later than the last one, which it then becomes.
fn is_news(now: u32, age_seconds: f32, last_ms: &mut i64) -> bool {
    let report_ms = (i64::from(now) * 1000).saturating_sub((f64::from(age_seconds) * 1000.0) as i64);
    let is_news = report_ms > last_ms.saturating_add(SAME_REPORT_MS);
    if is_news {
        *last_ms = report_ms;
    }
    is_news
}

/// Whether so many seconds have passed since then.
fn has_passed(since: u32, seconds: f32, now: u32) -> bool {
    now.saturating_sub(since) as f32 >= seconds.floor()
}

/// The state after a wish to change, seen by the latch. Becoming unknown and knowing again is no flapping: it says
/// something of the reports and nothing of the server.
fn settle(
    state: u8,
    next: u8,
    unknown: u8,
    seen: &Observation,
    latch: &mut Latch,
    counters: &mut HealthCounters,
) -> u8 {
    if next == state || next == unknown || state == unknown {
        return next;
    }
    if next < state && latch.is_closed(seen.now) {
        return state;
    }
    if latch.change(seen.now, seen.interval_seconds) {
        counters.flaps += 1;
        return next.max(state);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One server under a script of load pressures, one report each ten seconds.
    pub(super) struct Script {
        now: u32,
        pub(super) state: ServerState,
        pub(super) latches: Latches,
        counters: HealthCounters,
    }

    impl Script {
        pub(super) fn new() -> Self {
            let (state, latches, counters) = Default::default();
            let mut script = Self { now: 1_000_000, state, latches, counters };
            script.run(&[(3, 0.5)]);
            script
        }

        fn tick(&mut self, change: impl FnOnce(&mut Observation)) -> (LoadState, FaultState) {
            self.now += 10;
            let mut seen = Observation {
                now: self.now,
                age_seconds: 1.0,
                interval_seconds: 10.0,
                window_seconds: 30.0,
                unknown_seconds: 40.0,
                control: 0.5,
                control_report: Report { age_seconds: f32::NAN, slow_seconds: 0.0 },
                state: 0.5,
                state_report: Report { age_seconds: f32::NAN, slow_seconds: 0.0 },
                confirmed: false,
                fault: -1.0,
                fault_report: Report { age_seconds: f32::NAN, slow_seconds: 0.0 },
                fatal: false,
                data_flags: 0,
            };
            change(&mut seen);
            self.state.step(&seen, &mut self.latches, &mut self.counters);
            (LoadState::ALL[usize::from(self.state.load)], FaultState::ALL[usize::from(self.state.fault)])
        }

        /// Runs (ticks, pressure) pairs; answers the load state after each pair.
        pub(super) fn run(&mut self, pairs: &[(usize, f32)]) -> Vec<LoadState> {
            let mut states = Vec::new();
            for (ticks, pressure) in pairs {
                let mut last = LoadState::Unknown;
                for _ in 0..*ticks {
                    last = self.tick(|seen| (seen.control, seen.state) = (*pressure, *pressure)).0;
                }
                states.push(last);
            }
            states
        }
    }

    #[test]
    fn load_enters_and_leaves_by_the_rules() {
        use LoadState::{Critical, Normal, Overloaded, Underloaded, Unknown};
        let mut fresh = Script {
            now: 1_000_000,
            state: Default::default(),
            latches: Default::default(),
            counters: Default::default(),
        };
        assert_eq!(fresh.run(&[(2, 0.5), (1, 0.5)]), [Unknown, Normal]);
        for (script, expected) in [
            (vec![(1, 1.0), (1, 1.0)], vec![Normal, Overloaded]),
            (vec![(1, 1.0), (1, 0.9), (1, 1.0)], vec![Normal, Normal, Normal]),
            (vec![(1, 2.0), (1, 2.0)], vec![Normal, Critical]),
            (vec![(2, 2.0), (2, 1.5), (1, 1.5)], vec![Critical, Critical, Overloaded]),
            (vec![(2, 1.0), (5, 0.7), (1, 0.7)], vec![Overloaded, Overloaded, Normal]),
            (vec![(2, 1.0), (5, 0.7), (1, 0.85), (5, 0.7)], vec![Overloaded; 4]),
            (vec![(2, -0.1), (1, -0.1), (1, 0.1), (1, 0.2)], vec![Normal, Underloaded, Underloaded, Normal]),
        ] {
            assert_eq!(Script::new().run(&script), expected, "{script:?}");
        }
    }

    #[test]
    fn a_second_signal_confirms_critical_at_once() {
        let mut script = Script::new();
        let (load, _) = script.tick(|seen| (seen.control, seen.state, seen.confirmed) = (2.1, 1.2, true));
        assert_eq!(load, LoadState::Critical);
    }

    #[test]
    fn a_tick_without_a_report_counts_nothing() {
        let mut script = Script::new();
        let slow = |age: f32| {
            move |seen: &mut Observation| {
                (seen.age_seconds, seen.interval_seconds, seen.unknown_seconds) = (age, 60.0, 240.0);
                (seen.control, seen.state) = (1.3, 1.3);
            }
        };
        for age in [0.0, 10.0, 20.0, 30.0, 40.0, 50.0] {
            assert_eq!(script.tick(slow(age)).0, LoadState::Normal, "{age}");
        }
        assert_eq!(script.tick(slow(0.0)).0, LoadState::Overloaded);
    }

    #[test]
    fn silence_is_unknown_and_three_reports_lead_out() {
        let mut script = Script::new();
        for (age, expected) in [
            (40.0, LoadState::Normal),
            (41.0, LoadState::Unknown),
            (1.0, LoadState::Unknown),
            (1.0, LoadState::Unknown),
        ] {
            assert_eq!(script.tick(|seen| seen.age_seconds = age).0, expected, "{age}");
        }
        assert_eq!(script.tick(|_| ()), (LoadState::Normal, FaultState::Ok));
        assert_eq!(script.tick(|seen| seen.age_seconds = f32::NAN).1, FaultState::Unknown);
    }

    #[test]
    fn suspect_in_three_windows_is_faulty_and_fatal_is_at_once() {
        let mut script = Script::new();
        let mut states: Vec<_> = (0..7).map(|_| script.tick(|seen| seen.fault = 1.2).1).collect();
        assert_eq!(states.pop(), Some(FaultState::Faulty));
        assert_eq!(states, [FaultState::Suspect; 6]);
        let healing: Vec<_> = (0..6).map(|_| script.tick(|_| ()).1).collect();
        assert_eq!(healing, [[FaultState::Faulty; 5].as_slice(), &[FaultState::Ok]].concat());
        let (load, fault) = script.tick(|seen| (seen.fatal, seen.control, seen.state) = (true, -0.5, -0.5));
        assert_eq!((load, fault), (LoadState::Normal, FaultState::Faulty));
    }

    #[test]
    fn flapping_latches_the_worse_state() {
        let mut script = Script::new();
        let mut last = LoadState::Normal;
        for _ in 0..3 {
            last = script.run(&[(2, 1.1), (6, 0.5)])[1];
        }
        assert_eq!((last, script.counters.flaps), (LoadState::Overloaded, 1));
        assert!(script.latches.is_closed(script.now));
        assert_eq!(script.run(&[(20, 0.5), (15, 0.5)]), [LoadState::Overloaded, LoadState::Normal]);
    }
}
