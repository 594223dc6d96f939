//! Writing answers: JSON of one record, and bodies that are made while they are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
pub(crate) struct ChannelBody {
    frames: mpsc::Receiver<Bytes>,
    is_whole: Arc<AtomicBool>,
}

/// The maker's end of a [`ChannelBody`].
pub(crate) struct BodyWriter {
    frames: mpsc::Sender<Bytes>,
    is_whole: Arc<AtomicBool>,
    stall_timeout: Duration,
}

/// The reader is gone, or takes nothing.
pub(crate) struct Gone;

/// A body and where its frames are written. A reader that takes nothing for `stall_timeout` counts as gone: the socket
/// shows this where it is all the reader has, but not where one stream of many stands still.
pub(crate) fn channel_body(stall_timeout: Duration) -> (BodyWriter, ChannelBody) {
    let (sender, receiver) = mpsc::channel(2);
    let is_whole = Arc::new(AtomicBool::new(false));
    let writer = BodyWriter { frames: sender, is_whole: is_whole.clone(), stall_timeout };
    (writer, ChannelBody { frames: receiver, is_whole })
}

impl BodyWriter {
    /// Sends a frame, as soon as there is room for it.
    pub(crate) async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        match tokio::time::timeout(self.stall_timeout, self.frames.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Waits until the reader is gone.
    pub(crate) async fn closed(&self) {
        self.frames.closed().await;
    }

    /// Says that nothing is missing. A body that ends without this breaks off, so that nobody takes a part for the whole.
    pub(crate) fn finish(self) {
        self.is_whole.store(true, Ordering::Release);
    }
}

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match ready!(self.frames.poll_recv(context)) {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.is_whole.swap(true, Ordering::AcqRel) => Poll::Ready(None),
            None => Poll::Ready(Some(Err(std::io::Error::other("the answer breaks off")))),
        }
    }
}
