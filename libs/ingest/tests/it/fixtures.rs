//! What real senders sent decodes to what prost says, and every point of a sender with a name is accepted.

use std::fs;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use crate::oracle::{rows, rows_of};
use crate::protobuf::{check, decoder};

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pb"));
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_capture_decodes_as_prost_does() {
    let mut decoder = decoder();
    for (name, body) in fixtures() {
        check(&mut decoder, &body);
        let decoded = decoder.decode_protobuf(&body).unwrap();
        let report = &decoded.report;
        if name.contains("anonymous") {
            assert_eq!(report.accepted_points, 0, "{name}");
            let message = report.message.as_deref().unwrap();
            assert!(message.contains("OTEL_RESOURCE_ATTRIBUTES=host.name="), "{message}");
        } else {
            assert_eq!(
                (report.rejected_points(), decoded.batch.is_empty()),
                (0, false),
                "{name}: {:?}",
                report.message
            );
            assert!(decoded.batch.resources.iter().all(|resource| &*resource.server == "fixture-host"), "{name}");
        }
    }
}

#[test]
fn json_of_a_capture_is_the_same() {
    let mut decoder = decoder();
    for (name, body) in fixtures() {
        let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(rows_of(&decoder.decode_json(&json).unwrap().batch), rows(&request).0, "{name}");
    }
}
