"""The first five minutes: one command, nothing installed, no configuration, no network but loopback."""

import os
import signal
import subprocess

from headroom import EXECUTABLE, free_ports, request, wait_until

#: What may be set where the demo is tried, and is meant for a service, a client or a sender.
FOREIGN = {
    "HEADROOM_CONFIG": "/nowhere/headroom.yaml",
    "HEADROOM_URL": "http://nowhere.invalid:1",
    "HEADROOM_TOKEN": "no header has\ntwo lines",
    "HEADROOM_TOKEN_FILE": "/nowhere/token",
    "HEADROOM_CA_FILE": "/nowhere/ca.pem",
    "HEADROOM_CLIENT_CERT_FILE": "/nowhere/client.pem",
    "HEADROOM_CLIENT_KEY_FILE": "/nowhere/client.key",
    "HEADROOM__HTTP__LISTEN": "0.0.0.0:1",
    "HEADROOM__LOG__DATA_DIR": "/nowhere/data",
    "HEADROOM__POLICY__FILE": "/nowhere/policy.yaml",
    "HEADROOM__NO_SUCH_SECTION__KEY": "?",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://nowhere.invalid:1",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "?",
    "OTEL_METRIC_EXPORT_INTERVAL": "?",
    "OTEL_RESOURCE_ATTRIBUTES": "?",
    "OTEL_TRACES_SAMPLER": "?",
    "XDG_STATE_HOME": "/nowhere/state",
}


def test_demo_runs_to_its_end(tmp_path):
    grpc, http, api = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = [EXECUTABLE, "demo", "--seconds", "60", "--otlp-grpc", grpc, "--otlp-http", http, "--http", api]
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    said = (run.stdout + run.stderr).lower()
    assert run.returncode == 0, said[-3000:]
    incident, recovery = said.find("incident"), said.rfind("recover")
    assert incident >= 0, said[-3000:]
    assert recovery > incident, said[-3000:]


def test_demo_heeds_nothing_that_is_set_around_it(tmp_path):
    grpc, http, api = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = [EXECUTABLE, "demo", "--speed", "30", "--otlp-grpc", grpc, "--otlp-http", http, "--http", api]
    output = tmp_path / "output"
    environment = os.environ | FOREIGN | {"TMPDIR": str(tmp_path)}
    with output.open("wb") as said:
        demo = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=tmp_path, env=environment
        )
    try:
        wait_until(lambda: demo.poll() is not None or output.read_text().count("  overloaded ") >= 3, "the fleet moves")
        assert demo.poll() is None, output.read_text()
        policy = request("GET", f"http://{api}/v1/policy")
        assert policy.status == 200 and b"mode: enforce" in policy.body, policy
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=10) == 0, output.read_text()
    finally:
        demo.kill()
    assert list(tmp_path.iterdir()) == [output], "what it wrote goes with it"
