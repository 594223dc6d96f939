"""The words that an operator types, and the exit codes that scripts read: 0 well, 1 problems found, 2 not understood,
3 not reachable, 4 not found."""

import subprocess
import time

import otlp
from headroom import EXECUTABLE, free_ports, wait_until


def headroom(*words, cwd=None):
    run = subprocess.run(
        [EXECUTABLE, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, cwd=cwd
    )
    return run.returncode, run.stdout + run.stderr


def test_explain_top_and_doctor_ask_a_running_service(service):
    running = service("--tick", "1")
    assert running.push(otlp.request_of("web-1", time.time()).SerializeToString()).status == 200
    wait_until(lambda: running.server("web-1"), "a record of web-1")

    code, said = headroom("explain", "web-1", "--url", running.api)
    assert code == 0, said
    assert "web-1" in said
    code, said = headroom("explain", "nobody", "--url", running.api)
    assert code == 4, said
    code, said = headroom("top", "--once", "--url", running.api)
    assert code == 0, said
    assert "web-1" in said
    code, said = headroom("doctor", "--url", running.api)
    assert code in (0, 1), said


def test_a_service_that_is_not_there_is_an_exit_code_of_its_own():
    (port,) = free_ports(1)
    code, said = headroom("explain", "web-1", "--url", f"http://127.0.0.1:{port}")
    assert code == 3, said


def test_check_names_the_place_of_a_mistake(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("signals:\n  cpu_busy: {over: 0.9}\n")
    code, said = headroom("check", good, cwd=tmp_path)
    assert code == 0, said

    bad = tmp_path / "bad.yaml"
    bad.write_text("signals:\n  cpu_busy: {ovr: 0.9}\n")
    code, said = headroom("check", bad, cwd=tmp_path)
    assert code == 1, said
    assert "ovr" in said
    assert "2" in said, f"no line number in: {said}"


def test_a_word_that_is_not_understood_is_a_usage_error():
    code, said = headroom("srve")
    assert code == 2, said
    assert "serve" in said
