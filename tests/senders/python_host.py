"""This machine's counters as the OpenTelemetry Python SDK sends them, with nothing set but what its authors document.

The one line that Headroom asks of every sender is the host's name: OTEL_RESOURCE_ATTRIBUTES=host.name=...
Otherwise by environment: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL (grpc or http/protobuf),
OTEL_METRIC_EXPORT_INTERVAL in milliseconds, RUN_SECONDS.
"""

import logging
import os
import time

from opentelemetry import metrics
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

# The SDK reports refused exports and partial successes here, and a test reads them.
logging.basicConfig(level=logging.INFO)

provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
metrics.set_meter_provider(provider)
SystemMetricsInstrumentor().instrument()

time.sleep(float(os.environ.get("RUN_SECONDS", "60")))
provider.shutdown()
