"""Starts the executable under test, asks it questions, and ends it in the ways that a machine ends processes."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "libs/ingest/tests/fixtures"
CACHE = pathlib.Path(os.environ.get("HEADROOM_CACHE") or pathlib.Path.home() / ".cache/headroom")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
EXECUTABLE = TARGET / "debug" / "headroom"

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def wait_until(probe, what, seconds=30.0, every=0.05):
    """The first true answer of `probe`; fails with the last answer when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last answer: {answer!r})")
        time.sleep(every)


def free_ports(count):
    """Ports below the range from which the kernel takes those of outgoing connections, so that none is lost to one
    between here and the listener's bind."""
    held = []
    while len(held) < count:
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            held.append(candidate)
        except OSError:
            candidate.close()
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:600]!r}"


def request(method, url, body=None, headers=None, timeout=30.0, context=None):
    """One HTTP exchange; every status is an answer, only a connection that breaks is an error (OSError)."""
    call = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(call, timeout=timeout, context=context) as reply:
            return Answer(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as refused:
        return Answer(refused.code, refused.headers, refused.read())
    except urllib.error.URLError as broken:
        raise broken.reason if isinstance(broken.reason, OSError) else OSError(str(broken.reason))


class Headroom:
    """One `headroom serve` on free loopback ports over a data directory. `restart` keeps both, as an operator would.
    With `context` (an ssl.SSLContext) it is spoken to by TLS, and `token` is shown where no other is given."""

    def __init__(self, home, *options, environment=None, data=None, before=(), context=None, token=None):
        self.home = pathlib.Path(home)
        self.data = pathlib.Path(data or self.home / "data")
        self.options = options
        # What stands in front of the command line: limits, or a namespace of its own.
        self.before = before
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HEADROOM__", "OTEL_"))
        } | (environment or {})
        self.log = self.home / "headroom.log"
        grpc, http, api = free_ports(3)
        self.grpc = f"127.0.0.1:{grpc}"
        scheme = "https" if context else "http"
        self.context = context
        self.token = token
        self.otlp = f"{scheme}://127.0.0.1:{http}"
        self.api = f"{scheme}://127.0.0.1:{api}"
        self.process = None
        self.home.mkdir(parents=True, exist_ok=True)

    def start(self, seconds=30.0):
        self.launch()
        wait_until(self.ready, "GET /readyz answers 200", seconds)
        return self

    def launch(self):
        """Starts it, and waits for nothing."""
        command = [
            # The service dies with the tests, however they end.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *self.before,
            *(str(EXECUTABLE), "serve", "--data-dir", str(self.data)),
            *("--otlp-grpc", self.grpc, "--otlp-http", self.otlp.split("//")[1]),
            *("--http", self.api.split("//")[1]),
            *self.options,
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"headroom ended with {self.process.returncode}:\n{self.tail()}")
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def stop(self):
        """SIGTERM, and what it promises: a clean end within 10 s."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running 10 s after SIGTERM:\n{self.tail()}") from None
        assert code == 0, f"SIGTERM ended with {code}:\n{self.tail()}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def ask(self, method, url, body=None, headers=None):
        shown = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return request(method, url, body, shown | (headers or {}), context=self.context)

    def get(self, path, headers=None):
        return self.ask("GET", self.api + path, headers=headers)

    def post(self, path, value, headers=None):
        return self.ask("POST", self.api + path, json.dumps(value).encode(), {"Content-Type": JSON} | (headers or {}))

    def push(self, body, kind=PROTOBUF, headers=None):
        """One OTLP/HTTP export."""
        return self.ask("POST", self.otlp + "/v1/metrics", body, {"Content-Type": kind} | (headers or {}))

    def server(self, name):
        """The record of a server, or None as long as there is none."""
        answer = self.get(f"/v1/servers/{name}")
        if answer.status == 404:
            return None
        assert answer.status == 200, answer
        return answer.json()

    def servers(self):
        """The names of all servers, over as many pages as they fill."""
        names, cursor = set(), ""
        while True:
            answer = self.get(f"/v1/servers?limit=1000{cursor}")
            assert answer.status == 200, answer
            page = answer.json()
            names.update(item["server"] for item in page["items"])
            if not page.get("nextCursor"):
                return names
            cursor = f"&cursor={page['nextCursor']}"

    def metric(self, name):
        """The sum of a metric of our own over its label sets; None where it is not exposed."""
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics").body.decode().splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(values) if values else None

    def advance(self, now):
        """With --time event: ticks up to `now` (datetime); their snapshots are readable when this returns."""
        return self.post("/v1/clock", {"now": now.strftime("%Y-%m-%dT%H:%M:%SZ")})
