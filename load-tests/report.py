#!/usr/bin/env python3
"""Makes the readable report from the figures: report.py reports/<date>.json writes reports/<date>.md beside it."""
import json
import pathlib
import sys

def million(value):
    return f"{value / 1e6:.2f} M"


def mebi(value):
    return f"{value / 2**20:.0f} MiB"


def far(value, bar, more=True):
    """How far a figure is from its bar."""
    if value is None or value != value:
        return "–"
    good = value >= bar if more else value <= bar
    ratio = value / bar if more else bar / value
    return f"met ({ratio:.2f}×)" if good else f"**missed: {ratio:.0%} of the bar**"


def table(rows, head):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def of(report, name):
    entry = report.get(name, {}).get("result")
    return None if entry is None or (isinstance(entry, dict) and ({"error", "skipped", "missing"} & set(entry))) else entry


def bars(report):
    rows = []
    best = {}
    for run in of(report, "otlp") or []:
        best.setdefault((run["transport"], run["durability"]), run["pointsPerCpuSecond"])
    versus = of(report, "versus")
    for transport, bar in (("http", 5e6), ("grpc", 3.5e6)):
        for durability in ("synced", "written"):
            value = best.get((transport, durability))
            if durability == "synced" and versus:
                value = versus["headroom" if transport == "http" else "headroomGrpc"]
            if value:
                rows.append((f"OTLP/{'HTTP' if transport == 'http' else 'gRPC'} end to end, log {durability}",
                             f"≥ {bar / 1e6:g} M points/CPU-s", f"{million(value)}", far(value, bar)))
    if versus:
        rows.append(("end to end ÷ VictoriaMetrics stream aggregation, in turn, median of 3", "≥ 10 (OTLP → windows)",
                     f"{versus['ratio']:.1f}", far(versus["ratio"], 10)))
    for run in of(report, "kafka") or []:
        if run["durability"] != "synced":
            continue
        key, unit, bar = {"otlp_proto": ("pointsPerCpuSecond", "points", 5e6), "arrow": ("pointsPerCpuSecond", "points", 25e6),
                          "json": ("recordsPerCpuSecond", "records of 20 counters", 400e3)}[run["encoding"]]
        rows.append((f"Kafka, {run['encoding']}, end to end, log synced", f"≥ {bar / 1e6:g} M {unit}/CPU-s",
                     million(run[key]), far(run[key], bar)))
    tick = of(report, "tick")
    if tick:
        rows.append(("tick, 100 k servers × 20 signals, CPU", "≤ 40 ms", f"{tick['cpuSecondsMedian'] * 1e3:.0f} ms",
                     far(tick["cpuSecondsMedian"], 0.040, False)))
        rows.append(("state per server and signal, 100 k servers (resident, all in)", "≤ 300 B",
                     f"{tick['bytesPerServerSignal']:.0f} B", far(tick["bytesPerServerSignal"], 300, False)))
    million_tick = of(report, "tick-million")
    if million_tick:
        rows.append(("tick, 1 M servers × 20 signals, CPU", "≤ 400 ms", f"{million_tick['cpuSecondsMedian'] * 1e3:.0f} ms",
                     far(million_tick["cpuSecondsMedian"], 0.4, False)))
        rows.append(("tick, 1 M servers: advanced → readable, slowest", "p99 ≤ 1 s",
                     f"{million_tick['visibleSecondsMax']:.2f} s", far(million_tick["visibleSecondsMax"], 1.0, False)))
        rows.append(("state per server and signal, 1 M servers", "≤ 300 B", f"{million_tick['bytesPerServerSignal']:.0f} B",
                     far(million_tick["bytesPerServerSignal"], 300, False)))
    reads = of(report, "reads")
    if reads:
        most = reads.get("at the most, no ingest")
        if most:
            rows.append(("point reads, no ingest", "≥ 80 k per CPU-s", f"{most['readsPerCpuSecond'] / 1e3:.1f} k",
                         far(most["readsPerCpuSecond"], 80e3)))
        for name, entry in reads.items():
            if isinstance(entry, dict) and "beside" in name and "20,000/s" in name:
                rows.append((f"point reads, {name}: p99", "< 1 ms", f"{entry['latency']['p99Ms']:.2f} ms",
                             far(entry["latency"]["p99Ms"], 1.0, False)))
    watch = of(report, "watch")
    if watch:
        p99 = watch["sentToPushed"]["p99Ms"]
        rows.append(("sample in → decision pushed, tick of 1 s, slowest of 40", "≤ 1,100 ms", f"{p99:.0f} ms",
                     far(p99, 1100, False)))
    crash = of(report, "crash")
    if crash:
        rows.append(("kill -9 at load: first read answered", "< 1 s", f"{crash['firstReadSeconds']:.2f} s",
                     far(crash["firstReadSeconds"], 1.0, False)))
        rows.append(("kill -9 at load: caught up, not stale", "< 15 s", f"{crash['notStaleSeconds']:.1f} s",
                     far(crash["notStaleSeconds"], 15.0, False)))
    return table(rows, ("What", "Bar", "Measured", "")) if rows else ""


