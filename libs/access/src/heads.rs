//! A deadline for the head of a request that an idle connection does not have.
//!
//! hyper has none until it knows the version of HTTP, so that a client that sends nothing, or the beginning of the preface
//! of HTTP/2 and no more, would keep its place for ever; and its own for HTTP/1 runs between requests too, where a sender
//! that exports once a minute is expected to be silent. This one runs from the connection's beginning to its first
//! request, and then from the first byte of each further head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use headroom_telemetry::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many requests of a connection have begun, their heads read, and how many were answered.
#[derive(Debug, Default)]
pub struct Requests {
    begun: AtomicU64,
    answered: AtomicU64,
}

impl Requests {
    /// The head of a request has come.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// The head of its answer is there.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Which version of HTTP a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    /// So many bytes were those of HTTP/2.
    Unknown(usize),
    Http1,
    /// Has pings to see whether somebody is there.
    Http2,
}

/// A connection that fails when a head does not come in time.
#[derive(Debug)]
pub struct HeadDeadline<S> {
    socket: S,
    requests: Arc<Requests>,
    timeout: Duration,
    version: Version,
    running: Option<Pin<Box<Sleep>>>,
    /// Requests that had begun when the deadline began to run.
    begun: u64,
    late: Counter,
}

impl<S> HeadDeadline<S> {
    /// The deadline for the first head runs from now.
    pub(crate) fn new(socket: S, requests: Arc<Requests>, timeout: Duration, late: Counter) -> Self {
        let running = Some(Box::pin(tokio::time::sleep(timeout)));
        Self { socket, requests, timeout, version: Version::Unknown(0), running, begun: 0, late }
    }

    fn arrived(&mut self, bytes: &[u8]) {
        if let Version::Unknown(known) = self.version {
            let length = bytes.len().min(PREFACE.len() - known);
            self.version = if bytes[..length] != PREFACE[known..known + length] {
                Version::Http1
            } else if known + length == PREFACE.len() {
                Version::Http2
            } else {
                Version::Unknown(known + length)
            };
        }
        let (begun, answered) = self.counts();
        if self.version != Version::Http2 && self.running.is_none() && begun == answered && !bytes.is_empty() {
            self.running = Some(Box::pin(tokio::time::sleep(self.timeout)));
            self.begun = begun;
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.requests.begun.load(Ordering::Relaxed), self.requests.answered.load(Ordering::Relaxed))
    }

    /// Whether the head is late, now that there is nothing to read.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.version == Version::Http2 || self.counts().0 != self.begun {
            // The head that it was for is there.
            self.running = None;
        }
        self.running.as_mut().is_some_and(|running| running.as_mut().poll(context).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadDeadline<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.socket).poll_read(context, into) {
            Poll::Pending if self.is_late(context) => {
                self.late.inc();
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not come in time")))
            }
            Poll::Ready(Ok(())) => {
                self.arrived(&into.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use headroom_telemetry::{Telemetry, catalog};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn connection() -> (DuplexStream, HeadDeadline<DuplexStream>, Arc<Requests>, Counter) {
        let (client, socket) = tokio::io::duplex(1024);
        let requests = Arc::new(Requests::default());
        let late = Telemetry::default().counter(&catalog::LISTENER_REFUSED, ["otlp", "head_timeout"]);
        (client, HeadDeadline::new(socket, requests.clone(), TIMEOUT, late.clone()), requests, late)
    }

    /// Whether the deadline runs, after everything that was sent has been read.
    async fn runs(connection: &mut HeadDeadline<DuplexStream>) -> bool {
        std::future::poll_fn(|context| {
            loop {
                let mut bytes = [0; 64];
                match Pin::new(&mut *connection).poll_read(context, &mut ReadBuf::new(&mut bytes)) {
                    Poll::Pending => return Poll::Ready(connection.running.is_some()),
                    Poll::Ready(read) => read.expect("in time"),
                }
            }
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_the_connection() {
        for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"POST /v1/metrics HTTP/1.1\r\n", b"GET"] {
            for piece in [1, 64] {
                let (mut client, mut connection, _, late) = connection();
                let began = tokio::time::Instant::now();
                let sender = tokio::spawn(async move {
                    for piece in sent.chunks(piece) {
                        client.write_all(piece).await.expect("room");
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    std::future::pending::<DuplexStream>().await
                });
                let mut read = Vec::new();
                let error = connection.read_to_end(&mut read).await.expect_err("the client is silent and stays");
                assert_eq!((error.kind(), &read[..], late.get()), (io::ErrorKind::TimedOut, sent, 1));
                assert_eq!(began.elapsed().as_secs(), TIMEOUT.as_secs(), "single bytes win no time");
                sender.abort();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_for_heads_and_not_between_them() {
        let (mut client, mut connection, requests, late) = connection();
        assert!(runs(&mut connection).await, "from the beginning");
        client.write_all(b"POST / HTTP/1.1\r\n").await.expect("room");
        assert!(runs(&mut connection).await, "until the head is complete");
        for _ in 0..2 {
            requests.begin();
            client.write_all(b"body").await.expect("room");
            assert!(!runs(&mut connection).await, "bodies have a deadline of their own");
            requests.answered();
            tokio::time::sleep(2 * TIMEOUT).await;
            assert!(!runs(&mut connection).await, "idle");
            client.write_all(b"P").await.expect("room");
            assert!(runs(&mut connection).await, "the next head");
        }
        assert_eq!(late.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_has_pings_instead() {
        for piece in [1, 64] {
            let (mut client, mut connection, _, late) = connection();
            for piece in PREFACE.chunks(piece) {
                client.write_all(piece).await.expect("room");
                assert_eq!(runs(&mut connection).await, connection.version != Version::Http2);
            }
            assert!(!runs(&mut connection).await);
            client.write_all(b"frames").await.expect("room");
            tokio::time::sleep(2 * TIMEOUT).await;
            assert!(!runs(&mut connection).await);
            assert_eq!(late.get(), 0);
        }
    }
}
