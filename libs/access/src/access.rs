//! Who is let in: one question per connection, one per request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use headroom_config::{Auth, ClientAuth as ConfiguredClientAuth, SecuritySection};
use headroom_model::Timestamp;
use headroom_telemetry::{Telemetry, catalog};
use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use crate::callers::{Callers, Grant, TOKEN_BYTES_MAX};
use crate::certificate::CertificateNames;
use crate::denial::Denial;
use crate::heads::{HeadDeadline, Requests};
use crate::listener::ListenerCounts;
use crate::rate::{Account, CALLERS_TRACKED_MAX, Meter, RateTable, Rates};
use crate::scope::{Scope, Scopes};
use crate::stream::Stream;
use crate::tls::{ClientAuth, HandshakeError, Tls, TlsFiles};

/// How often the files are looked at. They are read rather than watched: what watching sees differs between a file, a
/// symbolic link, a mounted secret and a network file system, and a few kilobytes every two seconds cost nothing.
pub const REREAD_EVERY: Duration = Duration::from_secs(2);

/// A reason of denials is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The wall clock, whatever time the engines run on: it is what permissions end by.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a request is for: what it is counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surface {
    /// OTLP, by gRPC or HTTP.
    Otlp,
    /// The HTTP API.
    Http,
}

impl Surface {
    fn as_str(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Http => "http",
        }
    }
}

/// The other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<IpAddr>,
    /// What its certificate says, if it showed one.
    pub certificate: Option<CertificateNames>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Its name, if it had to show one.
    pub name: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Scopes,
    account: Account,
}

/// Who is let in. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    callers: Option<KnownCallers>,
    tls: Option<Tls>,
    rates: RateTable,
    open_metrics: bool,
    now: Now,
    telemetry: Telemetry,
    /// When each reason of denials was logged last.
    logged: Mutex<BTreeMap<&'static str, Instant>>,
}

struct KnownCallers {
    file: PathBuf,
    current: ArcSwap<Callers>,
    /// What was last read, usable or not, so that one mistake is told once.
    seen: Mutex<Result<Callers, String>>,
}

