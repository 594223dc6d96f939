"""The API keeps what its own description promises, whatever is sent to it: schemathesis generates the requests."""

import secrets
import subprocess
import time

import otlp
import pytest
from headroom import CACHE, ROOT, wait_until

# Endless by design: an event stream never ends, so a generator of requests would wait for ever.
ENDLESS = ["/v1/watch"]


@pytest.mark.parametrize("secured", [False, True], ids=["open", "with-callers"])
def test_answers_match_the_openapi_document(service, tmp_path, secured):
    """With callers, schemathesis also takes the token away and garbles it, and wants a 401 each time."""
    options, token = [], None
    if secured:
        token = secrets.token_hex(32)
        (tmp_path / "token").write_text(token)
        callers = tmp_path / "callers.yaml"
        callers.write_text("callers: [{name: tester, scopes: [admin], token_file: token}]")
        options = ["--set", "security.auth=tokens", "--set", f"security.callers_file={callers}"]
    headroom = service("--tick", "1", *options, token=token)
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
    if secured:
        command += ["--header", f"Authorization: Bearer {token}"]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    # The bound is for a service that hangs; a good run takes a fraction of it.
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=headroom.home)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert headroom.get("/livez").status == 200
    if secured:
        assert headroom.metric("headroom_access_denied_requests_total") > 0, "it did try without"
