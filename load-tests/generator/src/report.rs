//! What was measured: as JSON for programs, as a table for people.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Why a run could not be done.
#[derive(Debug)]
pub struct Problem(String);

impl Problem {
    /// With these words.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Latencies in microseconds, to three digits, up to ten minutes; longer ones count as ten minutes.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

const LATENCY_MAX_MICROS: u64 = 600_000_000;

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self, Problem> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3)?))
    }

    /// One more.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_MICROS);
        self.0.saturating_record(micros.clamp(1, LATENCY_MAX_MICROS));
    }

    /// Those of another histogram too.
    pub fn add(&mut self, other: &Self) -> Result<(), Problem> {
        self.0.add(&other.0).map_err(|error| Problem::new(format!("{error:?}")))
    }

    fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("count".to_owned(), json!(self.0.len()));
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            out.insert(format!("{name}Ms"), json!(self.0.value_at_quantile(quantile) as f64 / 1e3));
        }
        Value::Object(out)
    }
}

/// Named figures in the order in which they are to be read.
#[derive(Clone, Debug, Default)]
pub struct Report(Map<String, Value>);

impl Report {
    /// Adds a figure.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds latencies.
    pub fn with_latencies(self, name: &str, latencies: &Latencies) -> Self {
        self.with(name, latencies.json())
    }

    /// One line.
    pub fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// A line a figure; what lies inside another is named `outer.inner`.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            match value {
                Value::Object(inner) => {
                    inner.iter().for_each(|(key, value)| out.push_str(&line(&format!("{name}.{key}"), value)));
                }
                value => out.push_str(&line(name, value)),
            }
        }
        out
    }
}

fn line(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{name:<28} {text}\n"),
        Value::Number(number) if number.is_f64() => {
            format!("{name:<28} {:.3}\n", number.as_f64().unwrap_or_default())
        }
        value => format!("{name:<28} {value}\n"),
    }
}

/// CPU seconds of this process, user and system; 0 where the kernel does not tell.
///
/// A generator that eats a core measures itself: this stands beside every figure so that it can be seen.
pub fn own_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Latencies, Report};

    #[test]
    fn a_report_shows_inner_figures_and_quantiles() {
        let Ok(mut latencies) = Latencies::new() else { panic!("the bounds are constants") };
        (1..=100).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        let report = Report::default().with("points", 7).with_latencies("latency", &latencies);
        assert!(report.table().contains("latency.p50Ms"), "{}", report.table());
        let p99 = report.json()["latency"]["p99Ms"].as_f64().unwrap_or_default();
        assert!((98.0..=100.0).contains(&p99), "{p99}");
    }
}
