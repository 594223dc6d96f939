//! A directory of files, an authority, and the two ends of a connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use headroom_access::{Access, HandshakeError, Peer, provider};
use headroom_config::SecuritySection;
use headroom_model::Timestamp;
use headroom_telemetry::Telemetry;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A directory of its own, removed when dropped.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("headroom-access-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn name(&self, name: &str) -> Option<String> {
        Some(self.path(name).display().to_string())
    }

    /// Replaces a file as careful programs do: whole.
    pub fn write(&self, name: &str, content: &str) {
        let new = self.path("new");
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, self.path(name)).expect("a renamed file");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An access whose clock the test moves, and what it counted.
pub struct Guarded {
    pub access: Access,
    pub clock: Arc<AtomicI64>,
    telemetry: Telemetry,
}

impl Guarded {
    pub fn new(security: &SecuritySection) -> Self {
        Self::try_new(security).expect("usable files")
    }

    pub fn try_new(security: &SecuritySection) -> Result<Self, String> {
        let clock = Arc::new(AtomicI64::new(0));
        let telemetry = Telemetry::default();
        let now = clock.clone();
        let now = Arc::new(move || Timestamp::from_seconds(now.load(Ordering::SeqCst)));
        Ok(Self { access: Access::new(security, now, &telemetry)?, clock, telemetry })
    }

    /// Whether the metrics have this line.
    pub fn counts(&self, line: &str) -> bool {
        self.telemetry.render().lines().any(|other| other == line)
    }
}

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn server(&self) -> Pair {
        self.sign(
            CertificateParams::new(["localhost".to_owned()]).expect("a name"),
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    pub fn client(&self, common_name: &str, uri: Option<&str>) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().expect("ASCII"))));
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A client that trusts an authority, and shows a certificate if it has one.
pub fn client(trusted: &Authority, shown: Option<&Pair>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match shown {
        Some(Pair { certificate, key }) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
            )
            .expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Both ends after a handshake. The client's is tried by a byte there and back: with TLS 1.3 it learns only then that it
/// was refused.
pub async fn connect(
    access: &Access,
    connector: TlsConnector,
) -> (Result<TlsStream<DuplexStream>, String>, Result<(headroom_access::Stream<DuplexStream>, Peer), HandshakeError>) {
    let (near, far) = duplex(64 << 10);
    let places = Semaphore::new(8);
    let server = async {
        let (mut stream, peer) = access.accept("test", far, [127, 0, 0, 1].into(), &places).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(HandshakeError::Failed)?;
        stream.write_all(&byte).await.map_err(HandshakeError::Failed)?;
        stream.flush().await.map_err(HandshakeError::Failed)?;
        Ok((stream, peer))
    };
    let client = async {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(name, near).await.map_err(|error| error.to_string())?;
        echo(&mut stream).await?;
        Ok(stream)
    };
    tokio::join!(client, server)
}

async fn echo(stream: &mut TlsStream<DuplexStream>) -> Result<(), String> {
    let mut byte = [7];
    stream.write_all(&byte).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    stream.read_exact(&mut byte).await.map(|_| ()).map_err(|error| error.to_string())
}

/// The certificate that a client saw.
pub fn shown(stream: &TlsStream<DuplexStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("the server has a certificate");
    chain[0].to_vec()
}

/// The content of a PEM certificate.
pub fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}
