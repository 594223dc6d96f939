//! Asking a running service, for the commands that do: one request, bounded in time and size, and errors that say what
//! to do.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::cli::exit;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What almost all bodies are.
const JSON: &str = "application/json";

/// Why there is no answer: what to print, and with which code to end.
#[derive(Debug)]
pub(crate) struct ClientError {
    pub(crate) message: String,
    pub(crate) exit: u8,
}

/// A client of one service.
pub(crate) struct Client {
    base: String,
    http: HyperClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let http = HyperClient::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { base: url.trim_end_matches('/').to_owned(), http }
    }

    /// Gets JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON and gets JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// Posts a body as it is; an answer that is no success is an error.
    pub(crate) async fn post_bytes(&self, path: &str, content_type: &str, body: Bytes) -> Result<(), ClientError> {
        let (status, bytes) = self.send(Method::POST, path, content_type, body).await?;
        if status.is_success() {
            return Ok(());
        }
        let message = format!("{}{path} answered {status}: {}", self.base, String::from_utf8_lossy(&bytes));
        Err(ClientError { message, exit: exit::FAILED })
    }

    /// The status and body of a GET, whatever they are.
    pub(crate) async fn get_raw(&self, path: &str) -> Result<(StatusCode, String), ClientError> {
        let (status, bytes) = self.send(Method::GET, path, JSON, Bytes::new()).await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let (status, bytes) = self.send(method, path, JSON, body).await?;
        let answer = serde_json::from_slice::<Value>(&bytes);
        if !status.is_success() {
            let detail = answer.ok().and_then(|problem| problem["detail"].as_str().map(str::to_owned));
            let detail = detail.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
            return Err(ClientError {
                message: format!("{}{path} answered {status}: {detail}", self.base),
                exit: if status == StatusCode::NOT_FOUND { exit::NOT_FOUND } else { exit::FAILED },
            });
        }
        answer.map_err(|error| ClientError {
            message: format!("{}{path} did not answer JSON ({error}); is this a headroom?", self.base),
            exit: exit::FAILED,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let failed = |message: String| ClientError { message, exit: exit::UNREACHABLE };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(http::header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| failed(format!("{} is no address of a service: {error}", self.base)))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                failed(format!("cannot reach {}: {why}. Is `headroom serve` running? Else give --url", self.base))
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| failed(format!("{}{path} broke off its answer: {error}", self.base)))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(failed(format!("{} did not answer within {} s", self.base, TIMEOUT.as_secs()))))
    }
}

/// Percent-encodes a path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
