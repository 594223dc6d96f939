//! A small cell to test with: metrics named after the inputs that read them.
#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses its part.

use std::sync::Arc;

use arrow_array::{Array, Float64Array};
use headroom_model::policy::*;
use headroom_model::{HistogramPoint, Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind, Timestamp};
use headroom_window::{ResourceId, WindowBatch, WindowConfig, WindowCounters, WindowLimits, WindowStore};

/// Metric `x` feeds the input `x` by source 0, metric `x.b` feeds it by source 1, `x+y` feeds both.
pub struct ByName(pub Arc<Policy>);

impl LaneMatcher for ByName {
    fn lanes(&self, _resource: &Resource, series: &Series) -> Vec<Lane> {
        let (names, source) = match series.metric.strip_suffix(".b") {
            Some(name) => (name, 1),
            None => (&*series.metric, 0),
        };
        let inputs = self.0.inputs.iter().enumerate();
        inputs
            .filter(|(_, input)| names.split('+').any(|name| name == input.name))
            .map(|(at, input)| {
                let scale = input.sources[usize::from(source)].scale;
                Lane { input: at as u16, source, scale }
            })
            .collect()
    }
}

pub fn input(name: &str, function: WindowFunction, fold: Fold, across: Across) -> InputSpec {
    let source = |scale| Source { dialect: "test".into(), metrics: Vec::new(), filters: Vec::new(), scale };
    InputSpec { name: name.into(), unit: "1".into(), sources: vec![source(1.0), source(10.0)], fold, across, function }
}

pub fn policy(mut inputs: Vec<InputSpec>) -> Arc<Policy> {
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(Policy {
        hash: "00000000".into(),
        text: "".into(),
        windows: WindowSpec { control_seconds: 30, state_seconds: 60, baseline_seconds: 1_800, lateness_seconds: 15 },
        health: HealthSpec {
            unknown_after_seconds: 60,
            held_seconds: 300,
            peer_z: 4.0,
            peer_effect: 0.2,
            peers_min: 5,
            silent_seconds: 3_600,
            leave_seconds: 86_400,
        },
        lease: LeaseSpec { lease_seconds: 60, refresh_seconds: 10 },
        inputs,
        signals: Vec::new(),
        score: None,
        rollup: None,
        classes: Vec::new(),
        rules: Vec::new(),
    })
}

pub fn resource(server: &str, sender: &str) -> Arc<Resource> {
    Arc::new(Resource {
        server: server.into(),
        host_names: Vec::new(),
        aliases: Vec::new(),
        cell: "default".into(),
        pool: "default".into(),
        sender: sender.into(),
        attributes: vec![("host.name".into(), server.into()), ("service.name".into(), sender.into())],
    })
}

pub fn series(metric: &str, kind: SeriesKind, attribute: &str, bounds: &[f64]) -> Arc<Series> {
    Arc::new(Series {
        metric: metric.into(),
        unit: "1".into(),
        kind,
        attributes: if attribute.is_empty() { [].into() } else { [("k".into(), attribute.into())].into() },
        bounds: bounds.into(),
    })
}

/// Seconds after the beginning; 0 = unknown.
pub const BEGIN: i64 = 1_800_000_000;

pub fn ns(seconds: f64) -> i64 {
    BEGIN * 1_000_000_000 + (seconds * 1_000.0).round() as i64 * 1_000_000
}

/// One numeric point: sender, series, start and time in seconds after the beginning (start NaN = unknown), value.
#[derive(Clone, Debug)]
pub struct Point {
    pub sender: usize,
    pub series: usize,
    pub start: f64,
    pub time: f64,
    pub value: f64,
}

pub struct Cell {
    pub store: WindowStore,
    pub resources: Vec<Arc<Resource>>,
    pub ids: Vec<Option<ResourceId>>,
    pub series: Vec<Arc<Series>>,
    pub policy: Arc<Policy>,
}

