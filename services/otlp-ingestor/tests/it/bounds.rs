//! Every bound refuses by the name of its key, and tells the sender whether to come again.

use std::time::Duration;

use headroom_access::Access;
use headroom_log::AppendError;
use headroom_otlp_ingestor::Limits;
use headroom_telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{GAUGE, JSON, METRICS, NAMED, PROTOBUF, Service};

const RESOURCE_EXHAUSTED: &str = "8";
const UNAVAILABLE: &str = "14";

fn refused(bound: &str) -> String {
    format!("headroom_otlp_refused_requests_total{{bound=\"{bound}\"}} 1")
}

#[tokio::test]
async fn a_body_too_large_is_not_to_be_sent_again() {
    let limits = Limits {
        body_bytes_max: 1000,
        body_decompressed_bytes_max: 5000,
        grpc_message_bytes_max: 5000,
        ..Limits::default()
    };
    let service = Service::start(limits).await;
    let long = zstd::encode_all(&[b' '; 6000][..], 1).expect("memory");
    let (plain, packed) = ([("content-type", PROTOBUF)], [("content-type", PROTOBUF), ("content-encoding", "zstd")]);
    for (headers, body, bound) in
        [(&plain[..], NAMED, "body_bytes_max"), (&packed[..], &*long, "body_decompressed_bytes_max")]
    {
        let answer = service.post("/v1/metrics", headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.rpc_status().code), (413, 8), "{bound}");
        assert_eq!(answer.header("retry-after"), None);
        assert!(service.counts(&refused(bound)), "{bound}");
    }
    for (encoding, body) in [(None, NAMED), (Some("zstd"), &*long)] {
        let answer = service.call(METRICS, encoding, body).await;
        assert_eq!(answer.trailer("grpc-status"), Some(RESOURCE_EXHAUSTED), "{encoding:?}");
        assert!(answer.details().details.is_empty(), "RetryInfo would make the sender try for ever");
    }
    let twice = refused("grpc_message_bytes_max").replace(" 1", " 2");
    assert!(service.counts(&twice));
    assert_eq!(service.rows(), 0);
}

#[tokio::test]
async fn what_the_log_does_not_take_now_is_to_be_sent_again() {
    let service = Service::start(Limits { retry_after: Duration::from_secs(3), ..Limits::default() }).await;
    for (refusal, reason) in [
        (AppendError::Full { what: "the sample log", bound_bytes: 1 }, "log_full"),
        (AppendError::Overloaded { pending_bytes: 2, bound_bytes: 1 }, "log_overloaded"),
        (AppendError::Behind { behind_bytes: 2, bound_bytes: 1 }, "engine_behind"),
        (AppendError::Disk { kind: std::io::ErrorKind::StorageFull, why: "no space".into() }, "log_disk"),
    ] {
        service.refuse(refusal);
        let answer = service.post("/v1/metrics", &[("content-type", JSON)], GAUGE).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("3")), "{reason}");
        assert!(service.counts(&refused(reason)), "{reason}");

        let answer = service.call(METRICS, None, NAMED).await;
        assert_eq!(answer.trailer("grpc-status"), Some(UNAVAILABLE), "{reason}");
        let status = answer.details();
        assert_eq!(status.code, 14);
        let details: Vec<_> = status.details.iter().map(|d| (&*d.type_url, &*d.value)).collect();
        // A RetryInfo whose first field is a Duration of 3 s.
        assert_eq!(details, [("type.googleapis.com/google.rpc.RetryInfo", &[0x0a, 2, 0x08, 3][..])], "{reason}");
    }
}

#[tokio::test]
async fn what_the_log_never_takes_says_whose_fault_it_is() {
    let service = Service::start(Limits::default()).await;
    for (refusal, http, grpc, reason, says) in [
        (
            AppendError::TooLarge { record_bytes: 2, bound_bytes: 1 },
            413,
            "8",
            "log_record_bytes",
            "send smaller batches",
        ),
        (AppendError::TooLarge { record_bytes: 2, bound_bytes: 1 }, 413, "8", "log_record_bytes", "`log.bytes_max`"),
        (AppendError::NoSuchPartition { partition: 9, partitions: 4 }, 500, "13", "log_partition", "no partition 9"),
    ] {
        service.refuse(refusal);
        let answer = service.post("/v1/metrics", &[("content-type", JSON)], GAUGE).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (http, None), "{reason}");
        assert!(answer.rpc_status().message.contains(says), "{:?}", answer.rpc_status());
        let answer = service.call(METRICS, None, NAMED).await;
        assert_eq!(answer.trailer("grpc-status"), Some(grpc), "{reason}");
    }
}

