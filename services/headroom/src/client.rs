//! Asking a running service, for the commands that do: one request, bounded in time and size, and errors that say what
//! to do.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::cli::{ServiceArgs, exit};
use crate::configuration;

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
    http: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// What says who asks. Marked sensitive, so that no message shows it.
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the service that the arguments name, with the credentials that they name.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn new(args: &ServiceArgs) -> Result<Self, ClientError> {
        let authorization = authorization(args).map_err(|message| ClientError { message, exit: exit::FAILED })?;
        Self::showing(authorization, args)
    }

    fn showing(authorization: Option<HeaderValue>, args: &ServiceArgs) -> Result<Self, ClientError> {
        let tls = tls(args).map_err(|message| ClientError { message, exit: exit::FAILED })?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self {
            base: args.url.trim_end_matches('/').to_owned(),
            http: HyperClient::builder(TokioExecutor::new()).build(connector),
            authorization,
        })
    }

    /// A client that shows nothing, whatever the environment holds, of a service on this machine.
    ///
    /// # Errors
    /// None that a person could do anything about.
    pub(crate) fn local(url: &str) -> Result<Self, ClientError> {
        let nothing = ServiceArgs {
            url: url.to_owned(),
            token_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
        };
        Self::showing(None, &nothing)
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
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| failed(format!("{} is no address of a service: {error}", self.base)))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
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

/// The token of the file, else of the environment.
fn authorization(args: &ServiceArgs) -> Result<Option<HeaderValue>, String> {
    let token = match &args.token_file {
        Some(file) => Some(configuration::read(file)?),
        None => std::env::var("HEADROOM_TOKEN").ok().filter(|token| !token.is_empty()),
    };
    let Some(token) = token else { return Ok(None) };
    let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
    let mut value = value.map_err(|_| "the token has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Whom to trust, and what to show. The system's authorities are read only where https asks for them.
fn tls(args: &ServiceArgs) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &args.ca_file {
        for authority in certificates(file)? {
            roots.add(authority).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    } else if args.url.starts_with("https") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let builder = ClientConfig::builder_with_provider(headroom_access::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots);
    match (&args.client_cert_file, &args.client_key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{} holds no private key in PEM form: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("{}: {error}", certificate.display()))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    certificates.map_err(|error| format!("{} holds no certificate in PEM form: {error}", file.display()))
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
