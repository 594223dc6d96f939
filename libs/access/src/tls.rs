//! TLS of the listeners: certificates from PEM files, replaced while the service runs.
//!
//! Each handshake takes the configuration that is current when it begins; connections live on with theirs. A new pair
//! that cannot be used leaves the old one in force. TLS 1.2 and 1.3 as rustls has them by default, cryptography by ring.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::certificate::{self, CertificateNames};
use crate::files::read;
use crate::stream::Stream;

/// How long a client may take over its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is spoken inside: HTTP/2, which gRPC needs, and HTTP/1.1.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients show certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientAuth {
    /// They are not asked to.
    #[default]
    None,
    /// They may; a bad one is refused.
    Optional,
    /// Whoever shows none is refused.
    Required,
}

/// Where the PEM files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The server's certificate, followed by those that it was issued by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
}

/// The contents of [`TlsFiles`].
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// A configuration in force.
struct Current {
    config: Arc<ServerConfig>,
    /// When the certificate ends, in Unix seconds.
    expires: Option<i64>,
}

/// The cryptography of the whole process, named rather than installed, so that no library can put another in its place.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The TLS side of the listeners.
pub(crate) struct Tls {
    files: TlsFiles,
    current: ArcSwap<Current>,
    /// What was last read, usable or not, so that one mistake is told once.
    seen: std::sync::Mutex<Result<Contents, String>>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, String> {
        let contents = files.read()?;
        let current = files.configure(&contents)?;
        Ok(Self { files, current: ArcSwap::from_pointee(current), seen: std::sync::Mutex::new(Ok(contents)) })
    }

    /// Looks at the files again. `None` if they are as they were.
    pub(crate) fn refresh(&self) -> Option<Result<(), String>> {
        let read = self.files.read();
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *seen == read {
            return None;
        }
        let outcome = match &read {
            Ok(contents) => self.files.configure(contents).map(|current| self.current.store(Arc::new(current))),
            Err(why) => Err(why.clone()),
        };
        *seen = read;
        Some(outcome)
    }

    pub(crate) fn expires(&self) -> Option<i64> {
        self.current.load().expires
    }

    /// Shakes hands, within [`HANDSHAKE_TIMEOUT`].
    pub(crate) async fn accept<T>(&self, io: T) -> Result<(Stream<T>, Option<CertificateNames>), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.current.load().config.clone());
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(io)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(HandshakeError::Failed(error)),
            Err(_) => return Err(HandshakeError::TooSlow),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(|certificate| CertificateNames::of(certificate));
        Ok((Stream::Tls(Box::new(stream)), names))
    }
}

/// Keys do not belong into logs.
impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Why a connection was not taken.
#[derive(Debug)]
pub enum HandshakeError {
    /// It is no TLS, or its certificate is not accepted, or it broke.
    Failed(std::io::Error),
    /// It took too long.
    TooSlow,
    /// Too many others are still shaking hands.
    TooMany,
}

impl HandshakeError {
    /// The bound as a metric's label.
    pub fn bound(&self) -> &'static str {
        match self {
            Self::Failed(_) => "tls",
            Self::TooSlow => "handshake_timeout",
            Self::TooMany => "handshakes_max",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(formatter, "the TLS handshake failed: {error}"),
            Self::TooSlow => write!(formatter, "the TLS handshake took more than {} s", HANDSHAKE_TIMEOUT.as_secs()),
            Self::TooMany => formatter.write_str("too many TLS handshakes are under way"),
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, String> {
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn configure(&self, contents: &Contents) -> Result<Current, String> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let expires = chain.first().and_then(|first| certificate::not_after(first));
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| format!("{} holds no private key in PEM form: {error}", self.key.display()))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let builder = match (&self.client_ca, &contents.client_ca, self.client_auth) {
            (Some(path), Some(pem), ClientAuth::Optional | ClientAuth::Required) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, pem)? {
                    roots.add(authority).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
                let verifier =
                    if self.client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = verifier.build().map_err(|error| format!("{}: {error}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {} do not go together: {error}", self.certificate.display(), self.key.display())
        })?;
        if self.client_auth != ClientAuth::None {
            // A resumed session would carry a client's certificate on without looking at its dates again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Current { config: Arc::new(config), expires })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} holds no certificate in PEM form", path.display())),
        Err(error) => Err(format!("{} is not PEM: {error}", path.display())),
    }
}
