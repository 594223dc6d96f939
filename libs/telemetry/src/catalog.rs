//! The one catalogue of our own metrics: what exists, what it means, which labels it has and how many series it may grow
//! to.
//!
//! A metric that is made where it is used drifts: two names for one thing, a label nobody bounded, a dashboard that
//! reads a name of last month. So every metric is an entry of one static table, `/metrics`, the OTLP push and
//! `schemas/metrics.md` are made from it, and a handle cannot be had any other way. The kind and the number of labels
//! are part of an entry's type: asking for a gauge of a counter, or forgetting a label, does not compile.
//!
//! Names follow `headroom_<component>_<noun>_<unit>[_total]` with base units, `process_…` excepted, which every
//! Prometheus client spells alike. The OTLP name is the same without unit and `_total` and with a dot after prefix and
//! component, so that a Prometheus which receives it by OTLP arrives at the same name as one that scrapes it.

mod table;

pub use table::*;

/// What a metric counts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things, named in the singular; no unit in the metric's name.
    Count(&'static str),
    /// Seconds. Counters in seconds are kept in whole nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share, 0-1.
    Ratio,
}

impl Unit {
    /// The ending of a Prometheus name, before `_total`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Count(_) => "",
            Self::Seconds => "_seconds",
            Self::Bytes => "_bytes",
            Self::Ratio => "_ratio",
        }
    }

    /// The unit in UCUM, as OTLP writes it.
    pub fn ucum(self) -> String {
        match self {
            Self::Count(thing) => format!("{{{thing}}}"),
            Self::Seconds => "s".to_owned(),
            Self::Bytes => "By".to_owned(),
            Self::Ratio => "1".to_owned(),
        }
    }
}

/// How a metric behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// The present value.
    Gauge,
    /// A distribution in fixed buckets.
    Histogram,
}

impl Kind {
    /// The word Prometheus uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What its values mean, or which there are.
    pub meaning: &'static str,
}

/// One entry of the catalogue.
#[derive(Debug)]
pub struct Metric {
    /// Its place in [`ALL`].
    pub index: usize,
    /// The Prometheus name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// One sentence that says what it tells.
    pub help: &'static str,
    /// Its labels, in the order in which a handle takes their values.
    pub labels: &'static [Label],
    /// How many combinations of label values it may grow to.
    pub series_max: usize,
}

impl Metric {
    /// The name under which the metric is pushed by OTLP.
    pub fn otlp_name(&self) -> String {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let name = name.strip_suffix(self.unit.suffix()).unwrap_or(name);
        let dots = if name.starts_with("headroom_") { 2 } else { 1 };
        name.replacen('_', ".", dots)
    }

    /// Whether the metric has series per server, whose number the operator bounds.
    pub fn is_per_server(&self) -> bool {
        self.labels.iter().any(|label| label.name == "server")
    }

    /// The upper bounds of a histogram's buckets, without the last, infinite one; empty for other kinds.
    pub fn bounds(&self) -> &'static [f64] {
        match (self.kind, self.unit) {
            (Kind::Histogram, Unit::Bytes) => &BOUNDS_BYTES,
            (Kind::Histogram, _) => &BOUNDS_SECONDS,
            _ => &[],
        }
    }
}

