"""SIGTERM at any moment is an end in order: code 0, soon, and everything acknowledged is there afterwards."""

import datetime
import pathlib
import signal
import socket
import time

import otlp
from headroom import Headroom, wait_until

START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
EPOCH = int(START.timestamp())
HOSTS = [f"web-{number}" for number in range(50)]

#: Ticks that are taken again after a kill: enough that a signal finds them under way.
TICKS = 5000


def test_while_the_log_is_read_again(service):
    headroom = service("--time", "event", "--tick", "1", "--set", "engine.checkpoint_seconds=3600")
    for host in HOSTS:
        assert headroom.push(otlp.request_of(host, EPOCH + 1, started=EPOCH).SerializeToString()).status == 200
    epochs = headroom.advance(START + datetime.timedelta(seconds=TICKS))
    assert epochs.status == 200, epochs
    headroom.kill()

    headroom.launch()
    wait_until(lambda: recovering(headroom), "it reads its log again", every=0.005)
    asked = time.monotonic()
    headroom.stop()
    assert time.monotonic() - asked < 5

    headroom.start()
    assert set(HOSTS) == headroom.servers()
    after = headroom.advance(START + datetime.timedelta(seconds=TICKS))
    assert after.json() == epochs.json(), "the ticks are those that there were"


def recovering(headroom):
    try:
        answer = headroom.get("/readyz")
    except OSError:
        return False
    assert answer.status == 503, "it was ready before anybody could ask; give it more ticks"
    return True


def test_however_far_it_has_come(service):
    headroom = service("--time", "event", "--tick", "1")
    assert headroom.push(otlp.request_of("web-1", EPOCH + 1, started=EPOCH).SerializeToString()).status == 200
    headroom.stop()
    # Moments, and no conditions: any of them must do.
    for milliseconds in (0, 1, 2, 5, 10, 20, 50, 100):
        headroom.launch()
        wait_until(lambda: listens_for_sigterm(headroom.process.pid), "it listens for SIGTERM", every=0.001)
        time.sleep(milliseconds / 1000)
        headroom.stop()
    headroom.start()
    assert headroom.advance(START + datetime.timedelta(seconds=10)).status == 200
    assert headroom.servers() == {"web-1"}


def listens_for_sigterm(pid):
    """Before that, the kernel ends a process that has done nothing yet."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return int(caught, 16) & 1 << (signal.SIGTERM - 1)


def test_while_the_brokers_are_waited_for(tmp_path):
    """A broker that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = ["--set", "log.backend=kafka", "--set", f"kafka.brokers=127.0.0.1:{silent.getsockname()[1]}"]
        headroom = Headroom(tmp_path, *options)
        headroom.launch()
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            headroom.stop()
