//! OTLP/HTTP: protobuf and JSON on `/v1/metrics`, and the two paths that one-endpoint SDKs send to as well.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use headroom_access::{Denial, Peer};
use headroom_ingest::{Encoding, Format};

use crate::admission::Bound;
use crate::answer::Refusal;
use crate::body;
use crate::handler::{Answer, Export, Ingestor, Kind};
use crate::metrics::Transport;

/// Answers a request.
pub(crate) async fn answer(ingestor: &Ingestor, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let format = format_of(&head.headers);
    let refuse = |format, refusal: &Refusal| refuse(ingestor, &head.headers, format, refusal);
    let kind = match head.uri.path().trim_end_matches('/') {
        "/v1/metrics" => Kind::Metrics,
        "/v1/traces" => Kind::Traces,
        "/v1/logs" => Kind::Logs,
        _ => {
            let path = head.uri.path();
            let message =
                format!("nothing is at {path}; OTLP/HTTP goes to /v1/metrics, questions to the HTTP API's port");
            let refusal = Refusal { http: StatusCode::NOT_FOUND, ..Refusal::unsupported("path", message) };
            return refuse(format.unwrap_or(Format::Json), &refusal);
        }
    };
    if head.method != Method::POST {
        let message = format!("{} is not for {}; senders POST", head.method, head.uri.path());
        let refusal = Refusal { http: StatusCode::METHOD_NOT_ALLOWED, ..Refusal::unsupported("method", message) };
        let mut response = refuse(format.unwrap_or(Format::Json), &refusal);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Some(format) = format else {
        let sent = head.headers.get(header::CONTENT_TYPE).map_or("none".into(), |v| format!("{v:?}"));
        let message = format!("content type {sent} is not OTLP; use application/x-protobuf or application/json");
        return refuse(Format::Json, &Refusal::unsupported("content_type", message));
    };
    match export(ingestor, kind, format, peer, &head, body).await {
        Ok(message) => {
            ingestor.metrics().request(Transport::Http, format, "200");
            respond(StatusCode::OK, format, message)
        }
        Err(refusal) => refuse(format, &refusal),
    }
}

async fn export(
    ingestor: &Ingestor,
    kind: Kind,
    format: Format,
    peer: &Peer,
    head: &Parts,
    incoming: Incoming,
) -> Result<Vec<u8>, Refusal> {
    let caller = ingestor.admit(peer, &head.headers)?;
    let encoding = head.headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    let Some(encoding) = Encoding::from_header(encoding) else {
        let message = format!("content encoding {encoding:?} is not supported; use gzip, zstd or none");
        return Err(Refusal::unsupported("compression", message));
    };
    let limits = ingestor.limits();
    let bound = Bound { name: "body_bytes_max", bytes: limits.body_bytes_max };
    let read = body::read(incoming, bound, ingestor.room(), limits.request_timeout, |_| None).await?;
    ingestor.metrics().received(Transport::Http, read.bytes.len());
    ingestor.access().charge(&caller, read.bytes.len());
    let bound = Bound { name: "body_decompressed_bytes_max", bytes: limits.body_decompressed_bytes_max };
    let export = Export { transport: Transport::Http, kind, format, encoding, bound, headers: &head.headers };
    ingestor.take(export, read).await
}

fn format_of(headers: &HeaderMap) -> Option<Format> {
    Format::from_header(headers.get(header::CONTENT_TYPE)?.to_str().ok()?)
}

fn refuse(ingestor: &Ingestor, headers: &HeaderMap, format: Format, refusal: &Refusal) -> Response<Answer> {
    ingestor.metrics().request(Transport::Http, format, refusal.http.as_str());
    ingestor.refuse(refusal, headers);
    let retry = refusal.retry_after(ingestor.limits().retry_after);
    let body = refusal.status(ingestor.limits().retry_after).encode(format);
    let mut response = respond(refusal.http, format, body);
    if let Some(retry) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry.as_secs().max(1)));
    }
    let challenge = refusal.denial.as_deref().and_then(Denial::challenge);
    if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if refusal.http == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
    }
    response
}

fn respond(status: StatusCode, format: Format, body: Vec<u8>) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}
