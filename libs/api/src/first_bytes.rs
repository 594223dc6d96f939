//! A connection that does not say in time what it speaks fails.
//!
//! Whether it is HTTP/1 or HTTP/2 shows in the first bytes, and the code that waits for them has no timer of its own: a
//! peer that sends nothing, or the beginning of the preface of HTTP/2 and no more, would keep its place for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What HTTP/2 begins with, and HTTP/1 cannot.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct FirstBytes<T> {
    inner: T,
    /// How much of the preface has come, and until when the rest must; `None` once it is clear what is spoken.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<T> FirstBytes<T> {
    pub(crate) fn new(inner: T, timeout: Duration) -> Self {
        Self { inner, awaited: Some((0, Box::pin(sleep(timeout)))) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FirstBytes<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let progress = Pin::new(&mut this.inner).poll_read(context, buffer);
        let Some((seen, deadline)) = &mut this.awaited else { return progress };
        if progress.is_pending() {
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not say what it speaks")));
        }
        let come = &buffer.filled()[before..];
        let is_prefix = PREFACE[*seen..].starts_with(come);
        *seen += come.len();
        if !is_prefix || *seen == PREFACE.len() {
            this.awaited = None;
        }
        progress
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FirstBytes<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_he_speaks_is_dropped_and_who_does_may_be_silent() {
        for (bytes, is_dropped) in [
            (&b""[..], true),
            (b"P", true),
            (b"PRI * HTTP/2.0\r\n", true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more", false),
            (b"POST", false),
            (b"GET", false),
        ] {
            for piece in [1, 64] {
                let (near, mut far) = tokio::io::duplex(64);
                let mut guarded = FirstBytes::new(near, Duration::from_secs(10));
                let writer = tokio::spawn(async move {
                    for piece in bytes.chunks(piece) {
                        far.write_all(piece).await.expect("there is room");
                        tokio::task::yield_now().await;
                    }
                    sleep(Duration::from_secs(20)).await;
                });
                let mut read = Vec::new();
                let outcome = guarded.read_to_end(&mut read).await;
                assert_eq!((outcome.is_err(), &read[..]), (is_dropped, bytes), "{bytes:?} by {piece}");
                writer.abort();
            }
        }
    }
}
