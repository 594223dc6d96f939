"""A process that is killed at full load loses nothing that it has acknowledged, and says what it found broken."""

import concurrent.futures
import datetime
import itertools

import otlp
from headroom import wait_until

# Samples carry these times and the clock is moved by hand, so that both services below see the same ticks.
START = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)
EPOCH = int(START.timestamp())
PUSHERS = 4
ACKNOWLEDGED = 300


def body(number):
    """Two samples of one host; which host says which request it came from."""
    message = otlp.request_of(f"crash-{number}", EPOCH + 1, busy_seconds=10, idle_seconds=90, started=EPOCH)
    # Every host has a load of its own, so that a sample in the wrong place shows in the record.
    busy = 10 + 10 * ((number % 97) / 97)
    message.MergeFrom(otlp.request_of(f"crash-{number}", EPOCH + 11, busy_seconds=busy, idle_seconds=110 - busy, started=EPOCH))
    return message.SerializeToString()


def push_until_it_dies(headroom, numbers, acknowledged):
    while True:
        number = next(numbers)
        try:
            answer = headroom.push(body(number))
        except OSError:
            return
        assert answer.status == 200, answer
        acknowledged.append(number)


def killed_while_pushing(headroom):
    numbers, acknowledged = itertools.count(), []
    with concurrent.futures.ThreadPoolExecutor(PUSHERS) as pushers:
        jobs = [pushers.submit(push_until_it_dies, headroom, numbers, acknowledged) for _ in range(PUSHERS)]
        wait_until(lambda: len(acknowledged) >= ACKNOWLEDGED, f"{ACKNOWLEDGED} acknowledged requests", 60)
        headroom.kill()
        for job in jobs:
            job.result()
    return {f"crash-{number}" for number in acknowledged}


def tick(headroom, seconds):
    answer = headroom.advance(START + datetime.timedelta(seconds=seconds))
    assert answer.status == 200, answer
    assert answer.json()["epochs"], answer


def test_kill_loses_nothing_acknowledged(service):
    headroom = service("--time", "event")
    acknowledged = killed_while_pushing(headroom)

    headroom.start()
    tick(headroom, 30)
    found = headroom.servers()
    assert acknowledged <= found, f"lost {sorted(acknowledged - found)[:10]}"
    # A request in flight at the kill may be there or not, but nothing else may.
    assert len(found) <= len(acknowledged) + PUSHERS

    # A service that nobody killed, given the same samples, says the same of every server, to the last digit.
    oracle = service("--time", "event")
    for name in sorted(found):
        assert oracle.push(body(int(name.removeprefix("crash-")))).status == 200
    tick(oracle, 30)
    for name in sorted(found)[::10]:
        assert headroom.server(name) == oracle.server(name)


def test_a_torn_tail_is_cut_and_reported(service):
    headroom = service("--time", "event")
    acknowledged = killed_while_pushing(headroom)
    newest = newest_segment(headroom)
    with newest.open("ab") as log:
        # The beginning of a record whose rest never reached the disk.
        log.write(newest.read_bytes()[-40:-13])

    headroom.start()
    tick(headroom, 30)
    assert acknowledged <= headroom.servers()
    assert headroom.metric("headroom_log_cut_bytes_total") >= 27

    # The cut is real: what is written after it survives the next restart.
    assert headroom.push(otlp.request_of("after-the-cut", EPOCH + 31, started=EPOCH).SerializeToString()).status == 200
    headroom.kill()
    headroom.start()
    tick(headroom, 60)
    assert "after-the-cut" in headroom.servers()


def newest_segment(headroom):
    """The one being written: log/<partition>/<position of its first record>.seg, in the only partition with records."""
    segments = list(headroom.data.glob("log/*/*.seg"))
    assert segments, f"nothing was written to {headroom.data}"
    busiest = max(segments, key=lambda each: each.stat().st_size).parent
    return max(busiest.glob("*.seg"), key=lambda each: int(each.stem))
