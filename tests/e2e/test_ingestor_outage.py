"""The role that reads foreign topics dies, in the middle of its work and for ten minutes: on the log that lies in Kafka
nothing is lost and nothing is counted twice, and what it brings late is backlog."""

import datetime
import json
import time

import pytest
from brokers import Broker
from headroom import wait_until

START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
EPOCH = int(START.timestamp())
HOSTS = [f"host-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def broker(component, tmp_path_factory):
    component("kafka")
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


class Roles:
    """A foreign topic, the role that reads it, an aggregator and an API, on one Kafka."""

    def __init__(self, broker, service, folder, prefix):
        self.broker, self.topic = broker, broker.topic(partitions=4)
        self.group = f"group-{self.topic}"
        file = folder / f"{prefix}.yaml"
        source = {"name": "topic", "topics": [self.topic], "group": self.group, "start": "earliest"}
        kafka = {"brokers": [broker.address], "topic_prefix": prefix, "partitions": 2, "replication_factor": 1}
        file.write_text(json.dumps({"log": {"backend": "kafka"}, "kafka": kafka | {"sources": [source]}}))
        self.start = lambda role: service("--role", role, "--config", str(file), "--time", "event")
        roles = ("kafka-ingestor", "aggregator", "health-api")
        self.ingestor, self.aggregator, self.api = (self.start(role) for role in roles)
        self.producer, self.written = broker.producer(), 0

    def write(self, records):
        # Keyed, as counters of a host mostly are: a host is in one partition, in its order.
        for key, value in records:
            self.producer.produce(self.topic, value, key=key)
        assert self.producer.flush(60) == 0
        self.written += len(records)

    def wait_until_read(self):
        done = lambda: sum(max(0, each) for each in self.broker.committed(self.group, self.topic, 4))
        wait_until(lambda: done() == self.written, f"{self.written} records read and committed", 60, every=0.2)

    def tick(self, seconds):
        return tick(self.api, seconds)


def tick(headroom, seconds):
    answer = headroom.advance(START + datetime.timedelta(seconds=seconds))
    assert answer.status == 200, answer


def record(host, second, interval):
    """A delta: counted twice, or not at all, the rate is another."""
    share = (1 + HOSTS.index(host) % 7) / 10
    return json.dumps(
        {
            "server": host,
            "time": EPOCH + second,
            "intervalSeconds": interval,
            "metrics": [
                {"name": "system.cpu.time", "kind": "delta", "value": value, "attributes": {"state": state}}
                for state, value in (("user", interval * share), ("idle", interval - interval * share))
            ],
        }
    )


def round_of(second, interval=10):
    return [(host, record(host, second, interval)) for host in HOSTS]


def signals(headroom):
    """What the windows of every host say."""
    found = headroom.get("/v1/snapshot?cell=default").json()["items"]
    return {item["server"]: [(each["signal"], each["value"]) for each in item["signals"]] for item in found}


def test_an_ingestor_killed_between_produce_and_commit(broker, service, tmp_path):
    killed = Roles(broker, service, tmp_path, "killed")
    oracle = Roles(broker, service, tmp_path, "oracle")
    for step in range(3):
        for roles in (killed, oracle):
            roles.write(round_of(9 + 10 * step))
        # As soon as the first of it is in the log: little of it, or nothing, has been committed by then.
        accepted = lambda: killed.ingestor.metric("headroom_kafka_source_accepted_points_total") or 0
        wait_until(lambda: accepted() > 0, "the first samples", 60, every=0.005)
        killed.ingestor.kill()
        killed.ingestor.start()
    for roles in (killed, oracle):
        roles.wait_until_read()
        roles.tick(30)
    assert set(signals(killed.api)) == set(HOSTS)
    assert killed.api.get("/v1/snapshot?cell=default").json() == oracle.api.get("/v1/snapshot?cell=default").json()


def test_what_ten_minutes_without_an_ingestor_left_is_backlog(broker, service, tmp_path):
    roles = Roles(broker, service, tmp_path, "outage")
    oracle = Roles(broker, service, tmp_path, "in-time")
    for second in range(10, 60, 10):
        for each in (roles, oracle):
            each.write(round_of(second - 1))
            each.wait_until_read()
            each.tick(second)
    roles.ingestor.kill()
    # Time goes on without it, as it does on the wall clock.
    for second in range(60, 660, 10):
        roles.write(round_of(second - 1))
        oracle.write(round_of(second - 1))
    oracle.wait_until_read()
    for each in (roles, oracle):
        each.tick(650)
    assert all(value is None for values in signals(roles.api).values() for _, value in values), "all of it is unknown"
    roles.ingestor.start()
    roles.wait_until_read()
    backlog = lambda: [
        float(line.rsplit(" ", 1)[1])
        for line in roles.aggregator.get("/metrics").body.decode().splitlines()
        if line.startswith("headroom_engine_samples_total") and ('"backlog"' in line or '"late"' in line)
    ]
    for second in range(660, 780, 10):
        for each in (roles, oracle):
            each.write(round_of(second - 1))
            each.wait_until_read()
            each.tick(second)
    # All but what the last tick before it came had not left behind by more than the lateness.
    assert sum(backlog()) >= 2 * len(HOSTS) * 55, backlog()
    assert signals(roles.api) == signals(oracle.api)


def test_a_backlog_read_out_of_order_is_not_late(broker, service, tmp_path):
    """As two members of a group bring it, of which one is slow: the newer half of every host first."""
    topic, now = broker.topic(partitions=2), int(time.time())
    file = tmp_path / "headroom.yaml"
    source = {"name": "topic", "topics": [topic], "group": f"group-{topic}", "start": "earliest"}
    file.write_text(json.dumps({"kafka": {"brokers": [broker.address], "sources": [source]}, "time": {"tick_seconds": 1}}))
    headroom = service("--config", str(file))
    producer = broker.producer()

    def counted(outcome):
        lines = headroom.get("/metrics").body.decode().splitlines()
        wanted = [line for line in lines if line.startswith("headroom_engine_samples_total") and f'outcome="{outcome}"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)

    sent = 0
    for partition, seconds in ((1, range(300, 20, -10)), (0, range(600, 300, -10))):
        for ago in seconds:
            for host in HOSTS[:5]:
                value = record(host, now - ago - EPOCH, 10)
                producer.produce(topic, value, key=host, partition=partition, timestamp=(now - ago) * 1000)
                sent += 2
        assert producer.flush(60) == 0
        wait_until(lambda: counted("backlog") >= sent, f"{sent} samples of the backlog are counted", 60, every=0.2)
    assert (counted("backlog"), counted("late")) == (sent, 0)


def test_a_storm_of_rebalances_loses_nothing_and_counts_nothing_twice(broker, service, tmp_path):
    """Members of the group come at every step while they read, and go: by signal, and without a word."""
    storm = Roles(broker, service, tmp_path, "storm")
    oracle = Roles(broker, service, tmp_path, "calm")
    members = [storm.ingestor]
    for step in range(6):
        for part in range(3):
            for roles in (storm, oracle):
                roles.write(round_of(10 * step + 3 * part + 1, interval=3))
            if part == step % 3:
                members.append(storm.start("kafka-ingestor"))
        if step % 2:
            members.pop(0).stop()
        elif step:
            members.pop(0).kill()
    for roles in (storm, oracle):
        roles.wait_until_read()
        roles.tick(60)
    assert set(signals(storm.api)) == set(HOSTS)
    assert storm.api.get("/v1/snapshot?cell=default").json() == oracle.api.get("/v1/snapshot?cell=default").json()
