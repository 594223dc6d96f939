// This machine's counters as the OpenTelemetry Node SDK sends them: protobuf over HTTP, chunked.
//
// The one line that Headroom asks of every sender is the host's name: OTEL_RESOURCE_ATTRIBUTES=host.name=...
// Otherwise by environment: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_METRIC_EXPORT_INTERVAL in milliseconds, RUN_SECONDS, and
// NODE_PACKAGES, the folder that holds node_modules: packages live in the cache, outside the checkout.
import { createRequire } from "node:module";

const load = createRequire(`${process.env.NODE_PACKAGES}/`);
const { diag, DiagConsoleLogger, DiagLogLevel } = load("@opentelemetry/api");
const { OTLPMetricExporter } = load("@opentelemetry/exporter-metrics-otlp-proto");
const { HostMetrics } = load("@opentelemetry/host-metrics");
const { detectResources, envDetector } = load("@opentelemetry/resources");
const { MeterProvider, PeriodicExportingMetricReader } = load("@opentelemetry/sdk-metrics");

// Partial successes are reported as warnings of the exporter, and a test reads them.
diag.setLogger(new DiagConsoleLogger(), DiagLogLevel.WARN);

const interval = Number(process.env.OTEL_METRIC_EXPORT_INTERVAL ?? 60_000);
const meterProvider = new MeterProvider({
  resource: detectResources({ detectors: [envDetector] }),
  readers: [
    new PeriodicExportingMetricReader({
      exporter: new OTLPMetricExporter(),
      exportIntervalMillis: interval,
      exportTimeoutMillis: Math.min(interval, 30_000),
    }),
  ],
});
new HostMetrics({ meterProvider }).start();

setTimeout(() => meterProvider.shutdown(), 1000 * Number(process.env.RUN_SECONDS ?? 60));
