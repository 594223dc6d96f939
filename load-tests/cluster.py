"""Measurements of a cluster: the roles apart over one broker, all of it on the cores of this machine, on the wall clock."""
import contextlib
import json
import os
import pathlib
import re
import signal
import tempfile
import time

from harness import Broker, Headroom, finish, get, lean_policy, load, wait_for

TICK = 10


class Cluster:
    """An ingestor, an API and some aggregators over one broker; one cell, so one aggregator owns everything."""

    def __init__(self, stack, prefix, aggregators=1, settings=()):
        self.stack, broker = stack, stack.enter_context(Broker())
        self.settings = ["log.backend=kafka", f'kafka.brokers=["{broker.address}"]', f"kafka.topic_prefix={prefix}",
                         "kafka.partitions=2", "kafka.replication_factor=1", *settings]
        self.policy = lean_policy(stack.enter_context(tempfile.TemporaryDirectory()))
        self.ingestor, self.api = self.start("otlp-ingestor"), self.start("health-api")
        self.aggregators = [self.start("aggregator") for _ in range(aggregators)]
        self.url = f"http://127.0.0.1:{self.ingestor.otlp}/v1/metrics"

    def start(self, role):
        process = Headroom(time_mode="wall", tick=TICK, role=role, settings=self.settings,
                           policy=self.policy, pinned=False)
        return self.stack.enter_context(process)

    def load(self, servers, points_per_second, seconds, **more):
        """Servers of twenty gauges each."""
        return load("otlp-http", "--url", self.url, "--shape", "lean", "--servers", servers, "--servers-per-request", 500,
                    "--points-per-server", 20, "--rate", points_per_second, "--seconds", seconds, **more)

    def cell(self):
        items = json.loads(get(f"{self.api.api}/v1/cells"))["items"]
        return items[0] if items else None

    def owner(self):
        """The aggregator whose engine has the servers."""
        return max(self.aggregators, key=lambda each: each.metrics().get("headroom_engine_samples_total", 0))

    def wait_for_servers(self, servers, seconds=120):
        def all_known():
            cell = self.cell()
            return cell and cell["servers"] == servers and not cell["stale"] and not cell["loadStates"]["unknown"]
        wait_for(all_known, f"{servers} known servers", seconds, 0.2)


def said(process, pattern):
    """The largest number that a process has logged, by the pattern's group: of the partition with the servers."""
    found = re.findall(pattern, (pathlib.Path(process.directory) / "log").read_text(errors="replace"))
    return max((float(number) for number in found), default=None)


def takeover(servers):
    """SIGKILL of the owner at load; until the API has a snapshot of the next one, and until it knows every server."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, f"takeover-{servers}", aggregators=2)
        child = cluster.load(servers, servers * 2, 150, wait=False)
        cluster.wait_for_servers(servers)
        time.sleep(35)  # past a checkpoint
        victim = cluster.owner()
        heir = next(each for each in cluster.aggregators if each is not victim)
        before, begin = cluster.cell()["epoch"], time.monotonic()
        victim.child.send_signal(signal.SIGKILL)
        # A tick that the victim had asked for counts too: it is the heir that publishes it.
        wait_for(lambda: cluster.cell()["epoch"] > before, "a snapshot of the heir", 120, 0.02)
        first = time.monotonic() - begin
        cluster.wait_for_servers(servers)
        correct = time.monotonic() - begin
        child.terminate()
        child.communicate()
        return {"servers": servers, "firstSnapshotSeconds": first, "allKnownSeconds": correct, "tickSeconds": TICK,
                "restoreSeconds": said(heir, r"restored from a checkpoint[^\n]*\bseconds[=\":]+([0-9.]+)"),
                "checkpointBytes": said(heir, r"restored from a checkpoint[^\n]*\bbytes[=\":]+([0-9]+)"),
                "caughtUpSeconds": said(heir, r"caught up with the log[^\n]*\bseconds[=\":]+([0-9.]+)")}


def measure_takeover():
    return [takeover(servers) for servers in (20_000, 100_000)]


def measure_burst():
    """Ten times the usual load for half a minute; how far the engine falls behind, and until it is not."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, "burst")
        servers, usual = 5_000, 50_000
        child = cluster.load(servers, usual, 30, wait=False)
        cluster.wait_for_servers(servers)
        finish(child)
        engine, lag, ages = cluster.aggregators[0], [], []
        child, begin = cluster.load(servers, usual * 10, 30, wait=False), time.monotonic()
        while child.poll() is None:
            lag.append(engine.metrics().get("headroom_engine_lag_records", 0))
            ages.append(time.time() - cluster.cell()["epoch"])
            time.sleep(0.25)
        sent, ended = finish(child), time.monotonic()
        wait_for(lambda: engine.metrics().get("headroom_engine_lag_records", 1) <= 1, "the engine", 300, 0.1)
        return {"usualPointsPerSecond": usual, "sent": sent, "seconds": ended - begin, "lagRecordsMax": max(lag),
                "snapshotAgeSecondsMax": max(ages), "drainedSecondsAfter": time.monotonic() - ended}


def measure_outage(seconds=int(os.environ.get("OUTAGE_SECONDS", "600"))):
    """Aggregators away for ten minutes while everybody reports; then one comes."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, "outage")
        servers, rate = 5_000, 50_000
        child = cluster.load(servers, rate, seconds + 240, wait=False)
        cluster.wait_for_servers(servers)
        cluster.aggregators.pop().child.send_signal(signal.SIGKILL)
        before = cluster.cell()["epoch"]
        time.sleep(seconds)
        begin = time.monotonic()
        heir = cluster.start("aggregator")
        wait_for(lambda: cluster.cell()["epoch"] > before + seconds / 2, "a present snapshot", 300, 0.05)
        first = time.monotonic() - begin
        cluster.wait_for_servers(servers)
        known = time.monotonic() - begin
        passed_over = heir.metrics().get("headroom_engine_backlog_records", 0)
        wait_for(lambda: heir.metrics().get("headroom_engine_backlog_records") == 0, "the backlog", 600, 0.1)
        drained = time.monotonic() - begin
        wait_for(lambda: heir.metrics().get("headroom_engine_samples_total[backlog]"), "a tick that counts it", 60, 0.5)
        time.sleep(TICK + 1)
        child.terminate()
        child.communicate()
        return {"outageSeconds": seconds, "pointsPerSecond": rate, "firstSnapshotSeconds": first, "allKnownSeconds": known,
                "drainedSeconds": drained, "backlogRecordsWhenKnown": passed_over,
                "backlogSamples": heir.metrics().get("headroom_engine_samples_total[backlog]"), "cpuSeconds": heir.cpu()}
