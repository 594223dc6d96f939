"""The real senders as processes: as their authors ship them, plus the one line that names the host."""

import os
import subprocess

import pytest
from headroom import CACHE, ROOT

PROGRAMS = ROOT / "tests/senders"
INTERVAL_SECONDS = 1


class Sender:
    def __init__(self, name, component, dialect, command, environment, host_by_environment=True):
        self.name = name
        self.component = component
        self.dialect = dialect
        self.command = command
        self.environment = environment
        self.host_by_environment = host_by_environment

    def __repr__(self):
        return self.name


def collector(exporter, *more):
    return [
        *(CACHE / "collector/bin/otelcol", "--config", PROGRAMS / "collector.yaml"),
        f"--set=service::pipelines::metrics::exporters=[{exporter}]",
        *more,
    ]


PYTHON = [CACHE / "python/venv/bin/python", PROGRAMS / "python_host.py"]
NODE = ["node", PROGRAMS / "node_host.mjs"]
JAVA = [
    *("java", f"-javaagent:{CACHE}/java/opentelemetry-javaagent.jar"),
    *("-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp", CACHE / "java", "HelloHeadroom"),
]

SENDERS = {
    each.name: each
    for each in (
        Sender("python-grpc", "python", "python", PYTHON, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
        Sender("python-http", "python", "python", PYTHON, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}),
        Sender("node", "node", "node", NODE, {"NODE_PACKAGES": str(CACHE / "node")}),
        # One endpoint for everything: the agent sends its traces and logs to us, too.
        Sender("java", "java", "java", JAVA, {"OTEL_SERVICE_NAME": "hello-headroom"}),
        Sender("collector-grpc", "collector", "collector", collector("otlp_grpc"), {}, False),
        Sender("collector-http", "collector", "collector", collector("otlp_http"), {}, False),
    )
}


class Running:
    """Senders that push to one service. Each ends by itself after `seconds` at the latest, whatever happens to us."""

    def __init__(self, service, logs, seconds=150):
        self.service = service
        self.logs = logs
        self.seconds = seconds
        self.processes = {}

    def start(self, sender, host):
        over_grpc = sender.environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.service.grpc}" if over_grpc else self.service.otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": str(1000 * INTERVAL_SECONDS),
            "RUN_SECONDS": str(self.seconds),
            "HOST_NAME": host or "",
            "INTERVAL": f"{INTERVAL_SECONDS}s",
            "OTLP_GRPC_ENDPOINT": self.service.grpc,
            "OTLP_HTTP_ENDPOINT": self.service.otlp,
        }
        command = list(sender.command)
        if host and sender.host_by_environment:
            environment["OTEL_RESOURCE_ATTRIBUTES"] = f"host.name={host}"
        elif not host and not sender.host_by_environment:
            command.append("--set=service::pipelines::metrics::processors=[]")
        with open(self.log(sender), "wb") as log:
            self.processes[sender.name] = subprocess.Popen(
                ["timeout", str(self.seconds + 10), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | sender.environment,
            )

    def log(self, sender):
        return self.logs / f"{sender.name}.log"

    def said(self, sender):
        return self.log(sender).read_text(errors="replace")

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def available(component, sender):
    """None when the sender's part is there, else the reason for which its tests are skipped."""
    try:
        component(sender.component)
    except pytest.skip.Exception as reason:
        return str(reason)
    return None
