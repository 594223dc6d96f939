"""Roles apart over a real Kafka: the same answers as in one process, and none lost when a part of it dies."""

import datetime
import json
import os
import time

import pytest
from cluster import CELLS, EPOCH, SERVERS, START, Cluster, push, run_story, snapshots
from headroom import ROOT, wait_until
from kafka import Kafka
from scenario import SCENARIOS, Script, play


def test_a_cluster_answers_as_one_process_does(kafka, service):
    embedded = service("--time", "event")
    expected = run_story(lambda *args: push(embedded, *args), embedded)
    broker = kafka()

    one = service("--time", "event", *broker.settings("one"))
    assert run_story(lambda *args: push(one, *args), one) == expected

    # Two aggregators share the partitions; a third joins and the first dies in the middle of the story.
    cluster = Cluster(service, broker, 2, "--time", "event")
    wait_until(lambda: all(cluster.owned(each) == 2 for each in cluster.aggregators), "both have their share")
    for without_api in (cluster.ingestor, cluster.aggregators[0]):
        for answer, status in ((without_api.get("/v1/cells"), 404), (without_api.post("/livez", {}), 405)):
            assert answer.status == status, answer
            assert answer.headers["Content-Type"] == "application/problem+json", answer

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


@pytest.fixture(scope="module")
def shared_broker(component, tmp_path_factory):
    """One broker for tests whose topics have prefixes of their own."""
    component("kafka")
    broker = Kafka(tmp_path_factory.mktemp("shared"))
    yield broker
    broker.stop()


#: On a cluster a tick takes a third of a second, so only scenarios that are short are played unless all are asked for.
TICKS = 1_000 if os.environ.get("HEADROOM_SCENARIOS") == "all" else 30


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_a_cluster_publishes_what_the_engine_computes(shared_broker, service, tmp_path, file):
    """Every scenario: with one aggregator, then with three, then with the last to come alone. In one scenario of four the
    first goes without a word, which its group notices after six seconds."""
    script = Script(file)
    ticks = sum("tick" in step for step in script.steps)
    if ticks > TICKS:
        pytest.skip(f"{file.stem} has {ticks} ticks; HEADROOM_SCENARIOS=all plays it on a cluster too")
    settings = shared_broker.settings(file.stem.replace("_", "-"), partitions=3)
    cluster = Cluster(service, type("", (), {"settings": lambda self: settings})(), 1, *script.options(tmp_path))

    def rescale(tick):
        if tick == ticks // 3:
            cluster.add_aggregator()
            cluster.add_aggregator()
        if tick == 2 * ticks // 3:
            # All that the first had is another's now, wherever the scenario's cells lie.
            first, second, _ = cluster.aggregators
            if SCENARIOS.index(file) % 4 == 0:
                first.kill()
            else:
                first.stop()
            second.stop()

    assert play(script, cluster.api.api, [cluster.ingestor.otlp], rescale) > 0


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


def test_a_command_may_be_the_first_record_of_all(kafka, service):
    """Whoever comes first to a log puts a policy in front, for an engine without one can place no sample."""
    shared = [*kafka().settings(), "--time", "event"]
    api = service("--role", "health-api", *shared)
    answer = api.post("/v1/mode", {"mode": "observe", "owner": "operator", "reason": "a test"})
    assert answer.status == 202, answer
    ingestor = service("--role", "otlp-ingestor", *shared)
    for seconds in (1, 11):
        push(ingestor, "eu-1", 0, seconds)
    service("--role", "aggregator", *shared)
    wait_until(lambda: api.advance(START + datetime.timedelta(seconds=20)).status == 200, "the clock moves", 60)
    assert wait_until(lambda: api.server("eu-1-0"), "the server is scored", 30)


def test_every_replica_tells_the_policy_of_the_aggregators(kafka, service, tmp_path):
    shared = [*kafka().settings(), "--time", "event"]
    own = tmp_path / "policy.yaml"
    own.write_text("windows: {lateness_seconds: 7}\n")
    api = service("--role", "health-api", *shared)
    shipped = api.get("/v1/policy").body
    ingestor = service("--role", "otlp-ingestor", *shared)
    aggregator = service("--role", "aggregator", *shared, "--policy", str(own))
    for seconds in (1, 11):
        push(ingestor, "eu-1", 0, seconds)
    wait_until(lambda: api.advance(START + datetime.timedelta(seconds=20)).status == 200, "the clock moves", 60)
    wait_until(lambda: api.get("/v1/policy").body != shipped, "the aggregators' policy")
    assert b"lateness_seconds: 7" in api.get("/v1/policy").body
    assert aggregator.running()


def test_changed_decisions_are_events(kafka, service):
    """What a consumer of the topic reads is what the API says."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    schema = jsonschema_rs.validator_for(json.loads((ROOT / "schemas/decision-event.schema.json").read_text()))
    broker = kafka()
    one = service("--time", "event", *broker.settings())
    run_story(lambda *args: push(one, *args), one)
    decisions = {
        (item["server"], item["class"]): item for item in one.get("/v1/decisions?limit=1000").json()["items"]
    }
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": ",".join(broker.addresses), "group.id": "test", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["headroom.decisions"])
    told = {}

    def all_told():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            event = json.loads(message.value())
            schema.validate(event)
            assert message.key().decode() == event["server"]
            told[event["server"], event["class"]] = event
        return told.keys() == decisions.keys()

    wait_until(all_told, "every decision was told")
    consumer.close()
    for key, event in told.items():
        assert event.keys() == decisions[key].keys()
        assert event["epoch"] <= decisions[key]["epoch"]
