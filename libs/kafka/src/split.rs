//! A batch of samples that is larger than a message, as several.
//!
//! The engine treats the samples between two ticks as a set, so where a batch is cut changes no answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use headroom_model::{HistogramPoint, LogRecord, SampleBatch, SampleBatchBuilder};

/// The bytes of a record, in pieces of at most `bytes_max` each; `None` if it cannot be cut that small.
pub(crate) fn encode(record: &LogRecord, bytes_max: usize) -> Option<Vec<Vec<u8>>> {
    let bytes = record.encode();
    if bytes.len() <= bytes_max {
        return Some(vec![bytes]);
    }
    let (batch, again): (_, fn(Arc<SampleBatch>) -> LogRecord) = match record {
        LogRecord::Samples(batch) => (batch, LogRecord::Samples),
        LogRecord::Overdue(batch) => (batch, LogRecord::Overdue),
        _ => return None,
    };
    let mut pieces = Vec::new();
    // Somewhat more pieces than the size asks for, as the dictionaries are repeated in each.
    let count = (bytes.len() * 5 / 4).div_ceil(bytes_max).max(2);
    drop(bytes);
    let rows = batch.len();
    if rows < 2 {
        return None;
    }
    let step = rows.div_ceil(count).max(1);
    for from in (0..rows).step_by(step) {
        let part = rows_of(batch, from, (from + step).min(rows));
        pieces.extend(encode(&again(Arc::new(part)), bytes_max)?);
    }
    Some(pieces)
}

/// The rows `[from, to)` as a batch of its own; numeric rows are counted before histograms.
fn rows_of(batch: &SampleBatch, from: usize, to: usize) -> SampleBatch {
    let mut builder = SampleBatchBuilder::with_capacity(to - from);
    let (mut resources, mut series) = (BTreeMap::new(), BTreeMap::new());
    let points = &batch.points;
    let numeric = points.value.len();
    for row in from..to.min(numeric) {
        let resource = *resources
            .entry(points.resource[row])
            .or_insert_with(|| builder.add_resource(batch.resources[points.resource[row] as usize].clone()));
        let one = *series
            .entry(points.series[row])
            .or_insert_with(|| builder.add_series(batch.series[points.series[row] as usize].clone()));
        builder.push(resource, one, points.start_ns[row], points.time_ns[row], points.value[row]);
    }
    for row in from.max(numeric)..to {
        let point = batch.histograms[row - numeric].clone();
        let resource = *resources
            .entry(point.resource)
            .or_insert_with(|| builder.add_resource(batch.resources[point.resource as usize].clone()));
        let one = *series
            .entry(point.series)
            .or_insert_with(|| builder.add_series(batch.series[point.series as usize].clone()));
        builder.push_histogram(HistogramPoint { resource, series: one, ..point });
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_all_rows_in_order() {
        let record = headroom_log::contract::samples(7, 1000);
        let whole = record.encode().len();
        let pieces = encode(&record, whole / 3).expect("it can be cut");
        assert!(pieces.len() >= 3);
        let mut values = Vec::new();
        for piece in &pieces {
            assert!(piece.len() <= whole / 3);
            match LogRecord::decode(piece) {
                Ok(LogRecord::Samples(batch)) => values.extend(batch.points.time_ns.iter().copied()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(values, (0..1000).collect::<Vec<i64>>());
        assert_eq!(encode(&record, whole).map(|pieces| pieces.len()), Some(1));
        assert_eq!(encode(&LogRecord::Policy("x".repeat(100).into()), 50), None);
        assert_eq!(encode(&record, 40), None, "one row is larger than that");
    }
}
