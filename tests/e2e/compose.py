"""Starts what docker-compose.yml says, without containers.

Commands, configuration, volumes and environment are read from that file, so that it cannot say anything else than what is
tested. What a container gives is put in its place: a name with a port becomes a free port of the loopback, a path that
is mounted becomes a folder of the test, and an image becomes the program that is installed here."""

import os
import pathlib
import re
import shutil
import subprocess

import yaml
from headroom import CACHE, EXECUTABLE, ROOT, free_ports

KAFKA_CLASSES = f"{CACHE}/kafka/libs/*"


class Compose:
    def __init__(self, home):
        self.home = pathlib.Path(home)
        self.file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        self.services = self.file["services"]
        self.processes = {}
        self.ports = {}

    def port(self, service, port):
        """The free port that stands for a service's own."""
        if (service, port) not in self.ports:
            self.ports[service, port] = free_ports(1)[0]
        return self.ports[service, port]

    def path(self, service, path):
        """Where a path of a service's container lies."""
        for volume in self.services[service].get("volumes", []):
            name, target = volume.split(":")[:2]
            if path == target or path.startswith(target + "/"):
                return self.home / "volumes" / name / path[len(target) :].strip("/")
        return self.home / service / path.strip("/")

    def mounts(self, service):
        """The folders that a container of the service is given."""
        definition = self.services[service]
        volumes = [volume.split(":")[1] for volume in definition.get("volumes", [])]
        return volumes + [str(pathlib.PurePosixPath(each["target"]).parent) for each in definition.get("configs", [])]

    def native(self, service, text):
        """A text of a service as it reads outside its container."""
        text = text.replace("$$", "$")
        # Longest first: a name may be the beginning of another.
        for name in sorted(self.services, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.-]){name}:(\d+)", lambda m, name=name: f"127.0.0.1:{self.port(name, int(m[1]))}", text)
        text = re.sub(r"0\.0\.0\.0:(\d+)", lambda m: f"127.0.0.1:{self.port(service, int(m[1]))}", text)
        for mount in sorted(self.mounts(service), key=len, reverse=True):
            text = re.sub(rf"(?<![\w/]){mount}(?=[/\s\"',}}]|$)", str(self.path(service, mount)), text)
        return text

    def configure(self, service):
        """Writes the service's configuration and makes its volumes."""
        for mount in self.mounts(service):
            self.path(service, mount).mkdir(parents=True, exist_ok=True)
        for each in self.services[service].get("configs", []):
            content = self.file["configs"][each["source"]]["content"]
            self.path(service, each["target"]).write_text(self.native(service, content))

    def words(self, service):
        return [self.native(service, word) for word in self.services[service].get("command", [])]

    def command(self, service):
        """The command that the service's image and command amount to."""
        image = self.services[service]["image"].split(":")[0]
        words = self.words(service)
        if "entrypoint" in self.services[service]:
            return [*self.services[service]["entrypoint"], *words]
        if image == "headroom":
            return [str(EXECUTABLE), *words]
        if image == "otel/opentelemetry-collector-contrib":
            return [str(CACHE / "collector/bin/otelcol"), *words]
        if image == "prom/prometheus":
            return ["prometheus", *words]
        if image == "prom/alertmanager":
            return ["prometheus-alertmanager", *words]
        if image == "apache/kafka":
            return self.kafka(service)
        raise AssertionError(f"nothing here stands for the image {image} of {service}")

    def kafka(self, service):
        """What the image does at its start: settings from the environment, and a first format."""
        environment = self.services[service]["environment"]
        settings = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): self.native(service, str(value))
            for name, value in environment.items()
            if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
        }
        properties = self.home / service / "server.properties"
        properties.parent.mkdir(parents=True, exist_ok=True)
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # The default of 128 MB is a lot of memory where three brokers share a machine with their clients.
        properties.open("a").write("log.cleaner.dedupe.buffer.size=4194304\n")
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", KAFKA_CLASSES]
        if not (self.path(service, settings["log.dirs"]) / "meta.properties").exists():
            tool = ["kafka.tools.StorageTool", "format", "-t", environment["CLUSTER_ID"], "-c", str(properties)]
            subprocess.run([*java, *tool], check=True, capture_output=True)
        return [*java, "kafka.Kafka", str(properties)]

    def can_run(self, service):
        """Whether what stands for the service is installed here."""
        return shutil.which(self.command(service)[0]) is not None

    def start(self, service):
        self.configure(service)
        command = self.command(service)
        # Only what the file says and what finds programs: nothing of this machine may configure a service.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        with open(self.log(service), "ab") as log:
            self.processes[service] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def log(self, service):
        return self.home / f"{service}.log"

    def tail(self, service):
        return "\n".join(self.log(service).read_text(errors="replace").splitlines()[-30:])

    def kill(self, service):
        process = self.processes.pop(service)
        process.kill()
        process.wait()

    def kill_all(self):
        for service in list(self.processes):
            self.kill(service)
