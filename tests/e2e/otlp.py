"""OTLP requests built by the project's own protobuf classes, so that nothing of ours vouches for its own encoding."""

import gzip

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

NANOSECONDS = 1_000_000_000


def parse(body):
    return ExportMetricsServiceRequest.FromString(body)


def response(body, kind):
    if kind.startswith("application/json"):
        return json_format.Parse(body, ExportMetricsServiceResponse())
    return ExportMetricsServiceResponse.FromString(body)


def as_json(message):
    """OTLP/JSON: enums are numbers, everything else is as protobuf's own mapping has it."""
    return json_format.MessageToJson(message, use_integers_for_enums=True).encode()


def zipped(body):
    return gzip.compress(body)


def points(message):
    return sum(
        len(getattr(metric, metric.WhichOneof("data")).data_points)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


CUMULATIVE, DELTA = 2, 1


def request_of(host, moment, busy_seconds=10.0, idle_seconds=90.0, started=0, temporality=CUMULATIVE):
    """One host with one CPU: the least from which a health score follows. `moment` and `started` are Unix seconds."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    if host:
        name = resource.resource.attributes.add(key="host.name")
        name.value.string_value = host
    scope = resource.scope_metrics.add()
    metric = scope.metrics.add(name="system.cpu.time", unit="s")
    metric.sum.aggregation_temporality = temporality
    metric.sum.is_monotonic = True
    for state, seconds in (("user", busy_seconds), ("idle", idle_seconds)):
        point = metric.sum.data_points.add(
            time_unix_nano=int(moment * NANOSECONDS), start_time_unix_nano=int(started * NANOSECONDS), as_double=seconds
        )
        for key, value in (("cpu", "cpu0"), ("state", state)):
            attribute = point.attributes.add(key=key)
            attribute.value.string_value = value
    return message
