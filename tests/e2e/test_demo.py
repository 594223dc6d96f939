"""The first five minutes: one command, nothing installed, no configuration, no network but loopback."""

import subprocess

from headroom import EXECUTABLE, free_ports


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
