"""docker-compose.yml, run without containers: senders on one side, readers on the other, by TLS and with tokens."""

import json
import ssl
import urllib.error
import urllib.request

import pytest
from compose import Compose
from headroom import wait_until

ROLES = ["otlp-ingestor", "kafka-ingestor", "aggregator-1", "aggregator-2", "health-api"]
BROKERS = ["kafka-1", "kafka-2", "kafka-3"]
# No program stands for these images here; what is written for them is still read and resolved.
NOT_HERE = {"grafana": "Grafana comes as an image only"}


@pytest.fixture
def compose(tmp_path, component):
    component("kafka")
    component("collector")
    compose = Compose(tmp_path)
    yield compose
    compose.kill_all()


def ask(compose, path, token, service="health-api", port=8080):
    """GET over TLS with a token from the secrets; the status and the body."""
    secrets = compose.path(service, "/run/headroom")
    context = ssl.create_default_context(cafile=secrets / "ca.pem")
    headers = {"Authorization": f"Bearer {(secrets / token).read_text().strip()}"} if token else {}
    call = urllib.request.Request(f"https://127.0.0.1:{compose.port(service, port)}{path}", headers=headers)
    try:
        with urllib.request.urlopen(call, timeout=10, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def ready(compose, service):
    if compose.processes[service].poll() is not None:
        raise AssertionError(f"{service} ended:\n{compose.tail(service)}")
    try:
        return ask(compose, "/readyz", None, service)[0] == 200
    except OSError:
        return False


def test_every_service_is_run_here_or_named(compose):
    for service in compose.services:
        if service in NOT_HERE:
            compose.configure(service)
        else:
            assert compose.command(service), service


def test_what_the_file_starts_scores_what_the_collector_sends(compose):
    compose.start("secrets")
    assert compose.processes.pop("secrets").wait(timeout=60) == 0, compose.tail("secrets")
    for broker in BROKERS:
        compose.start(broker)
    for broker in BROKERS:
        wait_until(lambda: "Kafka Server started" in compose.log(broker).read_text(), f"{broker} serves", 60)
    around = [name for name in ("collector", "prometheus", "alertmanager") if compose.can_run(name)]
    for service in [*ROLES, *around]:
        compose.start(service)
    for role in ROLES:
        wait_until(lambda: ready(compose, role), f"{role} is ready", 60)

    # One host over OTLP, one over the Collector's own topic: both with a score, whoever of the aggregators has them.
    def scored(server):
        status, body = ask(compose, f"/v1/servers/{server}", "read.token")
        return status == 200 and json.loads(body)["healthScore"] is not None

    for server in ("pushed", "queued"):
        wait_until(lambda: scored(server), f"{server} has a score", 90)

    assert ask(compose, "/v1/servers", None)[0] == 401
    assert ask(compose, "/v1/servers", "ingest.token")[0] == 403

    if "prometheus" in around:
        url = f"http://127.0.0.1:{compose.port('prometheus', 9090)}/api/v1/targets?state=active"

        def all_up():
            with urllib.request.urlopen(url, timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
            return len(targets) == len(ROLES) and all(target["health"] == "up" for target in targets)

        wait_until(lambda: quietly(all_up), "Prometheus scrapes every role", 60)


def quietly(condition):
    try:
        return condition()
    except OSError:
        return False

