//! A connection whose peer takes nothing for too long fails, instead of holding a place, a buffer and an old snapshot.
//!
//! Timeouts of requests do not see this: the answer has begun, and a body that nobody polls cannot time out. Only the
//! socket knows that a write has been pending.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use headroom_access::ListenerCounts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What such a connection fails with.
const STALLED: &str = "the peer takes nothing";

pub(crate) struct StallGuard<T> {
    inner: T,
    timeout: Duration,
    /// Runs while a write or flush is pending.
    deadline: Pin<Box<Sleep>>,
    is_pending: bool,
    /// Counts it when the peer took nothing.
    counts: Option<ListenerCounts>,
}

impl<T> StallGuard<T> {
    pub(crate) fn new(inner: T, timeout: Duration, counts: ListenerCounts) -> Self {
        Self { inner, timeout, deadline: Box::pin(sleep(timeout)), is_pending: false, counts: Some(counts) }
    }

    fn watch<R>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if progress.is_ready() {
            self.is_pending = false;
            return progress;
        }
        if !self.is_pending {
            self.is_pending = true;
            self.deadline.as_mut().reset(Instant::now() + self.timeout);
        }
        ready!(self.deadline.as_mut().poll(context));
        // Whoever writes on regardless is told at once, and is not counted again.
        if let Some(counts) = self.counts.take() {
            counts.stalled();
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, STALLED)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallGuard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_access::Access;
    use headroom_telemetry::Telemetry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_dropped_and_a_slow_one_is_not() {
        let (near, mut far) = tokio::io::duplex(4);
        let telemetry = Telemetry::default();
        let counts = Access::open(&telemetry).counts("http");
        let mut guarded = StallGuard::new(near, Duration::from_secs(30), counts);
        let slow_reader = tokio::spawn(async move {
            let mut taken = [0; 4];
            for _ in 0..3 {
                sleep(Duration::from_secs(20)).await;
                far.read_exact(&mut taken).await.expect("bytes come");
            }
            far
        });
        guarded.write_all(&[7; 16]).await.expect("20 s are less than 30");
        let _far = slow_reader.await.expect("the reader ends");
        let error = guarded.write_all(&[7; 16]).await.expect_err("nobody reads any more");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        guarded.write_all(&[7; 16]).await.expect_err("still nobody");
        let counted = "headroom_listener_refused_connections_total{listener=\"http\",bound=\"stall\"} 1\n";
        assert!(telemetry.render().contains(counted), "{}", telemetry.render());
    }
}
