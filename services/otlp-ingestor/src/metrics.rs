//! The counters of the role, looked up once: what is counted per request costs an atomic addition.

use std::time::Duration;

use headroom_ingest::{Format, IngestReport};
use headroom_telemetry::catalog;
use headroom_telemetry::{Counter, Gauge, Histogram, Telemetry};

use crate::handler::Kind;

/// The two transports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Grpc,
    Http,
}

impl Transport {
    fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Handles of one transport.
#[derive(Clone, Debug)]
struct Handles {
    received: Counter,
    accepted: Counter,
    duration: Histogram,
    inflight: Gauge,
}

/// Handles of the role.
#[derive(Clone, Debug)]
pub struct Metrics {
    telemetry: Telemetry,
    grpc: Handles,
    http: Handles,
}

impl Metrics {
    /// The handles in a telemetry.
    pub fn new(telemetry: &Telemetry) -> Self {
        let handles = |transport: Transport| Handles {
            received: telemetry.counter(&catalog::OTLP_RECEIVED, [transport.as_str()]),
            accepted: telemetry.counter(&catalog::OTLP_POINTS_ACCEPTED, [transport.as_str()]),
            duration: telemetry.histogram(&catalog::OTLP_REQUEST_DURATION, [transport.as_str()]),
            inflight: telemetry.gauge(&catalog::OTLP_INFLIGHT, [transport.as_str()]),
        };
        Self { grpc: handles(Transport::Grpc), http: handles(Transport::Http), telemetry: telemetry.clone() }
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn of(&self, transport: Transport) -> &Handles {
        match transport {
            Transport::Grpc => &self.grpc,
            Transport::Http => &self.http,
        }
    }

    pub(crate) fn request(&self, transport: Transport, format: Format, code: &str) {
        let encoding = match format {
            Format::Protobuf => "protobuf",
            Format::Json => "json",
        };
        self.telemetry.counter(&catalog::OTLP_REQUESTS, [transport.as_str(), encoding, code]).inc();
    }

    pub(crate) fn refused(&self, bound: &str) {
        self.telemetry.counter(&catalog::OTLP_REFUSED, [bound]).inc();
    }

    pub(crate) fn received(&self, transport: Transport, bytes: usize) {
        self.of(transport).received.add(bytes as u64);
    }

    pub(crate) fn duration(&self, transport: Transport, duration: Duration) {
        self.of(transport).duration.observe_duration(duration);
    }

    pub(crate) fn points(&self, transport: Transport, report: &IngestReport) {
        self.of(transport).accepted.add(report.accepted_points);
        for (reason, points) in report.rejections() {
            self.telemetry.counter(&catalog::OTLP_POINTS_REJECTED, [reason.as_str()]).add(points);
        }
        for (what, count) in report.left_out() {
            self.telemetry.counter(&catalog::OTLP_LEFT_OUT, [what]).add(count);
        }
    }

    pub(crate) fn ignored(&self, kind: Kind, records: u64) {
        self.telemetry.counter(&catalog::OTLP_IGNORED, [kind.as_str()]).add(records);
    }

    pub(crate) fn inflight(&self, transport: Transport, bytes: usize) -> Held {
        Held::new(self.of(transport).inflight.clone(), bytes as f64)
    }

    pub(crate) fn connection(&self, listener: &str) -> Held {
        Held::new(self.telemetry.gauge(&catalog::LISTENER_CONNECTIONS, [listener]), 1.0)
    }

    pub(crate) fn refused_connection(&self, listener: &str) {
        self.telemetry.counter(&catalog::LISTENER_REFUSED, [listener, "connections_max"]).inc();
    }
}

/// An amount that a gauge shows for as long as this lives.
pub(crate) struct Held {
    gauge: Gauge,
    amount: f64,
}

impl Held {
    fn new(gauge: Gauge, amount: f64) -> Self {
        gauge.add(amount);
        Self { gauge, amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.add(-self.amount);
    }
}
