"""Topics that people already have: the Collector's, a team's own counters, Arrow; what is wrong with them, and what
happens to what was read when a process is killed, a group changes or the log is full."""

import datetime
import io
import json
import os
import shutil
import subprocess

import otlp
import pytest
from brokers import Broker
from headroom import CACHE, ROOT, wait_until

START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
EPOCH = int(START.timestamp())


@pytest.fixture(scope="module")
def broker(component, tmp_path_factory):
    component("kafka")
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def reading(service, broker, tmp_path):
    """reading(SOURCE, ..., options) starts a Headroom that reads; each source is a dictionary as in the configuration."""

    def start(*sources, options=("--time", "event"), more=None):
        number = len(list(tmp_path.glob("config-*")))
        file = tmp_path / f"config-{number}.yaml"
        defaults = {"start": "earliest", "group": f"{tmp_path.name}-{number}"}
        kafka = {"brokers": [broker.address], "sources": [defaults | source for source in sources]}
        file.write_text(json.dumps({"kafka": kafka} | (more or {})))
        return service("--config", str(file), *options)

    return start


def tick(headroom, seconds):
    answer = headroom.advance(START + datetime.timedelta(seconds=seconds))
    assert answer.status == 200, answer


def counted(headroom, name, **labels):
    """A counter of one label set; 0 where it does not exist yet."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in headroom.get("/metrics").body.decode().splitlines():
        if line.startswith(name + "{") and all(each in line for each in wanted):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def cpu(host, seconds, busy):
    """OTLP, counter record and Arrow row of the same two counters at the same time."""
    return otlp.request_of(host, EPOCH + seconds, busy_seconds=busy, idle_seconds=100 + seconds - busy, started=EPOCH)


def cpu_record(host, seconds, busy):
    metric = lambda state, value: {
        "name": "system.cpu.time",
        "kind": "counter",
        "unit": "s",
        "value": value,
        "attributes": {"cpu": "cpu0", "state": state},
    }
    states = [metric("user", busy), metric("idle", 100 + seconds - busy)]
    return {"server": host, "time": EPOCH + seconds, "start": EPOCH, "metrics": states}


def cpu_table(samples):
    import pyarrow as pa

    rows = [
        (host, EPOCH + seconds, value, state)
        for host, seconds, busy in samples
        for state, value in (("user", busy), ("idle", 100 + seconds - busy))
    ]
    hosts, times, values, states = zip(*rows)
    count = len(rows)
    table = pa.table(
        {
            "server": pa.array(hosts).dictionary_encode(),
            "metric": pa.array(["system.cpu.time"] * count).dictionary_encode(),
            "kind": pa.array(["counter"] * count).dictionary_encode(),
            "unit": pa.array(["s"] * count),
            "time": pa.array([time * 1000 for time in times], pa.timestamp("ms", "UTC")),
            "start": pa.array([EPOCH] * count, pa.timestamp("s", "UTC")),
            "value": pa.array([float(value) for value in values]),
            "attribute.cpu": pa.array(["cpu0"] * count),
            "attribute.state": pa.array(states),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
def test_the_collectors_topic_is_read_as_it_is(component, broker, reading, tmp_path, encoding):
    component("collector")
    topic, host = broker.topic(partitions=3), f"kafka-{encoding}"
    environment = {
        "HOST_NAME": host,
        "INTERVAL": "1s",
        "KAFKA_BROKER": broker.address,
        "KAFKA_TOPIC": topic,
        "KAFKA_ENCODING": encoding,
    }
    headroom = reading({"name": "otel", "topics": [topic]}, options=("--tick", "1"))
    log = tmp_path / "collector.log"
    with open(log, "wb") as output:
        collector = subprocess.Popen(
            ["timeout", "120", CACHE / "collector/bin/otelcol", "--config", ROOT / "tests/senders/collector-kafka.yaml"],
            stdout=output,
            stderr=output,
            env=os.environ | environment,
        )
    try:
        settled = {"cpu_busy", "memory_used_share"}
        is_scored = lambda record: record["healthScore"] is not None and settled <= {
            signal["signal"] for signal in record["signals"] if signal["status"] == "ok"
        }
        wait_until(
            lambda: (record := headroom.server(host)) and is_scored(record), f"a score of {host}; see {log}", 60
        )
    finally:
        collector.terminate()
        collector.wait(timeout=20)
    assert counted(headroom, "headroom_kafka_source_records_total", source="otel", encoding=encoding) > 0
    assert not headroom.metric("headroom_kafka_source_refused_records_total")


def test_every_encoding_says_what_otlp_says(broker, reading, service):
    topic = broker.topic(partitions=2)
    headroom = reading({"name": "mixed", "topics": [topic]})
    oracle = service("--time", "event")
    hosts = {"proto": 0.1, "json-otlp": 0.2, "record": 0.3, "lines": 0.4, "arrow": 0.5}
    samples = [(host, seconds, 100 + share * seconds) for host, share in hosts.items() for seconds in (1, 11, 21)]
    for sample in samples:
        assert oracle.push(cpu(*sample).SerializeToString()).status == 200
    of = lambda host: [sample for sample in samples if sample[0] == host]
    broker.produce(topic, [cpu(*sample).SerializeToString() for sample in of("proto")])
    broker.produce(topic, [otlp.as_json(cpu(*sample)) for sample in of("json-otlp")])
    record = {"content-type": "application/json"}
    broker.produce(topic, [json.dumps(cpu_record(*sample)) for sample in of("record")], headers=record)
    broker.produce(topic, ["\n".join(json.dumps(cpu_record(*sample)) for sample in of("lines"))])
    broker.produce(topic, [cpu_table(of("arrow"))])
    wait_until(
        lambda: counted(headroom, "headroom_kafka_source_accepted_points_total", source="mixed") == 2 * len(samples),
        "all samples",
    )
    for each in (headroom, oracle):
        tick(each, 30)
    for host in hosts:
        assert headroom.server(host) == oracle.server(host)
    encodings = {"otlp_proto": 3, "otlp_json": 3, "json": 4, "arrow": 1}
    for encoding, records in encodings.items():
        assert counted(headroom, "headroom_kafka_source_records_total", encoding=encoding) == records


def test_kcat_is_a_sender(broker, reading):
    if not shutil.which("kcat"):
        pytest.skip("kcat is not installed")
    topic = broker.topic()
    headroom = reading({"name": "team", "topics": [topic], "encoding": "json", "identity": {"keys": ["{dc}-{box}"]}})
    lines = "".join(
        json.dumps(cpu_record("x", seconds, 50) | {"attributes": {"dc": "ams", "box": 3}}) + "\n" for seconds in (1, 11)
    )
    subprocess.run(["kcat", "-P", "-b", broker.address, "-t", topic], input=lines, text=True, check=True, timeout=60)
    wait_until(lambda: counted(headroom, "headroom_kafka_source_accepted_points_total") == 4, "four samples")
    tick(headroom, 20)
    record = headroom.server("ams-3")
    assert record and headroom.server("x") == record, "the server's own name is an alias of it"


def test_what_cannot_be_used_goes_to_the_dead_letter_topic(broker, reading):
    topic, letters = broker.topic(), broker.topic()
    headroom = reading({"name": "poisoned", "topics": [topic], "dead_letter_topic": letters})
    good = cpu("good", 1, 50).SerializeToString()
    poison = [
        (b"\x0a\xff\xff", "undecodable", "otlp_proto"),
        (b'{"server":"a","gauges":{"m":"1"}}', "undecodable", "json"),
        (b'{"gauges":{"m":1},"time":1}', "no_identity", "json"),
        (b"\xff\xff\xff\xff\x10\x00\x00\x00", "undecodable", "arrow"),
        (b"cpu,host=a value=1", "unknown_encoding", None),
        (otlp.request_of("", EPOCH).SerializeToString(), "no_identity", "otlp_proto"),
    ]
    for value, _, _ in poison:
        broker.produce(topic, [good])
        broker.produce(topic, [value], key=b"the key", headers={"mine": b"kept"})
    broker.produce(topic, [good])
    offset = 1
    for record, (value, reason, encoding) in zip(broker.read(letters, len(poison)), poison, strict=True):
        headers = {key: value.decode() for key, value in record.headers()}
        assert (record.value(), record.key(), headers.pop("mine")) == (value, b"the key", "kept")
        assert headers.pop("headroom.detail"), headers
        assert int(headers.pop("headroom.timestamp")) > 1_000_000_000_000
        expected = {"reason": reason, "source": "poisoned", "topic": topic, "partition": "0", "offset": str(offset)}
        expected |= {"encoding": encoding} if encoding else {}
        assert headers == {f"headroom.{key}": value for key, value in expected.items()}
        offset += 2
    group = json.loads(next(headroom.home.parent.glob("config-0.yaml")).read_text())["kafka"]["sources"][0]["group"]
    end = 2 * len(poison) + 1
    wait_until(lambda: broker.committed(group, topic, 1) == [end], "offsets behind the last record")
    for reason in {reason for _, reason, _ in poison}:
        count = sum(each == reason for _, each, _ in poison)
        assert counted(headroom, "headroom_kafka_source_refused_records_total", reason=reason) == count
    assert counted(headroom, "headroom_kafka_source_dead_letters_total", outcome="written") == len(poison)
    tick(headroom, 10)
    assert headroom.server("good")


def test_without_a_dead_letter_topic_the_bad_are_skipped_and_counted(broker, reading):
    topic = broker.topic()
    headroom = reading({"name": "skipping", "topics": [topic]})
    broker.produce(topic, [b"nonsense"] * 50 + [cpu("good", 1, 50).SerializeToString()])
    wait_until(lambda: counted(headroom, "headroom_kafka_source_accepted_points_total") == 2, "the good samples")
    assert counted(headroom, "headroom_kafka_source_dead_letters_total", outcome="skipped") == 50
    assert headroom.log.read_text().count("cannot be used and is skipped") == 1, "logged once, not fifty times"
    refused = headroom.get("/v1/inputs").json()["refused"]
    assert [(each["senders"], each["samples"]) for each in refused] == [(["kafka source skipping"], 50)], refused


def delta_record(host, number):
    """One of ten parts of an interval of its own; counted twice, or not at all, the rate is another."""
    return json.dumps(
        {
            "server": host,
            "time": EPOCH + 1 + number,
            "intervalSeconds": 1,
            "metrics": [
                {"name": "system.cpu.time", "kind": "delta", "value": value, "attributes": {"state": state}}
                for state, value in (("user", 0.1 + 0.05 * number), ("idle", 0.9 - 0.05 * number))
            ],
        }
    )


def test_killed_between_reading_and_committing_nothing_is_lost_or_counted_twice(broker, reading, service):
    topic, hosts, parts = broker.topic(partitions=4), 200, 10
    headroom = reading({"name": "killed", "topics": [topic]})
    records = [(f"killed-{host}", part) for part in range(parts) for host in range(hosts)]
    third = len(records) // 3
    accepted = lambda: counted(headroom, "headroom_kafka_source_accepted_points_total")
    for round, until in enumerate((third, 2 * third, len(records))):
        broker.produce(topic, [delta_record(*record) for record in records[round * third : until]])
        if round < 2:
            # As soon as the first of it has been read: little of it, or nothing, has been committed by then.
            wait_until(lambda: accepted() > 0, "the first samples", 60, every=0.005)
            headroom.kill()
            headroom.start()
    wait_until(lambda: headroom.metric("headroom_kafka_source_partitions") == 4, "all partitions back", 60)
    group = json.loads(next(headroom.home.parent.glob("config-0.yaml")).read_text())["kafka"]["sources"][0]["group"]
    wait_until(lambda: sum(max(0, each) for each in broker.committed(group, topic, 4)) == len(records), "all offsets", 60)
    oracle = service("--time", "event")
    other = reading({"name": "oracle", "topics": [topic]})
    wait_until(
        lambda: counted(other, "headroom_kafka_source_accepted_points_total") == 2 * len(records), "the oracle's samples", 60
    )
    oracle.stop()
    for each in (headroom, other):
        tick(each, 20)
    assert headroom.servers() == {host for host, _ in records}
    for host in range(hosts):
        assert headroom.server(f"killed-{host}") == other.server(f"killed-{host}")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_ingestors_share_a_topic_and_hand_it_over(broker, reading, protocol):
    topic, partitions = broker.topic(partitions=4), 4
    source = {"name": "shared", "topics": [topic], "group": f"shared-{protocol}", "group_protocol": protocol}
    assigned = lambda each: counted(each, "headroom_kafka_source_partitions", state="assigned")
    one = reading(source)
    wait_until(lambda: assigned(one) == partitions, "all partitions at the first", 60)
    two = reading(source)
    wait_until(lambda: assigned(one) == assigned(two) == partitions / 2, "half of the partitions each", 60)
    hosts = {f"shared-{host}" for host in range(100)}
    broker.produce(topic, [cpu(host, 1, 50).SerializeToString() for host in sorted(hosts)])
    points = lambda: counted(one, "headroom_kafka_source_accepted_points_total") + counted(
        two, "headroom_kafka_source_accepted_points_total"
    )
    wait_until(lambda: points() == 200, "all samples at one of the two, none at both", 60)
    one.stop()
    wait_until(lambda: assigned(two) == partitions, "all partitions at the second", 60)
    before = counted(two, "headroom_kafka_source_accepted_points_total")
    broker.produce(topic, [cpu(host, 11, 50).SerializeToString() for host in sorted(hosts)])
    wait_until(
        lambda: counted(two, "headroom_kafka_source_accepted_points_total") == before + 200,
        "only what is new: the first has committed what it had",
        60,
    )


def test_a_full_log_pauses_the_source_until_there_is_room(broker, reading):
    """Event time stands still, so no checkpoint is made and retention may delete nothing: the log fills up."""
    topic = broker.topic(partitions=2)
    headroom = reading(
        {"name": "waiting", "topics": [topic], "bytes_max": 8 << 20},
        more={
            "log": {"partitions": 1, "bytes_max": 16 << 20, "segment_bytes": 1 << 20, "durability": "written"},
            "engine": {"checkpoint_seconds": 10},
        },
    )
    values = {f"counter_{number}": number for number in range(1000)}
    record = lambda number: json.dumps({"server": f"w-{number % 50}", "time": EPOCH + 1 + number // 50, "gauges": values})
    # Packed as tight as the log packs them, half as many again as it holds.
    count = 2500
    broker.produce(topic, [record(number) for number in range(count)])
    retries = lambda: counted(headroom, "headroom_kafka_source_retried_appends_total", reason="log_full")
    wait_until(lambda: retries() > 0, "the log is full", 60)
    wait_until(lambda: counted(headroom, "headroom_kafka_source_partitions", state="paused") == 2, "a pause", 30)
    assert counted(headroom, "headroom_kafka_source_inflight_bytes") <= 16 << 20
    # Polling goes on: the group keeps the member, whose silence would otherwise be noticed after ten seconds.
    rebalances = lambda: counted(headroom, "headroom_kafka_source_rebalances_total", event="assigned")
    seen = rebalances()
    accepted = lambda: counted(headroom, "headroom_kafka_source_accepted_points_total")
    assert accepted() < count * len(values)
    seconds = 0

    def everything():
        nonlocal seconds
        seconds += 10
        tick(headroom, seconds)
        return accepted() >= count * len(values)

    wait_until(everything, "all samples once the log has room", 90, every=0.2)
    assert (accepted(), rebalances()) == (count * len(values), seen)
    wait_until(lambda: counted(headroom, "headroom_kafka_source_partitions", state="paused") == 0, "no pause", 30)


def test_latest_is_said_once_of_what_is_there_when_the_group_is_new(broker, reading):
    """What comes later, partitions or a topic, is read from its first record, and so is what came while nobody read."""
    from confluent_kafka.admin import NewPartitions

    topic, late = broker.topic(partitions=2), "late-topic"
    of = lambda host, count: [cpu(f"{host}-{number}", 1, 50).SerializeToString() for number in range(count)]
    for partition in (0, 1):
        broker.produce(topic, of("old", 5), partition=partition)
    headroom = reading({"name": "latest", "topics": [topic, late], "start": "latest"})
    accepted = lambda: counted(headroom, "headroom_kafka_source_accepted_points_total", source="latest")
    wait_until(lambda: counted(headroom, "headroom_kafka_source_partitions", state="assigned") == 2, "its partitions")
    broker.produce(topic, of("new", 3), partition=1)
    wait_until(lambda: accepted() == 6, "what is new")
    admin = broker.admin()
    for done in admin.create_partitions([NewPartitions(topic, 4)]).values():
        done.result(timeout=30)
    broker.topic(name=late)
    for name, partition in ((topic, 2), (topic, 3), (late, 0)):
        broker.produce(name, of(f"later-{name}-{partition}", 10), partition=partition)
    wait_until(lambda: accepted() == 66, "all of what came later", 60)
    headroom.stop()
    broker.produce(topic, of("meanwhile", 4), partition=0)
    headroom.start()
    wait_until(lambda: accepted() == 8, "what came meanwhile")
    tick(headroom, 10)
    assert not headroom.server("old-0") and headroom.server(f"later-{late}-0-9") and headroom.server("meanwhile-3")
