//! The values of our metrics: one atomic a series, made on demand from an entry of the catalogue.
//!
//! Why not OpenTelemetry's instruments with its Prometheus reader: they never forget a series (servers and cells leave),
//! they cannot take a total that is counted elsewhere (the log and the engine know no metrics library, their shell reads
//! their counts at scrape time), and past their bound they gather gauges into one, which is nonsense. So the values are
//! ours, a handle costs one relaxed atomic addition, and the OTLP push reads the same values through callbacks.
//!
//! Growth is bounded for every metric by its entry. A counter or histogram that is full gathers what is new under the
//! label value `other`, so that sums stay right; a full gauge leaves the new out. Both are counted by metric.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use opentelemetry::KeyValue;

use crate::catalog::{self, ALL, CounterDef, GaugeDef, HistogramDef, Kind, Metric, Unit};

/// Label values longer than this are cut.
pub const LABEL_BYTES_MAX: usize = 128;

/// The label value under which a full counter or histogram gathers the rest.
pub const OTHER: &str = "other";

/// Stands between label values in a key. No value holds it: control characters are replaced.
const SEPARATOR: char = '\u{1f}';

/// Nanoseconds in a second: what counters in seconds are kept in.
const NANOS: f64 = 1e9;

/// What the operator decides about our metrics.
#[derive(Clone, Copy, Debug)]
pub struct TelemetryOptions {
    /// Series of metrics that have a `server` label; 0 switches them off.
    pub server_series_max: usize,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { server_series_max: catalog::SERVER_HEALTH_SCORE.metric().series_max }
    }
}

/// A number that only grows. A handle is cheap to clone and to use from any thread. A default handle belongs to no
/// metric and shows nowhere.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `amount`: things or bytes; of a metric in seconds, nanoseconds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Adds a duration to a metric in seconds.
    pub fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes over a total that is counted elsewhere, in the unit of [`Self::add`]. A smaller total is one that began
    /// again, which readers of counters expect.
    pub fn set_total(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    /// The present total, in the unit of [`Self::add`].
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A present value. See [`Counter`] for what holds of handles.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value, which is in the metric's unit.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds to the value; a negative `amount` subtracts.
    pub fn add(&self, amount: f64) {
        add_f64(&self.0, amount);
    }

    /// The present value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// A distribution. See [`Counter`] for what holds of handles.
#[derive(Clone, Debug)]
pub struct Histogram(pub(crate) Arc<Buckets>);

impl Histogram {
    /// Adds an observation in the metric's unit. NaN is left out: it lies in no bucket.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let cells = &*self.0;
        let at = cells.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = cells.counts.get(at) {
            bucket.fetch_add(1, Relaxed);
        }
        add_f64(&cells.sum, value);
        if let Some(twin) = cells.twin.get() {
            twin.record(value, &cells.attributes);
        }
    }

    /// Adds a duration to a metric in seconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }
}

/// The OpenTelemetry histogram that observations go to as well once a push has begun: OTLP histograms cannot be read
/// through a callback.
pub(crate) type Twin = Arc<OnceLock<opentelemetry::metrics::Histogram<f64>>>;

#[derive(Debug)]
pub(crate) struct Buckets {
    pub(crate) bounds: &'static [f64],
    /// One more than the bounds.
    pub(crate) counts: Vec<AtomicU64>,
    pub(crate) sum: AtomicU64,
    twin: Twin,
    attributes: Vec<KeyValue>,
}

fn add_f64(cell: &AtomicU64, amount: f64) {
    // The closure always gives a value, so there is no failure to look at.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + amount).to_bits()));
}

/// The value of a series.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Number(Arc<AtomicU64>),
    Buckets(Arc<Buckets>),
}

impl Cell {
    /// A counter's or a gauge's value in the metric's unit; `None` for histograms.
    pub(crate) fn number(&self, metric: &Metric) -> Option<f64> {
        let Self::Number(cell) = self else { return None };
        let bits = cell.load(Relaxed);
        Some(match (metric.kind, metric.unit) {
            (Kind::Counter, Unit::Seconds) => bits as f64 / NANOS,
            (Kind::Counter, _) => bits as f64,
            _ => f64::from_bits(bits),
        })
    }
}

/// All series of a metric, by their label values joined with [`SEPARATOR`].
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) metric: &'static Metric,
    series_max: usize,
    series: RwLock<BTreeMap<String, Cell>>,
    pub(crate) twin: Twin,
}