def throughput(report):
    rows = []
    for run in of(report, "otlp") or []:
        read = run["outcomes"].get("accepted", 0) / max(1, run["samplesCounted"] or 1)
        rows.append((f"Headroom, {run['transport']}, {run['durability']}", million(run["pointsPerCpuSecond"]),
                     million(run["pointsPerSecond"]), million(run["points"]), mebi(run["rssBytes"]),
                     f"{run['ticks']:.0f} ticks; {read:.0%} of the points feed an input; refused for now {run['refusedForNow']}"))
    wall = of(report, "wall")
    if wall:
        rows.append(("Headroom, http, synced, wall clock, tick 1 s, 20,000 servers", million(wall["pointsPerCpuSecond"]),
                     million(wall["pointsPerSecond"]), million(wall["points"]), mebi(wall["rssBytes"]),
                     f"{wall['ticks']:.0f} ticks of both partitions; refused for now {wall['refusedForNow']}"))
    for run in of(report, "peers") or []:
        if run.get("missing"):
            rows.append((run["peer"], "not built", "", "", "", ""))
            continue
        note = ", ".join(f"{name} {value / 1e6:.2f} M" for name, value in run.get("peerCounts", {}).items())
        rows.append((f"{run['peer']}, {run['transport']}", million(run["pointsPerCpuSecond"]), million(run["pointsPerSecond"]),
                     million(run["points"]), mebi(run["rssBytes"]), note))
    return table(rows, ("Server", "points per CPU-s", "points/s (one core)", "points", "resident", "")) if rows else ""


def kafka(report):
    rows = []
    for run in of(report, "kafka") or []:
        rows.append((f"{run['encoding']}, log {run['durability']}", million(run["pointsPerCpuSecond"]),
                     f"{run['recordsPerCpuSecond'] / 1e3:.0f} k", f"{run['bytesPerRecord']:.0f} B", million(run["points"]),
                     f"{run['wallSeconds']:.1f} s", mebi(run["peakRssBytes"]),
                     ", ".join(f"{name} {value / 1e6:.2f} M" for name, value in run["outcomes"].items())))
    head = ("Records", "points per CPU-s", "records per CPU-s", "a record", "points", "wall", "peak memory", "in the engine")
    return table(rows, head) if rows else ""


def cluster(report):
    rows = []
    for run in of(report, "takeover") or []:
        rows.append((f"SIGKILL of the owner of {run['servers']:,} servers × 20 at load, tick {run['tickSeconds']} s",
                     f"first snapshot of the heir after {run['firstSnapshotSeconds']:.1f} s, every server known after "
                     f"{run['allKnownSeconds']:.1f} s; of that restoring {int(run['checkpointBytes'] or 0) >> 20} MiB "
                     f"{float(run['restoreSeconds'] or 0):.2f} s, claim to caught up {float(run['caughtUpSeconds'] or 0):.2f} s"))
    burst = of(report, "burst")
    if burst:
        rows.append((f"ten times {burst['usualPointsPerSecond']:,} points/s for {burst['seconds']:.0f} s",
                     f"{million(burst['sent']['points'])} points taken; lag at most {burst['lagRecordsMax']:.0f} records, newest "
                     f"snapshot at most {burst['snapshotAgeSecondsMax']:.1f} s old, no lag {burst['drainedSecondsAfter']:.1f} s after"))
    outage = of(report, "outage")
    if outage:
        rows.append((f"no aggregator for {outage['outageSeconds']} s at {outage['pointsPerSecond']:,} points/s, then one",
                     f"first present snapshot after {outage['firstSnapshotSeconds']:.1f} s, every server known after "
                     f"{outage['allKnownSeconds']:.1f} s, backlog taken up after {outage['drainedSeconds']:.1f} s: "
                     f"{million(outage['backlogSamples'] or 0)} samples, {outage['cpuSeconds']:.1f} CPU-s in all"))
    return table(rows, ("What", "Measured")) if rows else ""


def versus(report):
    entry = of(report, "versus")
    if not entry:
        return ""
    rows = [(at + 1, million(run["headroom"]), million(run["headroomGrpc"]), million(run["victoriaMetricsAggregation"]),
             f"{run['ratio']:.1f}") for at, run in enumerate(entry["rounds"])]
    return table(rows, ("Turn", "Headroom HTTP, synced", "Headroom gRPC, synced", "VictoriaMetrics stream aggregation", "ratio"))


