"""Everybody who reads the log dies while it is filled: the present does not wait for what was missed, and none of it is
lost."""

import datetime
import os
import time

import otlp
from headroom import wait_until

HOSTS = [f"web-{number}" for number in range(20)]
#: Two ticks longer than a lease of this policy.
LEASE = 6
POLICY = f"lease:\n  lease_seconds: {LEASE}\n  refresh_seconds: 1\n"


def push(headroom):
    """Everybody reports once; answers how many samples were acknowledged. Only what may be tried again is refused."""
    now, acknowledged = time.time(), 0
    for host in HOSTS:
        message = otlp.request_of(host, now, busy_seconds=now % 10_000 * 0.2, idle_seconds=now % 10_000 * 0.8)
        answer = headroom.push(message.SerializeToString())
        assert answer.status in (200, 503), answer
        acknowledged += otlp.points(message) if answer.status == 200 else 0
    return acknowledged


def test_decisions_do_not_wait_for_a_backlog(kafka, service, tmp_path):
    broker = kafka()
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    # One partition, and records of one host each: what is passed over is counted in records.
    shared = [*broker.settings(partitions=1), "--tick", "1", "--policy", str(policy)]
    ingestor = service("--role", "otlp-ingestor", *shared)
    api = service("--role", "health-api", *shared)
    replica = service("--role", "health-api", *shared)
    aggregator = service("--role", "aggregator", *shared)
    sent = 0

    def push_all():
        nonlocal sent
        taken = push(ingestor)
        assert taken == 2 * len(HOSTS), taken
        sent += taken

    def all_scored():
        push_all()
        return api.servers() == set(HOSTS)

    wait_until(all_scored, "all hosts are scored", every=0.5)
    aggregator.kill()
    before, sent = sent, 0
    last = api.get("/v1/cells").json()["items"][0]["epoch"]

    def is_long_enough():
        push_all()
        return time.time() > last + LEASE + 3

    wait_until(is_long_enough, "nobody has decided anything for longer than a lease", every=0.2)
    missed, sent = sent, 0
    # The kill switch works with no engine alive, in every replica.
    answer = api.post("/v1/mode", {"mode": "off", "owner": "test", "reason": "an outage"})
    assert answer.status == 202, answer
    wait_until(lambda: replica.get("/v1/cells").json()["items"][0]["killSwitch"], "the other replica obeys")
    late = service("--role", "health-api", *shared)
    assert late.get("/v1/cells").json()["items"][0]["killSwitch"], "so does one that starts afterwards"

    successor = service("--role", "aggregator", *shared)
    wait_until(lambda: api.get("/v1/cells").json()["items"][0]["epoch"] > last, "a present tick is there")
    assert "going on with the present" in successor.log.read_text()
    # What was set while nobody read is in force from the first tick on.
    assert {item["mode"] for item in api.get("/v1/decisions?limit=1000").json()["items"]} == {"off"}
    wait_until(lambda: successor.metric("headroom_engine_backlog_records") == 0, "the backlog is taken up")

    def all_counted():
        lines = successor.get("/metrics").body.decode().splitlines()
        counted = [line for line in lines if line.startswith("headroom_engine_samples_total") and 'outcome="backlog"' in line]
        # What was sent between the last tick and the kill is in it too.
        return counted and missed <= float(counted[0].rsplit(" ", 1)[1]) <= missed + before

    wait_until(all_counted, "the missed samples count as backlog, each once")
    assert successor.metric("headroom_engine_failures_total") in (None, 0)

    def all_known():
        push_all()
        return all(api.server(host)["loadState"] != "unknown" for host in HOSTS)

    wait_until(all_known, "every host is known again", every=0.5)


#: Seconds for which brokers are away: longer than a transaction may take, so that what was under way can never end.
AWAY = int(os.environ.get("HEADROOM_OUTAGE_SECONDS", "75"))


class OnEventTime:
    """The same hosts on the senders' time: ten minutes of it pass while the brokers are away, however long that is here."""

    START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)

    def __init__(self, subject, oracle):
        self.subject, self.oracle = subject, oracle

    def request(self, seconds):
        """Deltas: counted twice, or not at all, the rate is another."""
        whole, epoch = otlp.ExportMetricsServiceRequest(), int(self.START.timestamp())
        for number, host in enumerate(HOSTS):
            busy, until = 10 * number / len(HOSTS), epoch + seconds - 1
            whole.MergeFrom(otlp.request_of(host, until, busy, 10 - busy, until - 10, otlp.DELTA))
        return whole.SerializeToString()

    def send(self, seconds):
        """As senders do, until it is acknowledged."""
        body = self.request(seconds)
        assert self.oracle.push(body).status == 200
        wait_until(lambda: self.subject.push(body).status == 200, "samples are taken", 90, every=0.2)

    def tick(self, seconds):
        moment = self.START + datetime.timedelta(seconds=seconds)
        assert self.oracle.advance(moment).status == 200
        wait_until(lambda: self.subject.advance(moment).status == 200, "the clock moves", 90, every=0.2)
        mine, theirs = (each.get("/v1/snapshot?cell=default").json() for each in (self.subject, self.oracle))
        assert mine == theirs, seconds


def test_brokers_that_were_away_are_waited_for(kafka, service):
    """What was under way when they went can never end, and everybody goes on all the same; what senders kept meanwhile
    gives what it would have given in time."""
    broker = kafka()
    shared = [*broker.settings(partitions=2), "--tick", "1"]
    one = service(*shared, "--set", "engine.checkpoint_seconds=2")
    story = OnEventTime(service("--time", "event", *broker.settings("event", partitions=2)), service("--time", "event"))
    for seconds in range(10, 60, 10):
        story.send(seconds)
        story.tick(seconds)

    def push_all():
        push(one)
        return True

    epoch = lambda: one.get("/v1/cells").json()["items"][0]["epoch"]
    wait_until(lambda: push_all() and one.servers() == set(HOSTS), "all hosts are scored", every=0.5)
    broker.kill(1)
    away = time.monotonic()
    # Nothing is acknowledged that is not with the brokers.
    assert story.subject.push(story.request(60)).status == 503

    def long_enough():
        # Probes and metrics must not wait for brokers, or whoever watches them ends the process.
        asked = time.monotonic()
        assert one.get("/livez").status == 200 and one.get("/metrics").status == 200
        assert time.monotonic() - asked < 5
        return time.monotonic() - away > AWAY

    wait_until(long_enough, "the brokers were away for longer than a transaction", AWAY + 15, every=1)
    before = epoch()
    assert one.get("/v1/cells").json()["items"][0]["stale"]
    broker.start(1)
    wait_until(lambda: epoch() > before, "decisions are published again", 60, every=0.5)
    wait_until(lambda: push_all() and epoch() > time.time() - 5, "and go on", 60, every=0.5)
    wait_until(lambda: push_all() and one.metric("headroom_engine_lag_records") <= 1, "the engine has read all", 60, every=0.5)

    def all_fresh():
        push_all()
        found = [one.server(host) for host in HOSTS]
        return all(not record["stale"] and record["lastSampleAgeSeconds"] < 5 for record in found)

    wait_until(all_fresh, "what every host reports now is seen", 60, every=0.5)
    assert one.metric("headroom_engine_failures_total") in (None, 0)

    for seconds in range(60, 660, 10):
        story.send(seconds)
    for seconds in range(660, 720, 10):
        story.send(seconds)
        story.tick(seconds)
