"""Brokers that ask for TLS, a certificate and a password: the log and a source on them, and what is said without."""

import json
import subprocess

import otlp
import pytest
from certificates import Authority
from headroom import EXECUTABLE, wait_until
from kafka import Kafka


@pytest.fixture(scope="module")
def secured(component, tmp_path_factory):
    """A broker behind TLS and SASL, with the authority of its certificate and what a client shows."""
    component("kafka")
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.sign("broker")
    keystore = folder / "keystore.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    broker = Kafka(folder / "kafka", secure=(keystore, authority.pem))
    yield broker, authority, authority.sign("headroom")
    broker.stop()


def configuration(folder, secured, mechanism, password="secret", certificate=True):
    broker, authority, (shown, key) = secured
    (folder / "password").write_text(password)
    tls = {"ca_file": str(authority.pem)}
    if certificate:
        tls |= {"cert_file": str(shown), "key_file": str(key)}
    kafka = {
        "brokers": broker.addresses,
        "tls": tls,
        "sasl": {"mechanism": mechanism, "username": "headroom", "password_file": str(folder / "password")},
        "topic_prefix": f"log-{mechanism.lower()}",
        "partitions": 2,
        "replication_factor": 1,
    }
    file = folder / "headroom.yaml"
    file.write_text(json.dumps({"log": {"backend": "kafka"}, "kafka": kafka}))
    return file


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_the_log_lies_behind_tls_and_a_password(secured, service, tmp_path, mechanism):
    headroom = service("--config", str(configuration(tmp_path, secured, mechanism)), "--time", "event")
    for second in (1, 11, 21):
        answer = headroom.push(otlp.request_of("web-1", 1_795_255_200 + second, second * 0.2, second * 0.8).SerializeToString())
        assert answer.status == 200, answer
    answer = headroom.post("/v1/clock", {"now": "2026-11-21T10:00:30Z"})
    assert answer.status == 200, answer
    wait_until(lambda: headroom.server("web-1"), "the host is scored")
    assert "secret" not in headroom.log.read_text() + headroom.get("/metrics").body.decode()


def without(key):
    return lambda kafka: kafka.pop(key)


def with_tls(key, file):
    return lambda kafka: kafka["tls"].update({key: str(file)})


@pytest.mark.parametrize(
    ("wrong", "but", "said"),
    [
        ({"password": "wrong"}, lambda kafka: None, "SASL authentication error"),
        ({"certificate": False}, lambda kafka: None, "SSL"),
        ({}, without("tls"), "expect TLS"),
        ({}, with_tls("ca_file", "/nowhere/ca.pem"), "kafka.tls.ca_file: cannot read /nowhere/ca.pem"),
    ],
    ids=["password", "certificate", "plain", "authority"],
)
def test_who_may_not_log_in_is_told_in_a_sentence(secured, tmp_path, wrong, but, said):
    file = configuration(tmp_path, secured, "SCRAM-SHA-512", **wrong)
    settings = json.loads(file.read_text())
    but(settings["kafka"])
    file.write_text(json.dumps(settings))
    ended = subprocess.run(
        [EXECUTABLE, "serve", "--config", file, "--data-dir", tmp_path / "data", "--http", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode not in (0, -6), ended
    sentence = ended.stderr.splitlines()[-1]
    assert said in sentence and "tls" in sentence and "secret" not in ended.stderr, ended.stderr
