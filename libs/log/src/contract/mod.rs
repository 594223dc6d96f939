//! What every implementation of the three ports promises, as code that can be run against it.
//!
//! Each function takes an implementation and panics where it breaks the promise that its name states. The suites call
//! all of them with a fresh, empty instance each. They only use what the ports promise to everybody: positions may start
//! anywhere and have gaps, deletion may work in large units, a publication may take a moment to become readable. What
//! only embedded implementations promise has functions of its own, outside the suites.

mod checkpoint;
mod sample;
mod snapshot;

pub use checkpoint::*;
pub use sample::*;
pub use snapshot::*;

use std::sync::Arc;
use std::time::Duration;

use headroom_model::{LogRecord, Resource, SampleBatchBuilder, Series, SeriesKind, Timestamp};

/// How long a condition may take to come true before the promise counts as broken. Nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A record with `points` samples of one server that can be told apart by `mark`.
pub fn samples(mark: u64, points: usize) -> Arc<LogRecord> {
    let mut builder = SampleBatchBuilder::with_capacity(points);
    let resource = builder.add_resource(Arc::new(Resource {
        server: format!("web-{mark}").into(),
        host_names: vec![format!("web-{mark}").into()],
        aliases: Vec::new(),
        cell: "eu-1".into(),
        pool: "web".into(),
        sender: "".into(),
        attributes: Vec::new(),
    }));
    let series = builder.add_series(Arc::new(Series {
        metric: "system.cpu.utilization".into(),
        unit: "1".into(),
        kind: SeriesKind::Gauge,
        attributes: Arc::new([]),
        bounds: Arc::new([]),
    }));
    for point in 0..points {
        builder.push(resource, series, 0, point as i64, mark as f64);
    }
    Arc::new(LogRecord::Samples(Arc::new(builder.finish())))
}

/// A tick at `seconds`.
pub fn tick(seconds: i64) -> Arc<LogRecord> {
    Arc::new(LogRecord::Tick(Timestamp::from_seconds(seconds)))
}

async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}