impl Access {
    /// As the configuration says.
    ///
    /// # Errors
    /// What is wrong with the files that it names.
    pub fn new(security: &SecuritySection, now: Now, telemetry: &Telemetry) -> Result<Self, String> {
        let callers = match (security.auth, &security.callers_file) {
            (Auth::Tokens, Some(file)) => {
                let file = PathBuf::from(file);
                let callers = Callers::load(&file)?;
                let seen = Mutex::new(Ok(callers.clone()));
                Some(KnownCallers { file, current: ArcSwap::from_pointee(callers), seen })
            }
            _ => None,
        };
        let tls = match (&security.tls.cert_file, &security.tls.key_file) {
            (Some(certificate), Some(key)) => Some(Tls::load(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
                client_ca: security.tls.client_ca_file.as_ref().map(PathBuf::from),
                client_auth: match security.tls.client_auth {
                    ConfiguredClientAuth::None => ClientAuth::None,
                    ConfiguredClientAuth::Optional => ClientAuth::Optional,
                    ConfiguredClientAuth::Required => ClientAuth::Required,
                },
            })?),
            _ => None,
        };
        let rates = Rates {
            requests_per_second: security.limits.requests_per_second,
            exports_per_second: security.limits.exports_per_second,
            export_bytes_per_second: security.limits.export_bytes_per_second,
        };
        let access = Self(Arc::new(Inner {
            callers,
            tls,
            rates: RateTable::new(rates, CALLERS_TRACKED_MAX),
            open_metrics: security.open_metrics,
            now,
            telemetry: telemetry.clone(),
            logged: Mutex::default(),
        }));
        access.show_expiry();
        Ok(access)
    }

    /// Everybody may do everything, without encryption: what a service on loopback does by default.
    pub fn open(telemetry: &Telemetry) -> Self {
        let rates = SecuritySection::default().limits;
        Self(Arc::new(Inner {
            callers: None,
            tls: None,
            rates: RateTable::new(
                Rates {
                    requests_per_second: rates.requests_per_second,
                    exports_per_second: rates.exports_per_second,
                    export_bytes_per_second: rates.export_bytes_per_second,
                },
                CALLERS_TRACKED_MAX,
            ),
            open_metrics: true,
            now: Arc::new(Timestamp::default),
            telemetry: telemetry.clone(),
            logged: Mutex::default(),
        }))
    }

    /// Whether callers must show who they are.
    pub fn is_restricted(&self) -> bool {
        self.0.callers.is_some()
    }

    /// Whether the listeners speak TLS.
    pub fn has_tls(&self) -> bool {
        self.0.tls.is_some()
    }

    /// Whether `/metrics` is for everybody.
    pub fn has_open_metrics(&self) -> bool {
        self.0.open_metrics || !self.is_restricted()
    }

    /// What a listener counts of its connections.
    pub fn counts(&self, listener: &str) -> ListenerCounts {
        ListenerCounts::new(&self.0.telemetry, listener)
    }

    /// Makes a connection usable: shakes hands where there is TLS. `places` bounds the handshakes under way, so that
    /// clients that never finish theirs leave room for everybody else.
    ///
    /// # Errors
    /// Why the connection must be closed; it has been counted.
    pub async fn accept<T>(
        &self,
        listener: &str,
        io: T,
        address: IpAddr,
        places: &Semaphore,
    ) -> Result<(Stream<T>, Peer), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake_hands(io, address, places).await.inspect_err(|error| {
            self.0.telemetry.counter(&catalog::LISTENER_REFUSED, [listener, error.bound()]).inc();
            tracing::debug!(listener, %address, %error, "a connection was not taken");
        })
    }

    /// Ends a connection when the head of a request does not come in time. Whoever serves it says of each request when it
    /// begins and when it is answered.
    pub fn await_heads<T>(&self, listener: &str, stream: T, timeout: Duration) -> (HeadDeadline<T>, Arc<Requests>) {
        let requests = Arc::new(Requests::default());
        let late = self.0.telemetry.counter(&catalog::LISTENER_REFUSED, [listener, "head_timeout"]);
        (HeadDeadline::new(stream, requests.clone(), timeout, late), requests)
    }

    async fn shake_hands<T>(
        &self,
        io: T,
        address: IpAddr,
        places: &Semaphore,
    ) -> Result<(Stream<T>, Peer), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(tls) = &self.0.tls else {
            return Ok((Stream::Plain(io), Peer { address: Some(address), certificate: None }));
        };
        let _place = places.try_acquire().map_err(|_| HandshakeError::TooMany)?;
        let (stream, certificate) = tls.accept(io).await?;
        Ok((stream, Peer { address: Some(address), certificate }))
    }

    /// Whether a request may go on, and who makes it. Where nobody has to show who he is everybody may do everything,
    /// at a bounded rate.
    ///
    /// # Errors
    /// Why it may not; it has been counted.
    pub fn admit(&self, surface: Surface, peer: &Peer, headers: &HeaderMap, needs: Scope) -> Result<Caller, Denial> {
        self.admit_at(surface, peer, headers, needs, Instant::now()).inspect_err(|denial| {
            let (surface, reason) = (surface.as_str(), denial.reason());
            self.0.telemetry.counter(&catalog::ACCESS_DENIED, [surface, reason]).inc();
            if self.is_due(reason, Instant::now()) {
                let from = peer.address.map(tracing::field::display);
                tracing::warn!(surface, reason, from, "a request was not let in, perhaps one of many: {denial}");
            }
        })
    }

    /// Whether a reason was not logged for a while: a sender with an old token tries for ever.
    fn is_due(&self, reason: &'static str, now: Instant) -> bool {
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.get(reason).is_none_or(|last| now.saturating_duration_since(*last) >= LOG_EVERY);
        if is_due {
            logged.insert(reason, now);
        }
        is_due
    }

    fn admit_at(
        &self,
        surface: Surface,
        peer: &Peer,
        headers: &HeaderMap,
        needs: Scope,
        now: Instant,
    ) -> Result<Caller, Denial> {
        let identified = self.identify(peer, headers);
        // Who does not say who he is still has an address, and trying tokens costs what any request costs.
        let account = match &identified {
            Ok(Caller { account, .. }) => account.clone(),
            Err(_) => Account::of_address(peer.address),
        };
        match surface {
            Surface::Http => self.0.rates.take(&account, Meter::Requests, 1.0, now)?,
            Surface::Otlp => {
                self.0.rates.take(&account, Meter::ExportBytes, 0.0, now)?;
                self.0.rates.take(&account, Meter::Exports, 1.0, now)?;
            }
        }
        let caller = identified?;
        if !caller.scopes.allow(needs) {
            let Caller { name, scopes: has, .. } = caller;
            return Err(Denial::MissingScope { caller: name.unwrap_or_else(|| "the caller".into()), has, needs });
        }
        Ok(caller)
    }

    /// Charges a caller for the bytes of a body.
    pub fn charge(&self, caller: &Caller, bytes: usize) {
        self.0.rates.charge(&caller.account, Meter::ExportBytes, bytes as f64, Instant::now());
    }

    /// Whether a caller who was let in would still be: streams ask it again and again.
    pub fn is_still_good(&self, peer: &Peer, headers: &HeaderMap, needs: Scope) -> bool {
        self.identify(peer, headers).is_ok_and(|caller| caller.scopes.allow(needs))
    }

    fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Denial> {
        let names = peer.certificate.as_ref();
        let Some(known) = &self.0.callers else {
            // A name that nobody asked for is still good for the audit.
            let name = names.and_then(|names| names.iter().next()).cloned();
            let account = name.clone().map_or_else(|| Account::of_address(peer.address), Account::Named);
            return Ok(Caller { name, scopes: Scopes::ALL, account });
        };
        let callers = known.current.load();
        let grant = match headers.get(header::AUTHORIZATION) {
            Some(value) => {
                let token = bearer(value.as_bytes()).ok_or(Denial::NotBearer)?;
                callers.by_token(token).ok_or(Denial::UnknownToken)?
            }
            None => {
                let names = names.ok_or(Denial::NoCredentials)?;
                let first = || names.iter().next().cloned().unwrap_or_else(|| "no name".into());
                callers.by_certificate(names).ok_or_else(|| Denial::UnknownCertificate(first()))?
            }
        };
        let Grant { name, scopes, expires } = &**grant;
        if expires.is_some_and(|end| (self.0.now)().seconds() >= end) {
            return Err(Denial::Expired(name.clone()));
        }
        Ok(Caller { name: Some(name.clone()), scopes: *scopes, account: Account::Named(name.clone()) })
    }

    /// Looks at all files again. What is new and good comes into force; what is new and bad is logged and counted, once,
    /// and leaves what was before.
    pub fn refresh(&self) {
        if let Some(known) = &self.0.callers {
            let read = Callers::load(&known.file);
            let mut seen = known.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen != read {
                self.report("callers", read.as_ref().map(|_| ()).map_err(Clone::clone));
                if let Ok(callers) = &read {
                    known.current.store(Arc::new(callers.clone()));
                }
                *seen = read;
            }
        }
        if let Some(outcome) = self.0.tls.as_ref().and_then(Tls::refresh) {
            self.report("tls", outcome);
            self.show_expiry();
        }
    }

    fn report(&self, what: &'static str, outcome: Result<(), String>) {
        let word = if outcome.is_ok() { "applied" } else { "refused" };
        self.0.telemetry.counter(&catalog::ACCESS_RELOADS, [what, word]).inc();
        match outcome {
            Ok(()) => tracing::info!(what, "new files are in force"),
            Err(why) => tracing::error!(what, why, "the new files cannot be used; what was before stays in force"),
        }
    }

    fn show_expiry(&self) {
        if let Some(expires) = self.0.tls.as_ref().and_then(Tls::expires) {
            self.0.telemetry.gauge(&catalog::ACCESS_CERTIFICATE_EXPIRY, []).set(expires as f64);
        }
    }

    /// Refreshes every [`REREAD_EVERY`] until `stop` turns true. Ends at once where there is no file.
    pub async fn keep_fresh(self, mut stop: watch::Receiver<bool>) {
        if self.0.callers.is_none() && self.0.tls.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(REREAD_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let access = self.clone();
            // A network file system may take its time.
            let _ = tokio::task::spawn_blocking(move || access.refresh()).await;
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::open(&Telemetry::default())
    }
}

/// What stays in the metrics' and logs' way: nothing of the files' contents.
impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let callers = self.0.callers.as_ref().map(|known| known.current.load().len());
        formatter.debug_struct("Access").field("callers", &callers).field("tls", &self.0.tls).finish_non_exhaustive()
    }
}

/// The token in `Bearer <token>`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}
