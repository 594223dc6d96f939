"""Drives a running service through a scenario: posts what happens, reads what is published, compares with the engine."""

import datetime
import json
import pathlib
import subprocess

from headroom import EXECUTABLE, JSON, ROOT, request

SCENARIOS = sorted((ROOT / "tests/scenarios").glob("*.scenario"))


class Script:
    """What `headroom-scenario` says is to happen, and what must then be published."""

    def __init__(self, file):
        made = subprocess.run([EXECUTABLE.parent / "headroom-scenario", file], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        head, *self.steps = [json.loads(line) for line in made.stdout.splitlines()]
        self.tick_seconds, self.policy = head["tickSeconds"], head["policy"]

    def options(self, folder):
        """The options that a service needs for this scenario."""
        policy = pathlib.Path(folder) / "policy.yaml"
        policy.write_text(self.policy)
        # A checkpoint in less than a tick is refused as a mistake.
        checkpoints = f"engine.checkpoint_seconds={max(30, self.tick_seconds)}"
        return ["--time", "event", "--tick", str(self.tick_seconds), "--policy", str(policy), "--set", checkpoints]


def play(script, api, otlp, before_tick=None):
    """Plays a script. `otlp` are the addresses of ingestors, taken in turn; `before_tick(number)` may break something.

    Returns how many snapshots were compared."""
    turn, ticks, compared = 0, 0, 0
    for step in script.steps:
        if "export" in step:
            answer = post(f"{otlp[turn % len(otlp)]}/v1/metrics", step["export"])
            turn += 1
            assert answer.status == 200 and not answer.json().get("partialSuccess"), answer
        elif "mode" in step:
            answer = post(f"{api}/v1/mode", step | {"owner": "scenario", "reason": "a step of the scenario"})
            assert answer.status == 202, answer
        elif "remove" in step:
            url = f"{api}/v1/servers/{step['remove']}?cell={step['cell']}&owner=scenario&reason=step"
            answer = request("DELETE", url)
            assert answer.status == 202, answer
        else:
            if before_tick:
                before_tick(ticks)
            ticks += 1
            answer = post(f"{api}/v1/clock", {"now": rfc3339(step["tick"])})
            assert answer.status == 200, answer
            for cell, records in step["cells"].items():
                compared += 1
                compare(api, cell, step["tick"], records)
    return compared


def compare(api, cell, epoch, records):
    answer = request("GET", f"{api}/v1/snapshot?cell={cell}")
    if not records:
        # Its last server has left, and the cell with it.
        assert answer.status == 404, answer
        return
    assert answer.status == 200, answer
    found = answer.json()
    assert found["epoch"] == epoch and not found["stale"], {key: found[key] for key in ("epoch", "stale")}
    assert [record["server"] for record in found["items"]] == [record["server"] for record in records]
    for found, wanted in zip(found["items"], records, strict=True):
        # Not `assert found == wanted`: two records of pages would be printed where one field differs.
        differing = {key: (found.get(key), wanted.get(key)) for key in found | wanted if found.get(key) != wanted.get(key)}
        assert not differing, f"{cell}, {wanted['server']} at {epoch}, (found, wanted): {differing}"


def post(url, value):
    return request("POST", url, json.dumps(value).encode(), {"Content-Type": JSON})


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
