//! Writing answers: JSON of one record, and bodies that are made while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::request::JSON;

/// Most records of a server fit in this.
const RECORD_BYTES: usize = 4_096;

/// An answer in JSON. `age_seconds` is the age of what it says: a consumer counts its lease from receipt less this.
pub(crate) fn json(status: StatusCode, body: &impl Serialize, age_seconds: Option<i64>) -> Result<Response, ApiError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    serde_json::to_writer(&mut bytes, body).map_err(|_| ApiError::internal())?;
    Ok(json_bytes(status, bytes.into(), age_seconds))
}

/// An answer whose JSON is already written.
pub(crate) fn json_bytes(status: StatusCode, body: Bytes, age_seconds: Option<i64>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = age_seconds {
        headers.insert(header::AGE, HeaderValue::from(seconds));
    }
    response
}

/// An answer of a media type.
pub(crate) fn typed(media_type: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, media_type)], body.into()).into_response()
}

/// Adds a header whose value is known to be one.
pub(crate) fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A body whose frames another task makes. The channel is short: the maker waits for the reader, and learns from the
/// closed channel that the reader is gone.
pub(crate) struct ChannelBody(pub(crate) mpsc::Receiver<Bytes>);

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
