//! Accepting connections: one bounded loop per listener.
//!
//! Binding and serving are two steps, because every listener of a process is bound before any of them answers: a client
//! that can connect to one role must find the others too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::handler::Ingestor;

/// How long an HTTP/1 connection may be silent between requests: longer than senders usually wait between exports, so
/// that one a minute does not connect, and shake hands, each time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What is read from a connection at once over HTTP/1, and how long a head may be. A body comes in so many pieces and is
/// put together in memory that was used before; a buffer for all of it would be new, and grown by copying, every time.
const READ_BYTES: usize = 64 << 10;

/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;

/// Bytes in flight towards us on one HTTP/2 stream, and connection: enough that a sender of 5 MB bodies never waits for
/// a window update on loopback or a LAN.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Where it listens: the port is known here even when 0 was asked for.
    pub address: SocketAddr,
    /// Its name in metrics and logs.
    pub name: &'static str,
}

/// Binds a listener.
///
/// # Errors
/// If the address cannot be bound; the message names the address and, where the port is taken, what to do.
pub async fn bind(name: &'static str, address: SocketAddr) -> Result<Listener, String> {
    let socket = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "the {name} listener cannot have {address}: another program listens there (a second headroom, or a local \
             OpenTelemetry Collector?). Stop it or choose another address"
        ),
        _ => format!("the {name} listener cannot bind {address}: {error}"),
    })?;
    let address = socket.local_addr().map_err(|error| format!("the {name} listener at {address}: {error}"))?;
    Ok(Listener { socket, address, name })
}

/// Serves a listener until `shutdown` turns true, then lets the requests under way finish, for at most `drain`.
pub async fn serve(listener: Listener, ingestor: Arc<Ingestor>, mut shutdown: watch::Receiver<bool>, drain: Duration) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(ingestor.limits().connections_max));
    // Half of the places at most are for those who have not shown yet that they mean it.
    let handshakes = Arc::new(Semaphore::new(ingestor.limits().connections_max.div_ceil(2)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stopped(&mut shutdown) => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only spin.
                tracing::warn!(listener = listener.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            ingestor.metrics().refused_connection(listener.name);
            continue;
        };
        // Requests are answered in small pieces; waiting to fill a packet would only delay the sender.
        let _ = socket.set_nodelay(true);
        let ingestor = ingestor.clone();
        let mut stop = shutdown.clone();
        let name = listener.name;
        let handshakes = handshakes.clone();
        connections.spawn(async move {
            let _place = place;
            let shaken = tokio::select! {
                shaken = ingestor.access().accept(name, socket, from.ip(), &handshakes) => shaken,
                () = stopped(&mut stop) => return,
            };
            let Ok((socket, peer)) = shaken else { return };
            let peer = Arc::new(peer);
            let _open = ingestor.metrics().connection(name);
            let mut builder = auto::Builder::new(TokioExecutor::new());
            // hyper's timeout runs between requests as well; for heads alone there is the deadline around the socket.
            builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(READ_BYTES);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(1 << 20)
                .keep_alive_interval(Some(Duration::from_secs(30)));
            let head_timeout = ingestor.limits().head_timeout;
            let (socket, requests) = ingestor.access().await_heads(name, socket, head_timeout);
            let service = service_fn(move |request| {
                let (ingestor, peer, requests) = (ingestor.clone(), peer.clone(), requests.clone());
                requests.begin();
                async move {
                    let answer = ingestor.answer(&peer, request).await;
                    requests.answered();
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = stopped(&mut stop) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(listener = name, %error, "a connection ended early");
            }
        });
    }
    drop(listener.socket);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, finished).await.is_err() {
        tracing::warn!(listener = listener.name, "requests were still under way after the drain time and were cut off");
    }
}

/// Ends when the service stops, or when nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
