//! What a listener counts of its connections, beside the handshakes that fail: here, because who serves connections need
//! not know the metrics, and asks [`Access`](crate::Access) about each connection anyway.

use headroom_telemetry::{Counter, Gauge, Telemetry, catalog};

/// The counts of one listener.
#[derive(Clone, Debug)]
pub struct ListenerCounts {
    open: Gauge,
    waited: Counter,
    stalled: Counter,
}

impl ListenerCounts {
    pub(crate) fn new(telemetry: &Telemetry, listener: &str) -> Self {
        let refused = |bound| telemetry.counter(&catalog::LISTENER_REFUSED, [listener, bound]);
        Self {
            open: telemetry.gauge(&catalog::LISTENER_CONNECTIONS, [listener]),
            waited: refused("connections_max"),
            stalled: refused("stall"),
        }
    }

    /// A connection is open for as long as what is returned lives.
    pub fn connection(&self) -> OpenConnection {
        self.open.add(1.0);
        OpenConnection(self.open.clone())
    }

    /// A connection had to wait, because as many are open as may be.
    pub fn waited(&self) {
        self.waited.inc();
    }

    /// A peer took nothing for too long.
    pub fn stalled(&self) {
        self.stalled.inc();
    }
}

/// A connection among those that are open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