impl Cell {
    /// Servers as `(slot, sender)` pairs.
    pub fn new(inputs: Vec<InputSpec>, config: WindowConfig, limits: WindowLimits, senders: &[(u32, &str)]) -> Self {
        let policy = policy(inputs);
        let mut store = WindowStore::new(limits, config, policy.clone(), Arc::new(ByName(policy.clone())));
        let resources: Vec<_> =
            senders.iter().map(|(slot, sender)| resource(&format!("server-{slot}"), sender)).collect();
        let ids = resources
            .iter()
            .zip(senders)
            .map(|(resource, (slot, _))| {
                let id = store.open_resource(resource)?;
                store.move_resource(id, *slot);
                Some(id)
            })
            .collect();
        Self { store, resources, ids, series: Vec::new(), policy }
    }

    /// One sender on slot 0, wall-clock bound of a minute.
    pub fn one(inputs: Vec<InputSpec>) -> Self {
        let config = WindowConfig { future_max_ns: Some(60_000_000_000) };
        Self::new(inputs, config, WindowLimits::default(), &[(0, "agent")])
    }

    pub fn add_series(&mut self, metric: &str, kind: SeriesKind, attribute: &str) -> usize {
        self.series.push(series(metric, kind, attribute, &[]));
        self.series.len() - 1
    }

    pub fn batch(&self, points: &[Point]) -> SampleBatch {
        let mut builder = SampleBatchBuilder::with_capacity(points.len());
        for resource in &self.resources {
            builder.add_resource(resource.clone());
        }
        for series in &self.series {
            builder.add_series(series.clone());
        }
        for point in points {
            let start_ns = if point.start.is_nan() { 0 } else { ns(point.start) };
            builder.push(point.sender as u32, point.series as u32, start_ns, ns(point.time), point.value);
        }
        builder.finish()
    }

    pub fn send(&mut self, points: &[Point]) -> WindowCounters {
        let batch = self.batch(points);
        let ids = self.ids.clone();
        self.store.ingest(&batch, &ids)
    }

    pub fn send_histogram(&mut self, point: HistogramPoint) -> WindowCounters {
        let mut batch = self.batch(&[]);
        batch.histograms.push(point);
        let ids = self.ids.clone();
        self.store.ingest(&batch, &ids)
    }

    /// `(time, value)…` of one series of the first sender, without start times.
    pub fn send_values(&mut self, series: usize, values: &[(f64, f64)]) -> WindowCounters {
        let points: Vec<Point> = values
            .iter()
            .map(|(time, value)| Point { sender: 0, series, start: f64::NAN, time: *time, value: *value })
            .collect();
        self.send(&points)
    }

    pub fn close(&mut self, seconds: i64) -> WindowBatch {
        let slots = self.ids.len() as u32;
        self.store.close(Timestamp::from_seconds(BEGIN + seconds), slots).unwrap()
    }
}

/// A value of the control and of the state window.
pub fn values(batch: &WindowBatch, input: &str, slot: usize) -> (Option<f64>, Option<f64>) {
    let get = |batch: &arrow_array::RecordBatch| {
        let column = batch.column_by_name(input).unwrap().as_any().downcast_ref::<Float64Array>().unwrap();
        column.is_valid(slot).then(|| column.value(slot))
    };
    (get(&batch.control), get(&batch.state))
}

/// All that a batch says, to the bit.
pub fn content(batch: &WindowBatch) -> Vec<u64> {
    let mut bits = Vec::new();
    for batch in [&batch.control, &batch.state] {
        for column in batch.columns() {
            let column = column.as_any().downcast_ref::<Float64Array>().unwrap();
            bits.extend((0..column.len()).map(|at| u64::from(column.is_valid(at))));
            bits.extend(column.values().iter().map(|value| value.to_bits()));
        }
    }
    for input in &batch.inputs {
        bits.extend(input.samples.iter().map(|n| u64::from(*n)));
        bits.extend(input.age_seconds.iter().map(|n| u64::from(n.to_bits())));
        bits.extend(input.source.iter().map(|n| u64::from(*n)));
    }
    bits.extend(batch.servers.last_sample_ns.iter().map(|n| *n as u64));
    bits.extend(batch.servers.interval_seconds.iter().map(|n| u64::from(n.to_bits())));
    bits.extend(batch.servers.coverage.iter().map(|n| u64::from(n.to_bits())));
    for q in &batch.servers.quality {
        bits.extend([q.resets, q.gaps, q.overlaps, q.not_a_number, q.future, q.flat].map(u64::from));
    }
    bits
}
