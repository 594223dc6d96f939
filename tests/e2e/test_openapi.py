"""The API keeps what its own description promises, whatever is sent to it: schemathesis generates the requests."""

import subprocess
import time

import otlp
from headroom import CACHE, ROOT, wait_until

# Endless by design: an event stream never ends, so a generator of requests would wait for ever.
ENDLESS = ["/v1/watch"]


def test_answers_match_the_openapi_document(service):
    headroom = service("--tick", "1")
    for host in ("web-1", "web-2"):
        assert headroom.push(otlp.request_of(host, time.time()).SerializeToString()).status == 200
    wait_until(lambda: len(headroom.servers()) == 2, "two servers to ask for")

    document = headroom.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/servers/{server}" in document["paths"]

    command = [
        *(CACHE / "python/venv/bin/schemathesis", "--config-file", ROOT / "tests/e2e/schemathesis.toml", "run"),
        f"{headroom.api}/openapi.json",
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--workers", "1"),
        *("--request-timeout", "5", "--generation-deterministic", "--no-color"),
    ]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    # The bound is for a service that hangs; a good run takes a fraction of it.
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=headroom.home)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert headroom.get("/livez").status == 200