/// Reads the label values back out of a key.
pub(crate) fn label_values(key: &str) -> impl Iterator<Item = &str> {
    key.split(SEPARATOR)
}

impl Family {
    fn new(metric: &'static Metric, options: TelemetryOptions) -> Self {
        let series_max = if metric.is_per_server() { options.server_series_max } else { metric.series_max };
        Self { metric, series_max, series: RwLock::default(), twin: Twin::default() }
    }

    /// The series of these label values, made if it was not there; the flag says that it was refused a place.
    fn cell(&self, values: &[&str]) -> (Cell, bool) {
        let key = key_of(values);
        if let Some(cell) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return (cell.clone(), false);
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = series.get(&key) {
            return (cell.clone(), false);
        }
        if series.len() < self.series_max {
            let cell = self.new_cell(&key);
            series.insert(key, cell.clone());
            return (cell, false);
        }
        if self.metric.kind == Kind::Gauge {
            return (self.new_cell(&key), true);
        }
        let key = key_of(&vec![OTHER; values.len()]);
        (series.entry(key).or_insert_with_key(|key| self.new_cell(key)).clone(), true)
    }

    fn new_cell(&self, key: &str) -> Cell {
        if self.metric.kind != Kind::Histogram {
            return Cell::Number(Arc::default());
        }
        let bounds = self.metric.bounds();
        let names = self.metric.labels.iter().map(|label| label.name);
        Cell::Buckets(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            sum: AtomicU64::default(),
            twin: self.twin.clone(),
            attributes: names
                .zip(label_values(key))
                .map(|(name, value)| KeyValue::new(name, value.to_owned()))
                .collect(),
        }))
    }

    /// How many series there may be.
    pub(crate) fn series_max(&self) -> usize {
        self.series_max
    }

    /// Calls `each` with every series, in the order of its labels.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&str, &Cell)) {
        for (key, cell) in &*self.series.read().unwrap_or_else(PoisonError::into_inner) {
            each(key, cell);
        }
    }
}

/// The key of label values: cut to [`LABEL_BYTES_MAX`], without control characters.
fn key_of(values: &[&str]) -> String {
    let mut key = String::with_capacity(values.iter().map(|value| value.len() + 1).sum());
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            key.push(SEPARATOR);
        }
        let end = value.floor_char_boundary(LABEL_BYTES_MAX);
        key.extend(value[..end].chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    key
}

type Hook = Box<dyn Fn(&Telemetry) + Send + Sync>;

/// Our metrics. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Telemetry(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) families: Vec<Family>,
    hooks: Mutex<Vec<Hook>>,
}

impl Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("families", &self.0.families.len()).finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(TelemetryOptions::default())
    }
}

impl Telemetry {
    /// All metrics of the catalogue, none with a series yet: a role shows what it took handles of.
    pub fn new(options: TelemetryOptions) -> Self {
        let families = ALL.iter().map(|metric| Family::new(metric, options)).collect();
        Self(Arc::new(Inner { families, hooks: Mutex::default() }))
    }

    /// The counter of these label values, in the catalogue's order of labels. Take it once where the values are known
    /// beforehand; looking it up costs a lock and a search.
    pub fn counter<const N: usize>(&self, def: &'static CounterDef<N>, values: [&str; N]) -> Counter {
        match self.cell(def.metric(), &values) {
            Cell::Number(cell) => Counter(cell),
            Cell::Buckets(_) => Counter::default(),
        }
    }

    /// The gauge of these label values; see [`Self::counter`].
    pub fn gauge<const N: usize>(&self, def: &'static GaugeDef<N>, values: [&str; N]) -> Gauge {
        match self.cell(def.metric(), &values) {
            Cell::Number(cell) => Gauge(cell),
            Cell::Buckets(_) => Gauge::default(),
        }
    }

    /// The histogram of these label values; see [`Self::counter`].
    pub fn histogram<const N: usize>(&self, def: &'static HistogramDef<N>, values: [&str; N]) -> Histogram {
        match self.cell(def.metric(), &values) {
            Cell::Buckets(cells) => Histogram(cells),
            Cell::Number(_) => Histogram(Arc::new(Buckets {
                bounds: &[],
                counts: Vec::new(),
                sum: AtomicU64::default(),
                twin: Twin::default(),
                attributes: Vec::new(),
            })),
        }
    }

