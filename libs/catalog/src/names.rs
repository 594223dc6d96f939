//! The spellings of a metric's name.
//!
//! Exporters that go by way of Prometheus write `system.cpu.time` as `system_cpu_time_seconds_total`: dots become
//! underscores, the unit and `total` are appended. The way back is not unique, so a name is not taken apart further than
//! needed: each shorter spelling is tried against the names of the policy, the longest first.

/// What Prometheus exporters append for the units in which OpenTelemetry's metrics come. Other units are not here: to take
/// `…_milliseconds` for a metric in seconds would make a latency a thousand times as long, and nobody would see why. (Where a series names its unit, [`crate::units`] converts.)
const UNIT_SUFFIXES: [&str; 3] = ["_seconds", "_bytes", "_ratio"];

/// The name with everything but letters and digits as underscores.
pub(crate) fn underscored(name: &str) -> String {
    name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect()
}

/// The underscored name, then without `_total`, then without its unit, without repeats.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let full = underscored(name);
    let counted = full.strip_suffix("_total").unwrap_or(&full);
    let bare = UNIT_SUFFIXES.iter().find_map(|unit| counted.strip_suffix(unit)).unwrap_or(counted);
    let mut spellings = vec![full.clone(), counted.to_owned(), bare.to_owned()];
    spellings.dedup();
    spellings
}

/// How alike two names are by the words in them, 0-1. Words, because `system.memory.usage` and `memory_used_bytes` have
/// little in common by letters.
pub(crate) fn likeness(a: &str, b: &str) -> f64 {
    let words = |name: &str| -> Vec<String> {
        let bare = spellings(name).pop().unwrap_or_default().to_ascii_lowercase();
        bare.split('_').filter(|word| !word.is_empty()).map(stem).collect()
    };
    let (a, b) = (words(a), words(b));
    let shared = a.iter().filter(|word| b.contains(word)).count();
    if a.is_empty() || b.is_empty() { 0.0 } else { 2.0 * shared as f64 / (a.len() + b.len()) as f64 }
}

/// A word without the endings that dialects differ in: `errors`, `dropped`, `utilization`, `used`, `usage`.
fn stem(word: &str) -> String {
    let stem = ["ization", "isation", "age", "ing", "ed", "es", "s"]
        .iter()
        .find_map(|ending| word.strip_suffix(ending).filter(|rest| rest.len() >= 2))
        .unwrap_or(word);
    // `dropped` and `drops`.
    let bytes = stem.as_bytes();
    match bytes {
        [.., a, b] if a == b && stem.len() > 3 => stem[..stem.len() - 1].to_owned(),
        _ => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_go_from_the_longest_to_the_shortest() {
        assert_eq!(
            spellings("system_cpu_time_seconds_total"),
            ["system_cpu_time_seconds_total", "system_cpu_time_seconds", "system_cpu_time"]
        );
        assert_eq!(spellings("system.memory.usage"), ["system_memory_usage"]);
        for other_unit in ["http_server_request_duration_milliseconds", "system_cpu_utilization_percent"] {
            assert_eq!(spellings(other_unit), [other_unit]);
        }
        assert_eq!(spellings("é"), ["_"]);
    }

    #[test]
    fn words_decide_what_is_alike() {
        for (a, b) in [
            ("system.memory.usage", "system_memory_used_bytes"),
            ("system.network.dropped", "system.network.drops"),
            ("host.disk.io_time", "system.disk.io_time"),
        ] {
            assert!(likeness(a, b) >= 0.6, "{a} {b} {}", likeness(a, b));
        }
        assert!(likeness("system.cpu.time", "http.server.request.duration") < 0.2);
        assert!(likeness("", "system.cpu.time").abs() < 1e-9);
    }
}
