//! Senders without credentials, with wrong ones, with too small a scope, and too many: in the words of both transports.

use std::path::PathBuf;
use std::sync::Arc;

use headroom_access::Access;
use headroom_config::{Auth, SecuritySection};
use headroom_model::Timestamp;
use headroom_otlp_ingestor::Limits;
use headroom_telemetry::Telemetry;

use crate::support::{GAUGE, JSON, METRICS, NAMED, PROTOBUF, Service};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

const SENDER: &str = "Bearer sender-sender-sender";
const READER: &str = "Bearer reader-reader-reader";

/// A folder with a sender and a reader, removed when dropped.
struct Callers(PathBuf);

impl Callers {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("headroom-otlp-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary directory");
        let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("a file");
        write("sender", "sender-sender-sender");
        write("reader", "reader-reader-reader");
        write(
            "callers.yaml",
            "callers:\n- {name: eu, scopes: [ingest], token_file: sender}\n\
             - {name: dashboard, scopes: [operate], token_file: reader}\n",
        );
        Self(folder)
    }

    fn access(&self, change: impl FnOnce(&mut SecuritySection)) -> Access {
        let file = self.0.join("callers.yaml").display().to_string();
        let mut security =
            SecuritySection { auth: Auth::Tokens, callers_file: Some(file), ..SecuritySection::default() };
        change(&mut security);
        Access::new(&security, Arc::new(Timestamp::default), &Telemetry::default()).expect("valid callers")
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn with<'a>(authorization: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut headers = more.to_vec();
    if !authorization.is_empty() {
        headers.push(("authorization", authorization));
    }
    headers
}

#[tokio::test]
async fn a_sender_shows_who_it_is_on_every_path() {
    let callers = Callers::new("paths");
    let service = Service::for_senders(Limits::default(), callers.access(|_| {})).await;
    for (authorization, status, code, challenge, message) in [
        ("", 401, 16, "Bearer realm=\"headroom\"", "send `Authorization: Bearer <token>`"),
        ("Basic eDp5", 401, 16, "Bearer realm=\"headroom\"", "is not `Bearer <token>`"),
        ("Bearer nobody-nobody-nobody", 401, 16, "error=\"invalid_token\"", "the token is nobody's"),
        (READER, 403, 7, "scope=\"ingest\"", "dashboard may operate; this needs the scope ingest"),
        (SENDER, 200, 0, "", ""),
    ] {
        for (path, method) in [("/v1/metrics", METRICS), ("/v1/traces", TRACES), ("/v1/logs", LOGS)] {
            for format in [PROTOBUF, JSON] {
                let body: &[u8] = match (format, path) {
                    (JSON, "/v1/metrics") => GAUGE,
                    (JSON, _) => b"{}",
                    _ => b"",
                };
                let answer = service.post(path, &with(authorization, &[("content-type", format)]), body).await;
                let case = format!("{authorization} {path} {format}: {answer:?}");
                assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, Some(format)), "{case}");
                if code != 0 {
                    let rpc = answer.rpc_status();
                    assert!(rpc.code == code && rpc.message.contains(message), "{case}");
                    assert!(answer.header("www-authenticate").expect("a challenge").contains(challenge), "{case}");
                    assert_eq!(answer.header("retry-after"), None, "{case}");
                }
            }
            let answer = service.call_with(method, None, &with(authorization, &[]), b"").await;
            let case = format!("{authorization} {method}: {answer:?}");
            assert_eq!(answer.trailer("grpc-status"), Some(code.to_string().as_str()), "{case}");
            if code != 0 {
                assert!(answer.details().message.contains(message) && answer.details().details.is_empty(), "{case}");
            }
        }
    }
    assert_eq!(service.rows(), 1, "only the sender's");
    let count = |reason: &str, times: u32| {
        service.counts(&format!("headroom_otlp_refused_requests_total{{bound=\"{reason}\"}} {times}"))
    };
    assert!(count("unauthorized", 27) && count("forbidden", 9));
}

/// What is refused for its rate is retryable in the words of either transport, or data would be lost.
#[tokio::test]
async fn a_sender_of_too_much_is_told_when_to_come_back() {
    let callers = Callers::new("rates");
    let few = callers.access(|security| security.limits.export_bytes_per_second = 1);
    let service = Service::for_senders(Limits::default(), few).await;
    let taken = service.post("/v1/metrics", &with(SENDER, &[("content-type", PROTOBUF)]), NAMED).await;
    assert_eq!(taken.status.as_u16(), 200, "a body beyond the rate is taken, and paid off");
    let rows = service.rows();
    let refused = service.post("/v1/metrics", &with(SENDER, &[("content-type", PROTOBUF)]), NAMED).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("3600")));
    let status = refused.rpc_status();
    assert_eq!(status.code, 8);
    assert!(status.message.contains("more than the 1 ") && status.message.contains("export_bytes_per_second"));

    let refused = service.call_with(METRICS, None, &with(SENDER, &[]), NAMED).await;
    assert_eq!(refused.trailer("grpc-status"), Some("8"));
    let details = refused.details().details;
    assert_eq!(details.len(), 1, "RetryInfo, without which RESOURCE_EXHAUSTED is not retried");
    assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(service.rows(), rows);
    assert!(service.counts("headroom_otlp_refused_requests_total{bound=\"rate\"} 2"));
}
