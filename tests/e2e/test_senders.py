"""Unchanged OpenTelemetry senders push this machine's own counters, and what the service makes of them agrees with what
the kernel says. All run at once against one service, because a minute of data is a minute of waiting."""

import datetime
import itertools

import pytest
from headroom import Headroom, wait_until
from machine import DIALECTS, Recorder, filesystem_used
from senders import SENDERS, Running, available

# Every rule of a default policy that looks at the whole control window has seen it by then.
SETTLED_SECONDS = 40


class Fleet:
    def __init__(self, service, running, recorder, missing):
        self.service = service
        self.running = running
        self.recorder = recorder
        self.missing = missing
        self.first = {}

    def wait_for_first_records(self):
        """All senders at once: otherwise the windows of the first would be empty again when the last one is looked at."""
        for name, sender in SENDERS.items():
            if not self.missing[name]:
                # The Java agent sends its first metrics up to 22 s after its start on a busy machine.
                self.first[name] = wait_until(
                    lambda: self.service.server(host_of(sender)), f"a record of {host_of(sender)}; {self.why(sender)}", 90
                )

    def record(self, sender):
        """The record of the sender's host once its windows are full."""
        if reason := self.missing[sender.name]:
            pytest.skip(reason)
        settled = self.first[sender.name]["epoch"] + SETTLED_SECONDS
        return wait_until(
            lambda: (record := self.service.server(host_of(sender)))["epoch"] >= settled and record,
            f"{SETTLED_SECONDS} s of ticks after the first record of {host_of(sender)}",
            SETTLED_SECONDS + 30,
            every=0.5,
        )

    def why(self, sender):
        return f"the sender said: {self.running.said(sender)[-2000:]}"


def host_of(sender):
    return f"e2e-{sender.name}"


@pytest.fixture(scope="module")
def fleet(component, tmp_path_factory):
    home = tmp_path_factory.mktemp("senders")
    missing = {name: available(component, sender) for name, sender in SENDERS.items()}
    service = Headroom(home / "service", "--tick", "1").start()
    running = Running(service, home)
    with Recorder() as recorder:
        for name, sender in SENDERS.items():
            if not missing[name]:
                running.start(sender, host_of(sender))
        fleet = Fleet(service, running, recorder, missing)
        try:
            fleet.wait_for_first_records()
            yield fleet
        finally:
            running.stop()
            service.stop()


def senders_of(*dialects):
    return [pytest.param(sender, id=name) for name, sender in SENDERS.items() if sender.dialect in dialects]


def signal(record, name):
    found = [each for each in record["signals"] if each["signal"] == name]
    assert found, f"no signal {name}, only {[each['signal'] for each in record['signals']]}"
    assert found[0]["value"] is not None, found[0]
    return found[0]["value"]


@pytest.mark.parametrize("sender", senders_of("python", "node", "collector", "java"))
def test_record(fleet, sender):
    record = fleet.record(sender)
    assert record["server"] == host_of(sender)
    assert record["cell"] == "default"
    as_of = datetime.datetime.fromisoformat(record["asOf"])
    assert as_of.timestamp() == record["epoch"]
    assert datetime.datetime.fromisoformat(record["validUntil"]) > as_of
    assert not record["stale"]
    assert 0 <= record["healthScore"] <= 1
    assert 0 <= record["confidence"] <= 1
    # Sent every second; an answer with the age of a whole window would have come from somewhere else.
    assert 0 <= record["lastSampleAgeSeconds"] < 10
    # The Java agent says nothing of the machine, only of its own process and its requests.
    if sender.dialect != "java":
        assert record["loadState"] in ("underloaded", "normal", "overloaded", "critical"), record
    assert record["mode"] == "observe"
    assert len(record["reasons"]) <= 3
    assert record["signals"]

    classes = [decision["class"] for decision in record["decisions"]]
    assert classes == ["urgent", "customerExpectation", "internalMaintenance", "discretionary"]
    for decision in record["decisions"]:
        assert decision["server"] == host_of(sender)
        assert decision["epoch"] == record["epoch"]
        # Nobody has turned enforcement on, so nothing may hold any work back.
        assert decision["admitFraction"] == 1
        assert 0 <= decision["wouldAdmitFraction"] <= 1
        assert decision["leaseSeconds"] > 0
        assert decision["onExpiry"]["then"] == 1


@pytest.mark.parametrize("sender", senders_of("python", "node", "collector"))
def test_cpu_agrees_with_the_kernel(fleet, sender):
    record = fleet.record(sender)
    busy = signal(record, "cpu_busy")
    # The window ends at the tick less what the sender's interval and the allowed lateness hold back.
    ends = [record["epoch"] - held for held in range(6)]
    truths = [
        fleet.recorder.cpu_busy(end - window, end, DIALECTS[sender.dialect])
        for end, window in itertools.product(ends, (25, 30, 35))
    ]
    assert min(truths) - 0.05 <= busy <= max(truths) + 0.05, (busy, truths)


@pytest.mark.parametrize("sender", senders_of("python", "node", "collector"))
def test_memory_agrees_with_the_kernel(fleet, sender):
    record = fleet.record(sender)
    used = signal(record, "memory_used_share")
    least, most = fleet.recorder.memory_used(record["epoch"] - 40, record["epoch"])
    # No sender of these has MemAvailable itself: they count kernel memory and shared memory in different ways.
    assert 0 < used
    assert least - 0.04 <= used <= most + 0.04, (used, least, most)


@pytest.mark.parametrize("sender", senders_of("collector"))
def test_filesystem_agrees_with_the_kernel(fleet, sender):
    record = fleet.record(sender)
    used = signal(record, "filesystem_full")
    shares = [share for mountpoint in writable_mounts() for share in filesystem_used(mountpoint)]
    assert any(abs(used - share) < 0.01 for share in shares), (used, shares)


def writable_mounts():
    with open("/proc/mounts") as mounts:
        for device, mountpoint, kind, options, *_ in map(str.split, mounts):
            if device.startswith("/dev/") and "rw" in options.split(",") and kind not in ("tmpfs", "overlay"):
                yield mountpoint


@pytest.mark.parametrize("sender", senders_of("java"))
def test_one_in_ten_requests_fails(fleet, sender):
    """HelloHeadroom answers every tenth request with 500, and that is what its error ratio has to be."""
    ratio = signal(fleet.record(sender), "http_error_ratio")
    assert 0.07 < ratio < 0.13, ratio


def test_senders_were_answered_without_a_complaint(fleet):
    """A sender that is told of rejected points says so in its own log: none was, and none had to retry."""
    for name, sender in SENDERS.items():
        if not fleet.missing[name]:
            fleet.record(sender)
            said = fleet.running.said(sender).lower()
            for complaint in ("partial success", "exporting failed", "failed to export", "rejected", "dropping data"):
                assert complaint not in said, fleet.why(sender)
