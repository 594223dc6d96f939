"""Fixtures of the end-to-end tests. The executable is the one that `cargo test` has just built."""

import pathlib
import subprocess

import pytest
from headroom import EXECUTABLE, ROOT, Headroom
from kafka import Kafka


def pytest_sessionstart():
    if not EXECUTABLE.exists():
        pytest.exit(f"there is no executable to test: cargo build makes {EXECUTABLE}", returncode=1)


@pytest.fixture(scope="session")
def component():
    """component(NAME) makes sure that a real part is there. Where it cannot be had the test is skipped by its name;
    where our own script is wrong the test fails."""

    def get(name):
        script = ROOT / "tests/components" / name / "install"
        made = subprocess.run([script], capture_output=True, text=True)
        if made.returncode == 77:
            pytest.skip(f"{name} cannot be had: {made.stderr.strip().splitlines()[-1]}")
        assert made.returncode == 0, made.stderr

    return get


@pytest.fixture
def service(tmp_path):
    """service(*options) starts a Headroom of the test's own; a test that leaves it running has it ended by SIGTERM,
    which must end it cleanly every time."""
    running = []

    def start(*options, **more):
        headroom = Headroom(pathlib.Path(tmp_path) / str(len(running)), *options, **more)
        running.append(headroom)
        return headroom.start()

    yield start
    for headroom in running:
        if headroom.running():
            headroom.stop()


@pytest.fixture
def kafka(tmp_path, component):
    """kafka(brokers) starts a Kafka of the test's own; it ends with the test."""
    component("kafka")
    running = []

    def start(brokers=1):
        running.append(Kafka(pathlib.Path(tmp_path) / f"kafka-{len(running)}", brokers))
        return running[-1]

    yield start
    for each in running:
        each.stop()