    /// Replaces all series of a gauge whose first labels have the values `scope` (empty: all) by `rows`: what a new
    /// snapshot does to the gauges of its cell. Rows outside `scope` are set too, but only those inside are forgotten.
    pub fn replace<'a, const N: usize>(
        &self,
        def: &'static GaugeDef<N>,
        scope: &[&str],
        rows: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) {
        let metric = def.metric();
        let Some(family) = self.0.families.get(metric.index) else { return };
        let mut refused = 0;
        {
            let mut series = family.series.write().unwrap_or_else(PoisonError::into_inner);
            forget_scope(&mut series, scope, N);
            for (values, value) in rows {
                let key = key_of(&values);
                if let Some(Cell::Number(cell)) = series.get(&key) {
                    cell.store(value.to_bits(), Relaxed);
                } else if series.len() < family.series_max {
                    series.insert(key, Cell::Number(Arc::new(AtomicU64::new(value.to_bits()))));
                } else {
                    refused += 1;
                }
            }
        }
        self.count_refused(metric, refused);
    }

    /// Forgets all series whose first labels have the values `scope`: a cell that left this process.
    pub fn forget(&self, metric: &'static Metric, scope: &[&str]) {
        if let Some(family) = self.0.families.get(metric.index) {
            let mut series = family.series.write().unwrap_or_else(PoisonError::into_inner);
            forget_scope(&mut series, scope, metric.labels.len());
        }
    }

    /// Has `hook` called before the metrics are read, to bring in values that are kept elsewhere. It must be quick, and
    /// must not itself call [`Self::on_collect`] or [`Self::render`].
    pub fn on_collect(&self, hook: impl Fn(&Telemetry) + Send + Sync + 'static) {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// All series in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        self.collect();
        crate::render::render(&self.0.families)
    }

    pub(crate) fn collect(&self) {
        for hook in &*self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner) {
            hook(self);
        }
    }

    fn cell(&self, metric: &'static Metric, values: &[&str]) -> Cell {
        let Some(family) = self.0.families.get(metric.index) else { return Cell::Number(Arc::default()) };
        let (cell, refused) = family.cell(values);
        self.count_refused(metric, u64::from(refused));
        cell
    }

    fn count_refused(&self, metric: &'static Metric, refused: u64) {
        // Its own bound is larger than the catalogue, so this cannot call itself more than once.
        if refused > 0 && metric.index != catalog::TELEMETRY_SERIES_REFUSED.metric().index {
            self.counter(&catalog::TELEMETRY_SERIES_REFUSED, [metric.name]).add(refused);
        }
    }
}

