//! Apart by partition and together again: no row lost, none doubled, dictionaries as small as they can be.

use std::sync::Arc;

use headroom_ingest::{by_partition, merge};
use headroom_model::hash::partition_of;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::generate::request;
use crate::oracle::rows_of;
use crate::protobuf::decoder;

fn sorted(mut rows: Vec<crate::oracle::Row>) -> Vec<crate::oracle::Row> {
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_hold_all_rows_once(requests in proptest::collection::vec(request(), 1..4), partitions in 1u32..5) {
        let all = ExportMetricsServiceRequest { resource_metrics: requests.into_iter().flat_map(|r| r.resource_metrics).collect() };
        let batch = decoder().decode_protobuf(&all.encode_to_vec()).unwrap().batch;
        let whole = rows_of(&batch);
        let parts = by_partition(batch, partitions);
        prop_assert!(parts.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (partition, part) in &parts {
            prop_assert!(!part.is_empty());
            prop_assert!(part.resources.iter().all(|resource| partition_of(&resource.cell, partitions) == *partition));
        }
        let rows = parts.iter().flat_map(|(_, part)| rows_of(part)).collect();
        prop_assert_eq!(sorted(rows), sorted(whole.clone()));
        let merged = merge(parts.into_iter().map(|(_, part)| part).collect());
        prop_assert_eq!(sorted(rows_of(&merged)), sorted(whole));
    }
}

#[test]
fn equal_entries_merge_whether_shared_or_not() {
    let body = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/java-1.otlp.pb")).unwrap();
    let mut first = decoder();
    let batches = [
        first.decode_protobuf(&body).unwrap().batch,
        first.decode_protobuf(&body).unwrap().batch,
        decoder().decode_protobuf(&body).unwrap().batch,
    ];
    assert!(Arc::ptr_eq(&batches[0].series[0], &batches[1].series[0]));
    assert!(!Arc::ptr_eq(&batches[0].series[0], &batches[2].series[0]));
    let (resources, series) = (batches[0].resources.clone(), batches[0].series.clone());
    let merged = merge(batches.to_vec());
    assert_eq!((&merged.resources, &merged.series), (&resources, &series));
    assert_eq!(merged.len(), 3 * batches[0].len());
    assert!(merge(Vec::new()).is_empty() && by_partition(Default::default(), 4).is_empty());
}

#[test]
fn one_partition_is_handed_through() {
    let body = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/java-1.otlp.pb")).unwrap();
    let batch = decoder().decode_protobuf(&body).unwrap().batch;
    let values = batch.points.value.as_ptr();
    let parts = by_partition(batch, 64);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].1.points.value.as_ptr(), values);
}
