//! The `process_…` metrics, read from Linux's `/proc` at scrape time; elsewhere they are absent.

use std::fs;

use crate::catalog::{PROCESS_CPU, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_START_TIME};
use crate::metrics::Telemetry;

/// Ticks a second in `/proc`: part of the kernel's interface to programs, whatever its own timer does.
const TICKS_PER_SECOND: u64 = 100;

impl Telemetry {
    /// Shows the process's CPU time, memory, open files and start from now on.
    pub fn watch_process(&self) {
        self.on_collect(|telemetry| {
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            if let Some((cpu_ticks, start_ticks)) = parse_stat(&read("/proc/self/stat")) {
                telemetry.counter(&PROCESS_CPU, []).set_total(cpu_ticks * (1_000_000_000 / TICKS_PER_SECOND));
                if let Some(boot) = parse_field(&read("/proc/stat"), "btime") {
                    let start = boot as f64 + start_ticks as f64 / TICKS_PER_SECOND as f64;
                    telemetry.gauge(&PROCESS_START_TIME, []).set(start);
                }
            }
            if let Some(kibibytes) = parse_field(&read("/proc/self/status"), "VmRSS:") {
                telemetry.gauge(&PROCESS_RESIDENT_MEMORY, []).set(kibibytes as f64 * 1024.0);
            }
            if let Ok(files) = fs::read_dir("/proc/self/fd") {
                telemetry.gauge(&PROCESS_OPEN_FDS, []).set(files.count() as f64);
            }
        });
    }
}

/// CPU ticks used (user and system) and the tick since boot at which the process started.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    // The second field is the program's name in brackets, which may itself hold brackets and blanks.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((number(11)?.checked_add(number(12)?)?, number(19)?))
}

/// The number after a line's first word.
fn parse_field(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 31 11 0 0 20 0 1 0 5000 200 300 18446744073709551615";
        assert_eq!(parse_stat(stat), Some((42, 5000)));
        assert_eq!(parse_stat("7 (x) S 1"), None);
        assert_eq!(parse_field("cpu 1 2\nbtime 1795255210\n", "btime"), Some(1_795_255_210));
        assert_eq!(parse_field("VmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234));
    }
}