def ticks(report):
    rows = []
    for name in ("tick", "tick-million"):
        entry = of(report, name)
        if not entry:
            continue
        for at, tick in enumerate(entry["ticks"]):
            rows.append((f"{entry['servers']:,}", at + 1, f"{tick['cpuSeconds'] * 1e3:.0f} ms",
                         f"{tick['tickDurationSeconds'] * 1e3:.0f} ms", f"{tick['visibleSeconds'] * 1e3:.0f} ms",
                         mebi(tick["rssBytes"])))
        rows.append((f"{entry['servers']:,}", "at rest", "", "", "",
                     f"{mebi(entry['rssBytes'])}, of it idle {mebi(entry['idleRssBytes'])}, log's tail cache "
                     f"{mebi(entry['logTailBytes'] or 0)}; highest {mebi(entry['peakRssBytes'])}"))
    return table(rows, ("Servers × 20", "Tick", "CPU until at rest", "tick duration (own metric)", "advance → readable",
                        "resident")) if rows else ""


def reading(report):
    rows = []
    for name, entry in (of(report, "reads") or {}).items():
        if isinstance(entry, dict):
            latency = entry["latency"]
            rows.append((name, f"{entry['readsPerSecond']:,.0f}", f"{entry['readsPerCpuSecond']:,.0f}", f"{latency['p50Ms']:.2f}",
                         f"{latency['p99Ms']:.2f}", f"{latency['maxMs']:.1f}", entry["readsFailed"],
                         f"{entry['ingest']['pointsPerSecond']:,.0f}" if "ingest" in entry else "0"))
    return table(rows, ("Reads", "reads/s", "reads per CPU-s, rest taken off", "p50 ms", "p99 ms", "max ms", "failed",
                        "points/s beside")) if rows else ""


def rest(report):
    rows = []
    watch, crash, start = of(report, "watch"), of(report, "crash"), of(report, "start")
    if watch:
        rows.append(("sample sent → decision pushed (ms)", ", ".join(f"{key[:-2]} {value:.0f}" for key, value in
                     watch["sentToPushed"].items() if key.endswith("Ms")) + f"; lost {watch['lost']} of {watch['probes']}"))
        rows.append(("sample sent → acknowledged, synced (ms)", ", ".join(f"{key[:-2]} {value:.1f}" for key, value in
                     watch["sentToAcknowledged"].items() if key.endswith("Ms"))))
    if crash:
        rows.append(("kill -9 after 40 s at load", f"{million(crash['pointsAcknowledged'])} points acknowledged, "
                     f"{mebi(crash['dataBytes'])} in the data directory, {crash['cutBytes'] or 0:.0f} bytes of torn tail cut"))
        if "checkpointsBefore" in crash:
            rows.append(("before it", f"{crash['checkpointsBefore']:.0f} checkpoints, {crash['checkpointSecondsBefore']:.1f} s in "
                         f"writing them, the newest of {mebi(crash['checkpointBytesBefore'])}; the engine "
                         f"{crash['lagRecordsBefore']:.0f} records behind; {crash['refusedBehind']:.0f} requests told to come again"))
            rows.append(("read again", f"{million(crash['samplesReplayed'])} points"))
        rows.append(("started again", f"first answer after {crash['firstReadSeconds']:.2f} s (stale: {crash['firstReadStale']}), "
                     f"ready {crash['readySeconds']:.2f} s, not stale {crash['notStaleSeconds']:.2f} s, "
                     f"{crash['recoveryCpuSeconds']:.1f} CPU-s"))
    if start:
        rows.append(("start to ready, empty data directory", f"median {start['startSecondsMedian'] * 1e3:.0f} ms, slowest of 5 "
                     f"{start['startSecondsMax'] * 1e3:.0f} ms"))
        rows.append(("idle", f"{mebi(start['idleRssBytes'])} resident"))
        rows.append(("executable", f"{start['binaryBytes'] / 1e6:.1f} MB"))
    return table(rows, ("What", "Measured")) if rows else ""


def main():
    path = pathlib.Path(sys.argv[1])
    report = json.loads(path.read_text())
    notes = path.with_suffix(".notes.md")
    parts = [f"# Load report of {path.stem}", "", notes.read_text().strip() if notes.exists() else "", ""]
    sections = (("Bars", bars), ("Throughput", throughput), ("Kafka, a backlog read to its end", kafka),
                ("A cluster on the cores of this machine, broker and load included", cluster),
                ("In turn with the nearest peer", versus), ("Ticks and memory", ticks),
                ("Point reads", reading), ("Push, crash, start", rest))
    for title, section in sections:
        text = section(report)
        if text:
            parts += [f"## {title}", "", text, ""]
    kernels = of(report, "kernels")
    if kernels:
        parts += ["## Kernels alone", "", "No socket, log or other thread: they explain, and are not the product's figures.", ""]
        for name, text in kernels.items():
            parts += [f"`{name}`", "", "```", text, "```", ""]
    failed = [(name, entry["result"]) for name, entry in report.items() if isinstance(entry, dict)
              and isinstance(entry.get("result"), dict) and ({"error", "skipped", "missing"} & set(entry["result"]))]
    if failed:
        parts += ["## Not measured", "", table([(name, json.dumps(result)) for name, result in failed], ("What", "Why")), ""]
    path.with_suffix(".md").write_text("\n".join(parts).rstrip() + "\n")


if __name__ == "__main__":
    main()
