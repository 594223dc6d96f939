"""Roles apart over a real Kafka: the same answers as in one process, and none lost when a part of it dies."""

import datetime
import time

import otlp
from headroom import wait_until

START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
EPOCH = int(START.timestamp())
CELLS = ["eu-1", "eu-2", "us-1", "ap-1", "sa-1"]
SERVERS = 6


def body(cell, server, seconds):
    """A host of a cell whose one CPU has been busy for a share of its own."""
    share = (sum(map(ord, cell)) * 7 + server * 13) % 100 / 100
    message = otlp.request_of(
        f"{cell}-{server}", EPOCH + seconds, busy_seconds=seconds * share, idle_seconds=seconds * (1 - share), started=EPOCH
    )
    attribute = message.resource_metrics[0].resource.attributes.add(key="headroom.cell")
    attribute.value.string_value = cell
    return message.SerializeToString()


def push(headroom, cell, server, seconds):
    answer = headroom.push(body(cell, server, seconds))
    assert answer.status == 200, answer


def tick(headroom, seconds):
    answer = headroom.advance(START + datetime.timedelta(seconds=seconds))
    assert answer.status == 200, answer
    return answer.json()["epochs"]


class Cluster:
    """The roles apart: one ingestor, some aggregators, two replicas of the API."""

    def __init__(self, service, kafka, aggregators, *options):
        shared = [*kafka.settings(), *options]
        self.ingestor = service("--role", "otlp-ingestor", *shared)
        self.aggregators = [service("--role", "aggregator", *shared) for _ in range(aggregators)]
        self.api, self.replica = (service("--role", "health-api", *shared) for _ in range(2))
        self.service, self.shared = service, shared

    def push(self, *args):
        push(self.ingestor, *args)

    def owned(self, aggregator):
        """How many partitions an aggregator says it owns."""
        body = aggregator.get("/readyz?verbose").body.decode()
        return int(body.split("[+]engines ok: ")[1].split()[0]) if "[+]engines ok: " in body else 0

    def add_aggregator(self):
        self.aggregators.append(self.service("--role", "aggregator", *self.shared))
        return self.aggregators[-1]


def run_story(push, api, between=lambda step: None):
    """Five cells over a minute and a half of event time; answers every cell's snapshot after every step."""
    seen = []
    for step, seconds in enumerate(range(10, 100, 10)):
        for cell in CELLS:
            for server in range(SERVERS):
                if (step + server) % 7:
                    push(cell, server, seconds)
        between(step)
        epochs = tick(api, seconds + 10)
        assert set(epochs) == set(CELLS), epochs
        seen.append(snapshots(api))
    return seen


def snapshots(headroom):
    found = {}
    for cell in CELLS:
        answer = headroom.get(f"/v1/snapshot?cell={cell}")
        assert answer.status == 200, answer
        found[cell] = answer.json()
    return found


def test_a_cluster_answers_as_one_process_does(kafka, service):
    embedded = service("--time", "event")
    expected = run_story(lambda *args: push(embedded, *args), embedded)
    broker = kafka()

    one = service("--time", "event", *broker.settings("one"))
    assert run_story(lambda *args: push(one, *args), one) == expected

    # Two aggregators share the partitions; a third joins and the first dies in the middle of the story.
    cluster = Cluster(service, broker, 2, "--time", "event")
    wait_until(lambda: all(cluster.owned(each) == 2 for each in cluster.aggregators), "both have their share")

    def disturb(step):
        if step == 2:
            cluster.add_aggregator()
        if step == 5:
            cluster.aggregators[0].kill()

    assert run_story(cluster.push, cluster.api, disturb) == expected
    wait_until(lambda: snapshots(cluster.replica) == expected[-1], "the other replica reads the same")
    # What the engines have seen is known without an engine in the process.
    matched = {metric["metric"] for metric in cluster.replica.get("/v1/inputs").json()["matched"]}
    assert "system.cpu.time" in matched


def test_a_killed_aggregator_is_replaced(kafka, service):
    broker = kafka()
    cluster = Cluster(service, broker, 2, "--tick", "1", "--set", "engine.checkpoint_seconds=5")
    names = {f"{cell}-{server}" for cell in CELLS for server in range(SERVERS)}

    def push_all():
        now = int(time.time()) - EPOCH
        for cell in CELLS:
            for server in range(SERVERS):
                cluster.push(cell, server, now)

    def epochs():
        return {item["cell"]: item["epoch"] for item in cluster.api.get("/v1/cells").json()["items"]}

    def everybody_is_there():
        push_all()
        return cluster.api.servers() == names

    wait_until(everybody_is_there, "all servers are scored")
    before = epochs()
    victim = max(cluster.aggregators, key=cluster.owned)
    assert cluster.owned(victim) >= 2
    killed = time.monotonic()
    victim.kill()
    worst = max(before.values())

    def all_go_on():
        push_all()
        # What is read meanwhile never goes back.
        now = epochs()
        assert all(now[cell] >= before[cell] for cell in before), (before, now)
        return min(now.values()) > worst + 3

    wait_until(all_go_on, "every cell has ticks of the new owner", 30)
    took = time.monotonic() - killed
    print(f"takeover of {len(names)} servers: {took:.1f} s after SIGKILL, detection included")
    assert cluster.api.servers() == names
