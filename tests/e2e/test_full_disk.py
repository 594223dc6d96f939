"""A full disk stops what has to be written and nothing else: senders are asked to come back, readers are served."""

import os
import subprocess
import time

import grpc
import otlp
import pytest
from headroom import wait_until
from test_otlp import EXPORT

SIZE_MB = 48


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "headroom-e2e", disk], capture_output=True
    ).returncode == 0
    if not mounted:
        pytest.skip("small disk cannot be had: only root may mount a tmpfs, and not in every container")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def load(host, number):
    """About 100 kB: many points, so that a small disk is soon full."""
    message = otlp.request_of(host, time.time(), busy_seconds=10.0 + number, idle_seconds=90.0 + number)
    sum_of = message.resource_metrics[0].scope_metrics[0].metrics[0].sum
    for cpu in range(600):
        point = sum_of.data_points.add()
        point.CopyFrom(sum_of.data_points[0])
        point.attributes[0].value.string_value = f"cpu{cpu + 1}"
        point.as_double = number + cpu * 0.001
    return message.SerializeToString()


def test_ingest_asks_to_retry_and_reads_go_on(service, small_disk):
    headroom = service("--tick", "1", data=small_disk / "data")
    assert headroom.push(load("steady", 0)).status == 200
    wait_until(lambda: headroom.server("steady"), "a record before the disk is full")

    # Somebody else's file takes all the space that is left.
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(1 << 20))
        except OSError:
            pass

    numbers = iter(range(1, 100_000))
    refused = wait_until(
        lambda: (answer := headroom.push(load("steady", next(numbers)))).status != 200 and answer,
        "an export that the disk has no room for",
        60,
    )
    assert refused.status == 503, refused
    assert int(refused.headers["Retry-After"]) > 0

    with grpc.insecure_channel(headroom.grpc) as channel, pytest.raises(grpc.RpcError) as unavailable:
        while True:
            channel.unary_unary(EXPORT)(load("steady", next(numbers)), timeout=10)
    assert unavailable.value.code() == grpc.StatusCode.UNAVAILABLE, unavailable.value

    assert headroom.server("steady")["server"] == "steady"
    assert headroom.get("/v1/servers").status == 200
    assert headroom.get("/livez").status == 200

    ballast.unlink()
    wait_until(
        lambda: headroom.push(otlp.request_of("later", time.time()).SerializeToString()).status == 200,
        "ingest goes on once there is room",
    )
    wait_until(lambda: headroom.server("later"), "a record of what came after")
