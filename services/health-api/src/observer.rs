//! What the API does, as metrics.

use headroom_api::Observer;
use headroom_telemetry::{Gauge, Telemetry, catalog};

/// Counts requests under the catalogue's names.
pub struct HttpMetrics {
    telemetry: Telemetry,
    watchers: Gauge,
}

impl HttpMetrics {
    /// Counts in a telemetry.
    pub fn new(telemetry: &Telemetry) -> Self {
        let watchers = telemetry.gauge(&catalog::HTTP_WATCHERS, ["sse"]);
        Self { telemetry: telemetry.clone(), watchers }
    }
}

impl Observer for HttpMetrics {
    fn answered(&self, route: &str, _method: &str, status: u16, seconds: f64) {
        // Almost every answer is a 200; only the others pay for making their label.
        if status == 200 {
            self.telemetry.counter(&catalog::HTTP_REQUESTS, [route, "200"]).inc();
        } else {
            self.telemetry.counter(&catalog::HTTP_REQUESTS, [route, &status.to_string()]).inc();
        }
        self.telemetry.histogram(&catalog::HTTP_REQUEST_DURATION, [route]).observe(seconds);
    }

    fn watchers(&self, open: usize) {
        self.watchers.set(open as f64);
    }

    fn refused(&self, limit: &'static str) {
        self.telemetry.counter(&catalog::HTTP_REFUSED, [limit]).inc();
    }
}
