//! Pushing our metrics and traces by OTLP, when and only when the standard `OTEL_*` variables name an endpoint.
//!
//! The specification would have an SDK send to localhost unasked. We do not: a Headroom beside it listens on that very
//! port, and software that sends data about itself without having been told where to is not welcome on servers. Hence:
//!
//! | Variable | Here |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_METRICS_ENDPOINT`, `…_TRACES_ENDPOINT` | none set: nothing is sent |
//! | `OTEL_SDK_DISABLED=true` | nothing is sent |
//! | `OTEL_METRICS_EXPORTER`, `OTEL_TRACES_EXPORTER` | `none`: not this one; `otlp` is what an endpoint implies; `/metrics` is always there |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL` (and per signal) | `http/protobuf` (default) or `grpc` |
//! | `…_HEADERS`, `…_TIMEOUT`, `…_COMPRESSION`, `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_BSP_*`, `OTEL_TRACES_SAMPLER` | as the SDK reads them |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | describe us; the service's name is `headroom` unless they say otherwise |
//!
//! The endpoint may be this very process. Metrics then cost one request an interval, whatever they count. Traces cost
//! the span of the request that brought the spans before it: one more each export, and never a span of the exporter's
//! own client, which the filter of [`crate::logs`] keeps out. Neither grows with itself.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::metrics::Telemetry;

/// The name of our instrumentation scope, and of the service unless the environment names it.
const NAME: &str = "headroom";

/// What the environment says about exporting our telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtelSettings {
    /// Push metrics.
    pub metrics: bool,
    /// Push traces.
    pub traces: bool,
    /// Whether a push of either goes by gRPC, which needs a Tokio runtime at [`start`].
    pub grpc: bool,
    /// What was set and cannot be followed, one sentence each. Log these: nothing is silently ignored.
    pub problems: Vec<String>,
}

impl OtelSettings {
    /// Reads the settings by `get`, which looks up a variable (`std::env::var(name).ok()`). An empty value is as good
    /// as none, as the specification has it.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut settings = Self::default();
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return settings;
        }
        settings.metrics = settings.reads_signal(&get, "METRICS", "prometheus");
        settings.traces = settings.reads_signal(&get, "TRACES", "");
        if let Some(interval) = get("OTEL_METRIC_EXPORT_INTERVAL").filter(|_| settings.metrics)
            && !interval.parse().is_ok_and(|milliseconds: u64| milliseconds > 0)
        {
            settings.complain(format!(
                "OTEL_METRIC_EXPORT_INTERVAL={interval} is no number of milliseconds; the default of 60000 is used"
            ));
        }
        settings
    }

    /// Notes what cannot be followed, once: both signals read the common variables.
    fn complain(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn reads_signal(&mut self, get: &impl Fn(&str) -> Option<String>, signal: &str, always: &str) -> bool {
        let either = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{signal}_{name}");
            let common = format!("OTEL_EXPORTER_OTLP_{name}");
            get(&own).map(|value| (own, value)).or_else(|| get(&common).map(|value| (common, value)))
        };
        let variable = format!("OTEL_{signal}_EXPORTER");
        let mut wanted = true;
        let mut asked = false;
        if let Some(exporters) = get(&variable) {
            let names: Vec<&str> = exporters.split(',').map(str::trim).collect();
            asked = names.contains(&"otlp");
            wanted = asked;
            for name in names.iter().filter(|name| !["otlp", "none", always].contains(name)) {
                self.complain(format!("{variable}={name} is not supported; otlp and none are"));
            }
        }
        let Some((endpoint_variable, endpoint)) = either("ENDPOINT") else {
            if asked {
                self.complain(format!(
                    "{variable} asks for otlp but no endpoint is set, and none is assumed: \
                     set OTEL_EXPORTER_OTLP_ENDPOINT, for instance to http://collector:4318"
                ));
            }
            return false;
        };
        if !wanted {
            return false;
        }
        if endpoint.starts_with("https:") {
            self.complain(format!(
                "{endpoint_variable} is an https address, and our own telemetry is sent without TLS only: \
                 send it to a Collector on this host or network"
            ));
            return false;
        }
        match either("PROTOCOL") {
            Some((_, protocol)) if protocol == "grpc" => self.grpc = true,
            Some((variable, protocol)) if protocol != "http/protobuf" => {
                self.complain(format!("{variable}={protocol} is not supported; http/protobuf and grpc are"));
                return false;
            }
            _ => {}
        }
        // The values are secrets; what stands before an equals sign is not.
        if let Some((variable, headers)) = either("HEADERS") {
            let named = |entry: &&str| entry.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty());
            let entries = headers.split(',').filter(|entry| !entry.trim().is_empty());
            let wrong = entries.filter(|entry| !named(entry)).count();
            if wrong > 0 {
                self.complain(format!(
                    "{variable} has entries that are left out because they are not name=value: {wrong} of them"
                ));
            }
        }
        true
    }
}

