"""The policy file is reloaded when it changes and on SIGHUP; what is not valid leaves the policy before in force."""

import os
import signal
import time

import otlp
from headroom import wait_until

METRIC = "headroom_policy_reloads_total"


def policy(over):
    return f"signals:\n  cpu_busy: {{over: {over}, critical: 0.99}}\n"


def replace(path, text):
    """As editors and configuration managers do: never half a file."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def reloads(running, outcome):
    for line in running.get("/metrics").body.decode().splitlines():
        if line.startswith(f'{METRIC}{{outcome="{outcome}"}}'):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def in_force(running, threshold):
    """Whether the service has the policy and the engine decides by it."""
    answer = running.get("/v1/policy", {"Accept": "application/json"}).json()
    yaml = running.get("/v1/policy")
    assert yaml.headers["headroom-policy-hash"] == answer["policyHash"]
    decides = set(answer["inForce"].values()) == {answer["policyHash"]}
    return f"over: {threshold}," in answer["yaml"].split("--- #")[0] and decides and answer["policyHash"]


def test_a_good_policy_comes_into_force_and_a_bad_one_leaves_the_one_before(service, tmp_path):
    file = tmp_path / "policy.yaml"
    replace(file, policy(0.91))
    running = service("--tick", "1", "--policy", str(file))
    assert running.push(otlp.request_of("web-1", time.time()).SerializeToString()).status == 200
    first = wait_until(lambda: in_force(running, 0.91), "the policy of the start is in force")

    replace(file, policy(0.92))
    second = wait_until(lambda: in_force(running, 0.92), "the changed policy is in force")
    assert second != first
    assert reloads(running, "applied") == 1

    replace(file, "signals:\n  cpu_busy: {ovr: 0.93}\n")
    wait_until(lambda: reloads(running, "refused") >= 1, "the bad policy is refused")
    assert "unknown key `ovr`" in running.log.read_text()
    assert in_force(running, 0.92) == second
    assert running.get("/readyz").status == 200

    refused = reloads(running, "refused")
    file.unlink()
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(running, "refused") > refused, "a file that is gone is refused")
    assert in_force(running, 0.92) == second

    # Beside the directory's own news, SIGHUP says that there is a policy; either may come first.
    replace(file, policy(0.94))
    running.process.send_signal(signal.SIGHUP)
    third = wait_until(lambda: in_force(running, 0.94), "the good policy is in force again")
    assert third not in (first, second)

    unchanged = reloads(running, "unchanged")
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(running, "unchanged") > unchanged, "SIGHUP without a change changes nothing")
    assert in_force(running, 0.94) == third
