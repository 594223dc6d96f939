//! Any bytes as OTLP: no panic, and what prost takes we take, with as many data points.
#![no_main]

use headroom_ingest::otlp::wire::WireFault;
use headroom_ingest::{DecodeError, Decoder, IdentityConfig, IngestLimits, by_partition, count_records, merge};
use headroom_model::LogRecord;
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

fuzz_target!(|body: &[u8]| {
    let _ = count_records(body);
    let mut decoder = Decoder::new(IdentityConfig::default(), IngestLimits::default());
    let decoded = decoder.decode_protobuf(body);
    match (ExportMetricsServiceRequest::decode(body), decoded) {
        (Ok(request), Ok(decoded)) => {
            let report = &decoded.report;
            assert_eq!(report.accepted_points + report.rejected_points(), points(&request));
            // From memory the answer is the same to the bit, and so is it behind the log.
            let again = decoder.decode_protobuf(body).expect("decoded a moment ago").batch;
            let bytes = LogRecord::Samples(again.clone().into()).encode();
            assert_eq!(bytes, LogRecord::Samples(decoded.batch.into()).encode());
            let rows = again.len();
            let parts: Vec<_> = by_partition(again, 3).into_iter().map(|(_, part)| part).collect();
            assert_eq!(merge(parts).len(), rows);
        }
        (Ok(_), Err(DecodeError::Protobuf { fault: WireFault::Group, .. })) | (Err(_), _) => {}
        (Ok(_), Err(error)) => panic!("prost takes it: {error}"),
    }
});

fn points(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    });
    points.sum::<usize>() as u64
}