/// Forgets the series whose first labels are `scope`; a scope of all `labels` is one series.
fn forget_scope(series: &mut BTreeMap<String, Cell>, scope: &[&str], labels: usize) {
    if scope.is_empty() {
        series.clear();
    } else if scope.len() >= labels {
        series.remove(&key_of(scope));
    } else {
        let mut first = key_of(scope);
        first.push(SEPARATOR);
        let keys: Vec<String> = series
            .range::<str, _>((Bound::Included(&*first), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&first))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            series.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{
        DECISION_ADMIT, HTTP_REQUEST_DURATION, LOG_COMMIT_TIME, OTLP_POINTS_ACCEPTED, PROCESS_OPEN_FDS,
        SERVER_HEALTH_SCORE, TELEMETRY_SERIES_REFUSED,
    };

    fn series(telemetry: &Telemetry, name: &str) -> Vec<String> {
        let prefix = format!("headroom_{name}");
        telemetry.render().lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    #[test]
    fn handles_of_equal_labels_share_one_series() {
        let telemetry = Telemetry::default();
        telemetry.counter(&OTLP_POINTS_ACCEPTED, ["grpc"]).add(2);
        telemetry.counter(&OTLP_POINTS_ACCEPTED, ["grpc"]).inc();
        telemetry.counter(&OTLP_POINTS_ACCEPTED, ["http"]).set_total(7);
        assert_eq!(
            series(&telemetry, "otlp_accepted_points_total"),
            ["{transport=\"grpc\"} 3", "{transport=\"http\"} 7"]
        );
        let commits = telemetry.counter(&LOG_COMMIT_TIME, ["0"]);
        commits.add_duration(Duration::from_millis(1_500));
        assert_eq!(series(&telemetry, "log_commit_duration_seconds_total"), ["{partition=\"0\"} 1.5"]);
    }

    #[test]
    fn a_full_counter_gathers_the_rest_and_a_full_gauge_leaves_it_out() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 2 });
        for transport in ["a", "b", "c", "d", "e", "f"] {
            telemetry.counter(&OTLP_POINTS_ACCEPTED, [transport]).inc();
        }
        let rows = series(&telemetry, "otlp_accepted_points_total");
        assert_eq!(rows.len(), 5);
        assert_eq!(rows[4], "{transport=\"other\"} 2");

        telemetry.replace(
            &SERVER_HEALTH_SCORE,
            &["eu-1"],
            [(["eu-1", "web", "a"], 0.5), (["eu-1", "web", "b"], 1.0), (["eu-1", "web", "c"], 1.0)],
        );
        assert_eq!(series(&telemetry, "server_health_score_ratio").len(), 2);
        let refused = |metric: &'static Metric| telemetry.counter(&TELEMETRY_SERIES_REFUSED, [metric.name]).get();
        assert_eq!(refused(OTLP_POINTS_ACCEPTED.metric()), 2);
        assert_eq!(refused(SERVER_HEALTH_SCORE.metric()), 1);

        let off = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        off.gauge(&SERVER_HEALTH_SCORE, ["eu-1", "web", "a"]).set(1.0);
        assert_eq!(series(&off, "server_health_score_ratio"), [""; 0]);
    }

    #[test]
    fn a_snapshot_replaces_its_cell_and_no_other() {
        let telemetry = Telemetry::default();
        let admit = |cell| telemetry.gauge(&DECISION_ADMIT, [cell, "urgent"]);
        for cell in ["eu", "eu-1", "eu-2"] {
            admit(cell).set(1.0);
        }
        telemetry.replace(&DECISION_ADMIT, &["eu"], [(["eu", "discretionary"], 0.25)]);
        assert_eq!(
            series(&telemetry, "decision_admit_ratio"),
            [
                "{cell=\"eu\",class=\"discretionary\"} 0.25",
                "{cell=\"eu-1\",class=\"urgent\"} 1",
                "{cell=\"eu-2\",class=\"urgent\"} 1"
            ]
        );
        telemetry.forget(DECISION_ADMIT.metric(), &["eu-1", "urgent"]);
        telemetry.forget(DECISION_ADMIT.metric(), &["eu"]);
        assert_eq!(series(&telemetry, "decision_admit_ratio"), ["{cell=\"eu-2\",class=\"urgent\"} 1"]);
    }

    #[test]
    fn buckets_are_cumulative_and_closed_above() {
        let telemetry = Telemetry::default();
        let duration = telemetry.histogram(&HTTP_REQUEST_DURATION, ["/v1/pools"]);
        for value in [0.001, 0.0011, 100.0, f64::NAN] {
            duration.observe(value);
        }
        let rows = series(&telemetry, "http_request_duration_seconds");
        let row = |text: &str| rows.iter().any(|row| row == text);
        assert!(row("_bucket{route=\"/v1/pools\",le=\"0.001\"} 1"), "{rows:?}");
        assert!(row("_bucket{route=\"/v1/pools\",le=\"0.0025\"} 2"), "{rows:?}");
        assert!(row("_bucket{route=\"/v1/pools\",le=\"10\"} 2"), "{rows:?}");
        assert!(row("_bucket{route=\"/v1/pools\",le=\"+Inf\"} 3"), "{rows:?}");
        assert!(row("_count{route=\"/v1/pools\"} 3"), "{rows:?}");
        assert!(row("_sum{route=\"/v1/pools\"} 100.0021"), "{rows:?}");
    }

    #[test]
    fn hostile_label_values_stay_one_value_and_are_escaped() {
        let telemetry = Telemetry::default();
        let value = format!("a\"b\\c\n{SEPARATOR}d{}", "é".repeat(100));
        telemetry.counter(&OTLP_POINTS_ACCEPTED, [&*value]).inc();
        let rows = series(&telemetry, "otlp_accepted_points_total");
        assert_eq!(rows, [format!("{{transport=\"a\\\"b\\\\c  d{}\"}} 1", "é".repeat(60))]);
    }

    #[test]
    fn hooks_run_before_every_reading() {
        let telemetry = Telemetry::default();
        telemetry.on_collect(|telemetry| telemetry.gauge(&PROCESS_OPEN_FDS, []).add(1.0));
        telemetry.render();
        assert!(telemetry.render().ends_with("process_open_fds 2\n"));
    }
}
