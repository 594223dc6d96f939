//! Serving a router on a listener, within the bounds of [`ApiLimits`].
//!
//! Not `axum::serve`, which sets no bounds: a silent peer, a slow head, a huge head, a peer that reads nothing and too many
//! connections must each cost a known amount.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use headroom_access::Access;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::stall::StallGuard;
use crate::state::ApiLimits;

/// What is left of a request when the service stops has this long to end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long an HTTP/1 connection may be silent between requests: longer than anybody leaves between two questions, so
/// that who renews its decisions does not connect, and shake hands, each time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// After an error of `accept` (no file handles left, mostly) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is cancelled, then lets running requests end. Streams end by themselves when the token that
/// the `ApiState` holds is cancelled too. `name` is the listener's in metrics.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    access: Access,
    limits: &ApiLimits,
    shutdown: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper wants at least 8 KiB; what is over the bounds and still fits is refused by the router, with a problem.
    let head_bytes_max = (limits.uri_bytes_max + limits.header_bytes_max).saturating_mul(2).max(16 << 10);
    // hyper's timeout runs between requests as well; for heads alone there is the deadline around the socket.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(head_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(250)
        .keep_alive_interval(limits.write_stall_timeout)
        .keep_alive_timeout(limits.write_stall_timeout);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    // Half of the places at most are for those who have not shown yet that they mean it.
    let handshakes = Arc::new(Semaphore::new(limits.connections_max.div_ceil(2)));
    let counts = access.counts(name);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                let accepted = listener.accept().await;
                // The one that waits is taken already, so that none is counted where nobody comes.
                let place = match Arc::clone(&places).try_acquire_owned() {
                    Err(_) if accepted.is_ok() => {
                        counts.waited();
                        Arc::clone(&places).acquire_owned().await.ok()
                    }
                    place => place.ok(),
                };
                (place, accepted)
            } => accepted,
        };
        let (Some(place), Ok((stream, from))) = accepted else {
            tracing::warn!("cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Small answers must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (router, access, builder) = (router.clone(), access.clone(), builder.clone());
        let (handshakes, watcher, shutdown) = (handshakes.clone(), graceful.watcher(), shutdown.clone());
        let (head_timeout, stall_timeout) = (limits.body_timeout, limits.write_stall_timeout);
        let (counts, connection) = (counts.clone(), counts.connection());
        tokio::spawn(async move {
            let _held = (place, connection);
            let shaken = tokio::select! {
                shaken = access.accept(name, stream, from.ip(), &handshakes) => shaken,
                () = shutdown.cancelled() => return,
            };
            let Ok((stream, peer)) = shaken else { return };
            let peer = Arc::new(peer);
            let (stream, requests) = access.await_heads(name, stream, head_timeout);
            let io = TokioIo::new(StallGuard::new(stream, stall_timeout, counts.clone()));
            let begun = requests.clone();
            let service = router.map_request(move |mut request: Request<Incoming>| {
                begun.begin();
                request.extensions_mut().insert(peer.clone());
                request
            });
            let service = TowerToHyperService::new(service.map_future(move |answer| {
                let requests = requests.clone();
                async move {
                    let answer = answer.await;
                    requests.answered();
                    answer
                }
            }));
            let connection = watcher.watch(builder.serve_connection(io, service));
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}