/// Buckets for durations: 100 µs to 10 s.
const BOUNDS_SECONDS: [f64; 16] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for sizes: 1 KiB to 16 MiB, each four times the one before.
const BOUNDS_BYTES: [f64; 8] = [1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// The entry of a counter with `N` labels.
#[derive(Debug)]
pub struct CounterDef<const N: usize>(pub(crate) Metric);

/// The entry of a gauge with `N` labels.
#[derive(Debug)]
pub struct GaugeDef<const N: usize>(pub(crate) Metric);

/// The entry of a histogram with `N` labels.
#[derive(Debug)]
pub struct HistogramDef<const N: usize>(pub(crate) Metric);

macro_rules! metric_of {
    ($($def:ident $kind:ident),*) => {
        $(impl<const N: usize> $def<N> {
            const KIND: Kind = Kind::$kind;

            /// The entry.
            pub fn metric(&'static self) -> &'static Metric {
                &self.0
            }
        })*
    };
}
metric_of!(CounterDef Counter, GaugeDef Gauge, HistogramDef Histogram);

/// The catalogue as a Markdown page: `schemas/metrics.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics of Headroom itself\n\n\
         Made from the catalogue in `libs/telemetry`; do not edit. Every role shows its part of these at `/metrics` and, \
         if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` is set, pushes the same by OTLP under \
         the second name. *Series* bounds the combinations of label values: counters and histograms beyond it are \
         gathered under the value `other`, gauges beyond it are left out; both are counted in \
         `headroom_telemetry_series_refused_total`.\n\n",
    );
    for metric in ALL {
        out.push_str(&format!(
            "## `{}`\n\n{}\n\n{} · unit {} · OTLP `{}` · series ≤ {}\n\n",
            metric.name,
            metric.help,
            metric.kind.name(),
            metric.unit.ucum(),
            metric.otlp_name(),
            metric.series_max,
        ));
        if !metric.labels.is_empty() {
            out.push_str("| Label | Meaning |\n|---|---|\n");
            for label in metric.labels {
                out.push_str(&format!("| `{}` | {} |\n", label.name, label.meaning));
            }
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rules of `promtool check metrics`, and ours on top.
    #[test]
    fn every_entry_keeps_the_naming_rules() {
        let snake = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && !name.contains("__")
        };
        let not_base = [
            "s",
            "ms",
            "us",
            "ns",
            "sec",
            "b",
            "kb",
            "mb",
            "gb",
            "milliseconds",
            "microseconds",
            "nanoseconds",
            "minutes",
            "hours",
            "days",
            "bits",
            "kilobytes",
            "megabytes",
            "percent",
            "celcius",
            "gauge",
            "counter",
            "histogram",
            "summary",
            "count",
            "sum",
            "bucket",
        ];
        let mut names = BTreeSet::new();
        for (index, metric) in ALL.iter().enumerate() {
            let name = metric.name;
            assert_eq!(metric.index, index, "{name}");
            assert!(names.insert(name), "{name} is there twice");
            assert!(snake(name), "{name}");
            assert!(name.starts_with("process_") || name.split('_').count() >= 3, "{name} lacks component or noun");
            assert!(name.starts_with("headroom_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let unit = metric.unit.suffix();
            assert!(stem.ends_with(unit), "{name} must end in {unit}");
            if unit.is_empty() {
                let ends = ["_seconds", "_bytes", "_ratio"].iter().any(|suffix| stem.ends_with(suffix));
                assert!(!ends, "{name} names a unit that it does not have");
            }
            assert!(stem.split('_').all(|word| !not_base.contains(&word)), "{name} names a type or no base unit");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: {}", metric.help);
            assert!(metric.series_max >= 1, "{name}");
            assert_eq!(metric.labels.is_empty(), metric.series_max == 1, "{name}: bound and labels disagree");
            for (at, label) in metric.labels.iter().enumerate() {
                assert!(snake(label.name) && !["le", "quantile", "job", "instance"].contains(&label.name), "{name}");
                assert!(!label.meaning.is_empty(), "{name}: {}", label.name);
                assert!(metric.labels[..at].iter().all(|other| other.name != label.name), "{name}: {}", label.name);
            }
        }
    }

    /// What Prometheus does to a name that arrives by OTLP leads back to the name that it scrapes.
    #[test]
    fn pushed_and_scraped_names_are_one() {
        for metric in ALL {
            let mut name = metric.otlp_name().replace('.', "_");
            name.push_str(metric.unit.suffix());
            if metric.kind == Kind::Counter {
                name.push_str("_total");
            }
            assert_eq!(name, metric.name);
        }
        assert_eq!(OTLP_REQUEST_DURATION.metric().otlp_name(), "headroom.otlp.request_duration");
    }

    #[test]
    fn the_page_lists_every_metric_and_label() {
        let page = markdown();
        for metric in ALL {
            assert!(page.contains(&format!("## `{}`\n\n{}", metric.name, metric.help)), "{}", metric.name);
            for label in metric.labels {
                assert!(page.contains(&format!("| `{}` | {} |", label.name, label.meaning)), "{}", metric.name);
            }
        }
    }
}
