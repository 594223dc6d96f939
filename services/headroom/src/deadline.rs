//! One deadline for all that a stop has to wait for.
//!
//! Whoever stops us waits ten seconds and then kills: each part of the end has a time by which it must be done, counted
//! from the signal, so that a part that hangs takes nothing from those after it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// When the stop began.
#[derive(Clone, Copy)]
pub(crate) struct Stopping(Instant);

impl Stopping {
    /// Now.
    pub(crate) fn begins() -> Self {
        Self(Instant::now())
    }

    /// What becomes of `part`, if that is known so long after the beginning.
    pub(crate) async fn by<T>(self, after: Duration, part: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.0 + after, part).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_that_hang_share_one_deadline() {
        let stopping = Stopping::begins();
        let hangs = std::future::pending::<()>();
        assert_eq!(stopping.by(Duration::from_millis(20), hangs).await, None);
        // Its time has passed with the one before: it is not waited for again.
        let hangs = std::future::pending::<()>();
        assert_eq!(stopping.by(Duration::from_millis(20), hangs).await, None);
        assert_eq!(stopping.by(Duration::from_millis(20), async { 7 }).await, Some(7), "what is ready is taken");
    }
}