#[tokio::test]
async fn requests_beyond_the_bytes_under_way_are_to_be_sent_again() {
    let service = Service::start(Limits { inflight_bytes_max: 1024, ..Limits::default() }).await;
    let answer = service.post("/v1/metrics", &[("content-type", PROTOBUF)], NAMED).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert!(service.counts(&refused("inflight_bytes_max")));
    assert_eq!(service.post("/v1/metrics", &[("content-type", JSON)], GAUGE).await.status, 200, "what fits is taken");
}

#[tokio::test]
async fn what_is_announced_and_does_not_come_takes_nothing_from_others() {
    let limits = Limits { inflight_bytes_max: 4096, body_bytes_max: 4096, ..Limits::default() };
    let service = Service::start(limits).await;
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let mut socket = service.connect().await;
        // `100-continue` says that the body is waited for.
        let head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4096\r\n\
                    expect: 100-continue\r\n\r\n";
        socket.write_all(head.as_bytes()).await.expect("an open connection");
        socket.read_exact(&mut [0; 12]).await.expect("an answer");
        stuck.push(socket);
    }
    assert_eq!(service.post("/v1/metrics", &[("content-type", JSON)], GAUGE).await.status, 200);

    let mut socket = service.connect().await;
    let head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4097\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("an open connection");
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.expect("an answer before the body");
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let service = Service::start(Limits { request_timeout: Duration::from_millis(50), ..Limits::default() }).await;
    let mut socket = service.connect().await;
    let head = "POST /v1/metrics HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.expect("an open connection");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer, and then the end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(service.counts(&refused("request_timeout")));
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_a_place_is_given_again() {
    let service = Service::start(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = service.connect().await;
    // Served, so that the next one is certainly the second.
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("an open connection");
    first.read_exact(&mut [0; 12]).await.expect("an answer");
    let mut second = service.connect().await;
    let read = second.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed without a word");
    let line = "headroom_listener_refused_connections_total{listener=\"otlp\",bound=\"connections_max\"} 1";
    assert!(service.counts(line));

    drop((first, second));
    loop {
        let mut next = service.connect().await;
        let asked = next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        if asked.is_ok() && next.read_exact(&mut [0; 12]).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn json_is_held_against_the_budget_as_what_it_becomes() {
    // Two bytes a bucket in JSON and eight in protobuf: the body fits where what it becomes does not.
    let buckets = vec!["0"; 2000].join(",");
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{buckets}]}}]}}}}]}}]}}]}}"#
    );
    let headers = [("content-type", JSON)];
    let service = Service::start(Limits { inflight_bytes_max: 8192, ..Limits::default() }).await;
    assert_eq!(service.post("/v1/metrics", &headers, body.as_bytes()).await.status, 503);
    assert!(service.counts(&refused("inflight_bytes_max")));

    let service = Service::start(Limits { body_decompressed_bytes_max: 8192, ..Limits::default() }).await;
    assert_eq!(service.post("/v1/metrics", &headers, body.as_bytes()).await.status, 413);
    assert!(service.counts(&refused("body_decompressed_bytes_max")));
}

#[tokio::test]
async fn a_connection_without_a_head_is_closed_and_counted() {
    let telemetry = Telemetry::default();
    let limits = Limits { head_timeout: Duration::from_millis(50), ..Limits::default() };
    let service = Service::for_senders(limits, Access::open(&telemetry)).await;
    for (beginning, count) in [("", 1), ("PRI * HTTP/2.0", 2), ("POST /v1/metrics HTTP/1.1\r\nHost", 3)] {
        let mut silent = service.connect().await;
        silent.write_all(beginning.as_bytes()).await.expect("the bytes are taken");
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "{beginning}");
        let late = "headroom_listener_refused_connections_total{listener=\"otlp\",bound=\"head_timeout\"}";
        assert!(telemetry.render().contains(&format!("{late} {count}\n")), "{beginning}: {}", telemetry.render());
    }
}
