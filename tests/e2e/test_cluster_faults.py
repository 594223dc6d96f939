"""Parts of a cluster die at load: brokers, aggregators, ingestors. Every snapshot of what was acknowledged before, meanwhile
and after is that of one process to which nothing happened."""

import concurrent.futures
import datetime

import otlp
from cluster import CELLS, EPOCH, START, Cluster, push, run_story, snapshots, tick
from headroom import wait_until

#: Hosts of a cell, each a request of its own.
HOSTS = 40
STEP = 10


def report(cell, host, seconds):
    """What a host did since its last report: counted twice, or not at all, the rate is another."""
    share = (sum(map(ord, cell)) * 7 + host * 13) % 100 / 100
    message = otlp.request_of(
        f"{cell}-{host}",
        EPOCH + seconds - 1,
        busy_seconds=STEP * share,
        idle_seconds=STEP * (1 - share),
        started=EPOCH + seconds - 1 - STEP,
        temporality=otlp.DELTA,
    )
    attribute = message.resource_metrics[0].resource.attributes.add(key="headroom.cell")
    attribute.value.string_value = cell
    return message


def round_of(seconds, hosts=HOSTS):
    return [report(cell, host, seconds) for cell in CELLS for host in range(hosts)]


def deliver(ingestors, body):
    """A sender: what was not acknowledged is sent again, to whoever lives."""

    def taken():
        for ingestor in list(ingestors):
            try:
                answer = ingestor.push(body)
            except OSError:
                continue
            assert answer.status in (200, 503), answer
            if answer.status == 200:
                return True
        return False

    wait_until(taken, "an ingestor takes it", 90)


def deliver_as_one(headroom, messages):
    """For the oracle, to which it makes no difference how samples are batched."""
    whole = otlp.ExportMetricsServiceRequest()
    for message in messages:
        whole.MergeFrom(message)
    answer = headroom.push(whole.SerializeToString())
    assert answer.status == 200, answer


def advance(headroom, seconds):
    moment = START + datetime.timedelta(seconds=seconds)
    wait_until(lambda: headroom.advance(moment).status == 200, f"the clock moves to {seconds}", 90, every=0.2)


def test_kills_at_load_change_no_answer(kafka, service):
    """Aggregators and ingestors die without a word while requests are under way."""
    cluster, oracle = Cluster(service, kafka(), 2, "--time", "event"), service("--time", "event")
    another = lambda: service("--role", "otlp-ingestor", *cluster.shared)
    ingestors = [cluster.ingestor, another()]
    with concurrent.futures.ThreadPoolExecutor(12) as senders:
        for step in range(8):
            seconds = STEP * (step + 1)
            messages = round_of(seconds)
            deliver_as_one(oracle, messages)
            sent = [senders.submit(deliver, ingestors, message.SerializeToString()) for message in messages]
            wait_until(lambda: sum(each.done() for each in sent) > len(sent) / 4, "some are acknowledged", 60, every=0.002)
            if step in (2, 5):
                cluster.aggregators.pop(0).kill()
                assert not all(each.done() for each in sent)
                cluster.add_aggregator()
            if step in (3, 6):
                ingestors.pop(0).kill()
                assert not all(each.done() for each in sent)
                ingestors.append(another())
            for each in sent:
                each.result()
            tick(oracle, seconds)
            advance(cluster.api, seconds)
            assert snapshots(cluster.api) == snapshots(oracle), step


def test_changes_of_leaders_change_no_answer(kafka, service):
    """Two of three brokers are ended and started again one after the other, while samples are acknowledged and snapshots
    published."""
    broker = kafka(3)
    cluster, oracle = Cluster(service, broker, 2, "--time", "event"), service("--time", "event")
    for step in range(5):
        seconds = STEP * (step + 1)
        if step in (1, 3):
            broker.kill(step)
        messages = round_of(seconds, hosts=5)
        for message in messages:
            deliver([cluster.ingestor], message.SerializeToString())
        deliver_as_one(oracle, messages)
        tick(oracle, seconds)
        advance(cluster.api, seconds)
        assert snapshots(cluster.api) == snapshots(oracle), step
        if step in (2, 4):
            broker.start(step - 1)


def test_ten_minutes_without_aggregators_change_no_answer(kafka, service):
    """Ingestors acknowledge for ten minutes of the senders' time what nobody reads; then one comes and reads it all."""
    cluster, oracle = Cluster(service, kafka(), 1, "--time", "event"), service("--time", "event")

    def send(seconds):
        messages = round_of(seconds, hosts=8)
        deliver_as_one(oracle, messages)
        deliver_as_one(cluster.ingestor, messages)

    def both_tick(seconds):
        tick(oracle, seconds)
        advance(cluster.api, seconds)
        assert snapshots(cluster.api) == snapshots(oracle), seconds

    for seconds in range(10, 70, 10):
        send(seconds)
        both_tick(seconds)
    cluster.aggregators.pop().kill()
    for seconds in range(70, 670, 10):
        send(seconds)
    cluster.add_aggregator()
    for seconds in range(670, 730, 10):
        send(seconds)
        both_tick(seconds)


def test_a_storm_of_rebalances_changes_no_answer(kafka, service):
    """Aggregators come and go at every step, by signal and by kill."""
    embedded = service("--time", "event")
    expected = run_story(lambda *args: push(embedded, *args), embedded)
    cluster = Cluster(service, kafka(), 1, "--time", "event")

    def disturb(step):
        newcomer = cluster.add_aggregator()
        if step % 3 == 1:
            cluster.aggregators.pop(0).stop()
        if step % 3 == 2:
            cluster.aggregators.pop(0).kill()
        assert newcomer.running()

    assert run_story(cluster.push, cluster.api, disturb) == expected


