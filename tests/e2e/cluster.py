"""Roles apart over a real Kafka, what they are told, and what they answer."""

import datetime

import otlp

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
