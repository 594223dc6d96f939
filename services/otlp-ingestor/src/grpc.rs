//! OTLP/gRPC: the framing of unary calls, status in trailers.
//!
//! A unary call is one length-prefixed message in, one out and a status; that is all of gRPC that OTLP uses.

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use headroom_access::Peer;
use headroom_ingest::{Encoding, Format, StatusCode as RpcCode, base64, cut_message};

use crate::admission::Bound;
use crate::answer::Refusal;
use crate::body::{self, BodyError};
use crate::handler::{Answer, Export, Ingestor, Kind};
use crate::metrics::Transport;

/// Bytes in front of a message: a flag and its length.
const PREFIX_BYTES: usize = 5;

/// The kind of telemetry a method takes.
fn kind_of(path: &str) -> Option<Kind> {
    match path {
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Kind::Metrics),
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Kind::Traces),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Kind::Logs),
        _ => None,
    }
}

/// Answers a call.
pub(crate) async fn answer(ingestor: &Ingestor, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let outcome = match kind_of(head.uri.path()) {
        Some(kind) => export(ingestor, kind, peer, &head, body).await,
        None => Err(Refusal::unsupported("method", format!("there is no method {} here", head.uri.path()))),
    };
    match outcome {
        Ok(message) => {
            ingestor.metrics().request(Transport::Grpc, Format::Protobuf, "OK");
            let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
            framed.extend_from_slice(&[0]);
            framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
            framed.extend_from_slice(&message);
            respond(framed.freeze(), 0, "", None)
        }
        Err(refusal) => {
            ingestor.metrics().request(Transport::Grpc, Format::Protobuf, name_of(refusal.grpc));
            ingestor.refuse(&refusal, &head.headers);
            let status = refusal.status(ingestor.limits().retry_after);
            respond(Bytes::new(), refusal.grpc as u32, &refusal.message, Some(status.encode(Format::Protobuf)))
        }
    }
}

/// Bytes of a whole call by its prefix.
fn framed_bytes(first: &[u8]) -> Option<u64> {
    let length = first.get(1..PREFIX_BYTES)?.try_into().ok()?;
    Some(u64::from(u32::from_be_bytes(length)) + PREFIX_BYTES as u64)
}

async fn export(
    ingestor: &Ingestor,
    kind: Kind,
    peer: &Peer,
    head: &Parts,
    incoming: Incoming,
) -> Result<Vec<u8>, Refusal> {
    let caller = ingestor.admit(peer, &head.headers)?;
    let encoding = head.headers.get("grpc-encoding").map_or("", |value| value.to_str().unwrap_or("?"));
    let Some(encoding) = Encoding::from_header(encoding) else {
        let message = format!("grpc-encoding {encoding:?} is not supported; use gzip, zstd or none");
        return Err(Refusal::unsupported("compression", message));
    };
    let limits = ingestor.limits();
    let bound = Bound { name: "grpc_message_bytes_max", bytes: limits.grpc_message_bytes_max };
    let framed = Bound { bytes: bound.bytes.saturating_add(PREFIX_BYTES as u64), ..bound };
    let read = body::read(incoming, framed, ingestor.room(), limits.request_timeout, framed_bytes).await;
    // The prefix is ours to add and take off: the bound that is told is the one that is configured.
    let mut read = read.map_err(|error| match error {
        BodyError::TooLarge(_) => BodyError::TooLarge(bound),
        error => error,
    })?;
    ingestor.metrics().received(Transport::Grpc, read.bytes.len());
    ingestor.access().charge(&caller, read.bytes.len());
    if read.bytes.len() < PREFIX_BYTES {
        return Err(Refusal::invalid("frame", "the call has no message".to_owned()));
    }
    let compressed = read.bytes.get_u8() != 0;
    let length = read.bytes.get_u32() as usize;
    if read.bytes.len() != length {
        return Err(Refusal::invalid(
            "frame",
            format!("the message is announced with {length} bytes and has {}", read.bytes.len()),
        ));
    }
    let encoding = if compressed { encoding } else { Encoding::Identity };
    let (transport, format, headers) = (Transport::Grpc, Format::Protobuf, &head.headers);
    ingestor.take(Export { transport, kind, format, encoding, bound, headers }, read).await
}

fn respond(message: Bytes, status: u32, text: &str, details: Option<Vec<u8>>) -> Response<Answer> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    if let Ok(text) = HeaderValue::from_str(&percent_encode(cut_message(text)))
        && !text.is_empty()
    {
        trailers.insert("grpc-message", text);
    }
    if let Some(details) = details
        // Binary metadata travels as Base64 without padding.
        && let Ok(details) = HeaderValue::from_str(base64(&details).trim_end_matches('='))
    {
        trailers.insert("grpc-status-details-bin", details);
    }
    let mut response =
        Response::new(Full::new(message).with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    response
}

/// `grpc-message` is percent-encoded outside printable ASCII.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn name_of(code: RpcCode) -> &'static str {
    match code {
        RpcCode::InvalidArgument => "INVALID_ARGUMENT",
        RpcCode::PermissionDenied => "PERMISSION_DENIED",
        RpcCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
        RpcCode::Unimplemented => "UNIMPLEMENTED",
        RpcCode::Internal => "INTERNAL",
        RpcCode::Unavailable => "UNAVAILABLE",
        RpcCode::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("50 % – ok"), "50 %25 %E2%80%93 ok");
    }
}
