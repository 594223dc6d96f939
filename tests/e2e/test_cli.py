"""The words that an operator types, and the exit codes that scripts read: 0 well, 1 problems found, 2 not understood,
3 not reachable, 4 not found."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import termios
import time

import otlp
from headroom import EXECUTABLE, free_ports, wait_until

#: What clears a terminal.
CLEAR = "\x1b[2J"


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
    for words in (["explain", "web-1"], ["top", "--once"], ["top"]):
        code, said = headroom(*words, "--url", f"http://127.0.0.1:{port}")
        assert code == 3, said
        assert "cannot reach" in said and "headroom serve" in said, said


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words):
        self.near, far = pty.openpty()
        termios.tcsetwinsize(far, (40, 160))
        self.process = subprocess.Popen([EXECUTABLE, *words], stdin=far, stdout=far, stderr=far, close_fds=True)
        os.close(far)
        os.set_blocking(self.near, False)
        self.text = ""

    def shows(self, *words, since=0):
        """Whether all of the words have been written from a place in the text on."""
        with contextlib.suppress(BlockingIOError, OSError):
            while more := os.read(self.near, 1 << 16):
                self.text += more.decode(errors="replace")
        assert self.process.poll() is None, self.text
        return all(word in self.text[since:] for word in words)

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self.near)


def test_top_on_a_terminal_follows_the_service_until_it_is_interrupted(service):
    running = service("--tick", "1")
    assert running.push(otlp.request_of("web-1", time.time()).SerializeToString()).status == 200
    wait_until(lambda: running.server("web-1"), "a record of web-1")
    terminal = Terminal("top", "--url", running.api)
    try:
        wait_until(lambda: terminal.shows("SERVER", "web-1"), "the table shows web-1")
        assert "web-2" not in terminal.text
        assert running.push(otlp.request_of("web-2", time.time()).SerializeToString()).status == 200
        wait_until(lambda: terminal.shows("web-1", "web-2"), "the same table shows web-2")
        assert terminal.text.count(CLEAR) >= 2, "each table is written over the one before"
        # A service that restarts is asked again.
        running.stop()
        wait_until(lambda: terminal.shows("cannot reach", "asking again"), "it says what is wrong")
        place = len(terminal.text)
        running.start()
        wait_until(lambda: terminal.shows(CLEAR, "web-1", since=place), "the table is back")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(timeout=5) == 0
    finally:
        terminal.end()


def test_a_service_that_takes_its_time_does_not_keep_who_wants_to_go():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        terminal = Terminal("top", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}")
        try:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1 << 16), "it asks"
                terminal.process.send_signal(signal.SIGINT)
                assert terminal.process.wait(timeout=5) == 0
        finally:
            terminal.end()


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
