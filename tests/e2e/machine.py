"""What the kernel says about this machine, written down while the senders run, to compare the service's answers with."""

import os
import threading
import time

CPU_STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
# Each sender's own view: the Python SDK and Node leave out some states, so their shares are of less than the whole.
DIALECTS = {
    "python": ("user", "system", "idle", "irq"),
    "node": ("user", "nice", "system", "idle", "irq"),
    "collector": CPU_STATES,
}


def cpu_times():
    with open("/proc/stat") as stat:
        ticks = stat.readline().split()[1:9]
    return dict(zip(CPU_STATES, (int(each) / os.sysconf("SC_CLK_TCK") for each in ticks)))


def memory():
    with open("/proc/meminfo") as meminfo:
        return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in meminfo}


def filesystem_used(mountpoint):
    """As the Collector counts: what is reserved for root is neither used nor free to anybody."""
    stat = os.statvfs(mountpoint)
    used, free = stat.f_blocks - stat.f_bfree, stat.f_bavail
    return used / (used + free), used / stat.f_blocks


class Recorder:
    """Samples the counters several times a second, so that any window of a record can be looked up afterwards."""

    def __init__(self):
        self.samples = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def run(self):
        while not self.ended.wait(0.25):
            self.samples.append((time.time(), cpu_times(), memory()))

    def at(self, moment):
        """The first sample not before the moment."""
        return next((sample for sample in self.samples if sample[0] >= moment), self.samples[-1])

    def cpu_busy(self, start, end, states):
        before, after = self.at(start)[1], self.at(end)[1]
        spent = {state: after[state] - before[state] for state in states}
        total = sum(spent.values())
        return 1 - (spent["idle"] + spent.get("iowait", 0)) / total if total > 0 else None

    def memory_used(self, start, end):
        """Smallest and largest share of memory that was not available to new programs."""
        shares = [1 - each["MemAvailable"] / each["MemTotal"] for moment, _, each in self.samples if start <= moment <= end]
        return min(shares), max(shares)