/// Why a push could not begin.
#[derive(Debug)]
pub struct OtelError(String);

impl std::fmt::Display for OtelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "our telemetry cannot be exported: {}", self.0)
    }
}

impl std::error::Error for OtelError {}

/// The pushes under way. Dropping it does not stop them; [`Exporters::shutdown`] does.
#[derive(Debug, Default)]
pub struct Exporters {
    meter: Option<SdkMeterProvider>,
    tracer: Option<SdkTracerProvider>,
}

/// Begins what `settings` ask for, on threads of their own. Addresses, headers and intervals are read from the
/// process's environment by the SDK.
///
/// # Errors
/// If an exporter cannot be built from what the environment says, or gRPC is asked for outside a Tokio runtime.
pub fn start(settings: &OtelSettings, telemetry: &Telemetry) -> Result<Exporters, OtelError> {
    let error = |error: &dyn std::fmt::Display| OtelError(error.to_string());
    if settings.grpc && tokio::runtime::Handle::try_current().is_err() {
        return Err(error(&"gRPC needs a Tokio runtime where it is started"));
    }
    let mut exporters = Exporters::default();
    if settings.metrics {
        let exporter = MetricExporter::builder().build().map_err(|e| error(&e))?;
        exporters.meter = Some(telemetry.push(exporter, resource()));
    }
    if settings.traces {
        let exporter = SpanExporter::builder().build().map_err(|e| error(&e))?;
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
        exporters.tracer = Some(provider);
    }
    Ok(exporters)
}

impl Exporters {
    /// The tracer that [`crate::logs::init`] gives spans to, if traces are pushed.
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.tracer.as_ref().map(|provider| provider.tracer(NAME))
    }

    /// Sends what is left and stops, in at most `timeout`: the SDK's own time limits do not hold while an answer is
    /// outstanding. Blocks; `false` means that something may be lost.
    pub fn shutdown(self, timeout: Duration) -> bool {
        if self.meter.is_none() && self.tracer.is_none() {
            return true;
        }
        let (done, wait) = mpsc::channel();
        let stopper = thread::Builder::new().name("telemetry-stop".to_owned()).spawn(move || {
            let traces = self.tracer.is_none_or(|provider| provider.shutdown_with_timeout(timeout).is_ok());
            let metrics = self.meter.is_none_or(|provider| provider.shutdown_with_timeout(timeout).is_ok());
            // Nobody listens any more if it took too long.
            let _ = done.send(traces && metrics);
        });
        stopper.is_ok() && wait.recv_timeout(timeout).unwrap_or(false)
    }
}

/// Who we say we are.
fn resource() -> Resource {
    let mut resource = Resource::builder();
    let named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let by_attribute = std::env::var("OTEL_RESOURCE_ATTRIBUTES")
        .is_ok_and(|list| list.split(',').any(|entry| entry.trim_start().starts_with("service.name=")));
    if !named("OTEL_SERVICE_NAME") && !by_attribute {
        resource = resource.with_service_name(NAME);
    }
    resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (bool, bool, bool, usize) {
        let settings = OtelSettings::read(|name| {
            pairs.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        });
        (settings.metrics, settings.traces, settings.grpc, settings.problems.len())
    }

    #[test]
    fn nothing_leaves_without_an_endpoint() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        const OWN: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces");
        for (variables, expected) in [
            (&[][..], (false, false, false, 0)),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], (false, false, false, 0)),
            (&[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], (false, false, false, 0)),
            (&[("OTEL_METRICS_EXPORTER", "otlp")], (false, false, false, 1)),
            (&[ENDPOINT], (true, true, false, 0)),
            (&[OWN], (false, true, false, 0)),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")], (false, false, false, 0)),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "no")], (true, true, false, 0)),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], (true, false, false, 0)),
            (&[ENDPOINT, ("OTEL_METRICS_EXPORTER", "prometheus")], (false, true, false, 0)),
            (&[ENDPOINT, ("OTEL_METRICS_EXPORTER", "otlp,prometheus")], (true, true, false, 0)),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")], (true, false, false, 1)),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], (true, true, true, 0)),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")], (false, true, false, 1)),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")], (false, false, false, 1)),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "foo")], (false, false, false, 1)),
            (&[ENDPOINT, ("OTEL_METRIC_EXPORT_INTERVAL", "abc")], (true, true, false, 1)),
            (&[ENDPOINT, ("OTEL_METRIC_EXPORT_INTERVAL", "5000")], (true, true, false, 0)),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a")], (true, true, false, 1)),
            (&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b, c=d")], (true, true, false, 0)),
        ] {
            assert_eq!(read(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn stopping_nothing_is_quick_and_complete() {
        assert!(Exporters::default().shutdown(Duration::ZERO));
    }
}
