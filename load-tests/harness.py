"""What all measurements share: servers under test, the load generator, and waiting."""
import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "headroom"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = os.cpu_count() or 1
SERVER_CORE, LOAD_CORE = ("1", "0") if CORES > 1 else ("0", "0")
SHORT = 8.0           # seconds of a throughput run
PACE = 1_500_000      # points per second: about half of what a core takes
STEP = 10             # event seconds from report to report
RUNNING = []


def end_all():
    for server in list(RUNNING):
        server.kill()


atexit.register(end_all)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, timeout=30):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read()


def post_json(url, body, timeout=600):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def wait_for(condition, what, seconds=120, every=0.01):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except (OSError, urllib.error.URLError, ValueError):
            pass
        time.sleep(every)
    raise RuntimeError(f"waited {seconds} s for {what}")


class Process:
    """A server under test, on a core of its own."""

    def __init__(self, name, command, environment=None, pinned=True):
        self.name = name
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="headroom-load-"))
        pin = ["taskset", "-c", SERVER_CORE] if pinned and shutil.which("taskset") else []
        self.command = [part.replace("{dir}", str(self.directory)) for part in command]
        self.pin, self.environment = pin, environment
        self.start()
        RUNNING.append(self)

    def start(self):
        self.log = open(self.directory / "log", "ab")
        self.child = subprocess.Popen(self.pin + self.command, stdout=self.log, stderr=self.log,
                                      env={**os.environ, **(self.environment or {})})

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICKS_PER_SECOND

    def cpu_fine(self):
        """To the nanosecond, of the threads that live: for what takes milliseconds."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass
        return total / 1e9

    def rss(self):
        return int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * PAGE

    def peak(self):
        text = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.log.close()
        if self in RUNNING:
            RUNNING.remove(self)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Headroom(Process):
    def __init__(self, *, durability="synced", time_mode="event:follow", tick=10, policy=None, settings=(), pinned=True,
                 role=None):
        self.http, self.otlp, self.grpc = free_port(), free_port(), free_port()
        command = [str(TARGET / "headroom"), "serve", "--data-dir", "{dir}/data", "--time", time_mode, "--tick", str(tick),
                   "--http", f"127.0.0.1:{self.http}", "--otlp-http", f"127.0.0.1:{self.otlp}",
                   "--otlp-grpc", f"127.0.0.1:{self.grpc}", "--set", f"log.durability={durability}"]
        for setting in settings:
            command += ["--set", setting]
        if policy:
            command += ["--policy", str(policy)]
        if role:
            command += ["--role", role]
        clean = {key: "" for key in os.environ if key.startswith("OTEL_")}
        super().__init__("headroom", command, clean, pinned)
        self.api = f"http://127.0.0.1:{self.http}"
        self.ready()

    def ready(self, seconds=300):
        wait_for(lambda: get(f"{self.api}/readyz", 2) is not None, "readiness", seconds, 0.002)

    def metrics(self):
        """Sum over series by name, and by name and chosen label."""
        out = {}
        for line in get(f"{self.api}/metrics").decode().splitlines():
            if line.startswith("#") or not line:
                continue
            found = re.match(r"([a-zA-Z0-9_:]+)(\{(.*)\})? ([^ ]+)", line)
            if not found:
                continue
            name, labels, value = found[1], found[3] or "", float(found[4])
            out[name] = out.get(name, 0.0) + value
            for label in ("outcome", "bound", "kind", "state"):
                chosen = re.search(label + r'="([^"]*)"', labels)
                if chosen:
                    key = f"{name}[{chosen[1]}]"
                    out[key] = out.get(key, 0.0) + value
        return out

    def read_all(self, seconds=120):
        """Waits until the engines have read every record of the log and the process has come to rest."""
        def condition():
            cpu = self.cpu()
            time.sleep(0.2)
            if self.cpu() - cpu > 0.011:
                return False
            return self.metrics().get("headroom_engine_lag_records", 1) == 0
        wait_for(condition, "the engines", seconds, 0)

    def counted(self, points, seconds=20):
        """Waits until the engine has counted `points` samples; gives the metrics.

        Counts are published with ticks: on event time they stand still until the senders move on."""
        def condition():
            now = self.metrics()
            return now if now.get("headroom_engine_samples_total", 0) >= points else None
        try:
            return wait_for(condition, f"{points} samples", seconds, 0.05)
        except RuntimeError:
            return self.metrics()


def load(*arguments, wait=True):
    pin = ["taskset", "-c", LOAD_CORE] if shutil.which("taskset") else []
    command = pin + [str(TARGET / "headroom-load"), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not wait:
        return child
    return finish(child)


def finish(child, seconds=900):
    try:
        out, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    if child.returncode:
        raise RuntimeError(f"headroom-load: {errors.strip()[-400:]}")
    return json.loads(out)


def start_second():
    """Six hours ago, on a whole tick: the points of a run lie in the past for every peer, and within its retention."""
    return int(time.time()) // STEP * STEP - 6 * 3600


def frames(start, servers=1000, step=STEP):
    return ["--shape", "frames", "--servers", servers, "--servers-per-request", 100, "--start", start, "--step", step]


def rate(points, cpu):
    return points / cpu if cpu > 0 else float("nan")


class Broker(Process):
    def __init__(self):
        directory = tempfile.mkdtemp(prefix="headroom-load-kafka-")
        self.child = subprocess.Popen([ROOT / "tests/components/kafka/start", directory], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.name, self.directory, self.log = "kafka", pathlib.Path(directory), open(os.devnull, "ab")
        said = self.child.stdout.readline().split()
        if not said:
            raise RuntimeError("no broker: tests/components/kafka/install brings it")
        self.address = said[1]
        RUNNING.append(self)


def lean_policy(directory):
    """The shipped policy with inputs and signals of the lean fleet: 20 inputs of one series, 20 signals, 9 with peers."""
    text = (ROOT / "libs/catalog/src/default-policy.yaml").read_text()
    text = text[:text.index("\ninputs:")]
    families = ["cpu", "memory", "disk", "network", "queue", "errors"]
    inputs, signals = ["\ninputs:"], ["\nsignals:"]
    for at in range(20):
        inputs.append(f'  load_m{at:02}: {{unit: "1", function: {"mean" if at % 2 else "last"}, '
                      f'sources: [{{dialect: load, metrics: [load.m{at:02}]}}]}}')
        peers = ", peers: {floor: 0.02}" if at < 9 else ""
        signals.append(f'  signal_{at:02}: {{family: {families[at % 6]}, unit: "1", expression: "load_m{at:02}", '
                       f'under: 0.7, over: 0.85, critical: 0.98{peers}}}')
    path = pathlib.Path(directory) / "policy.yaml"
    path.write_text(text + "\n".join(inputs) + "\n" + "\n".join(signals) + "\n")
    return path
