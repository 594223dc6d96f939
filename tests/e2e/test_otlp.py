"""What OTLP obliges a server to answer, as far as a sender can see it; most of all, that a sender without a name is
told which line it needs."""

import time

import grpc
import otlp
import pytest
from headroom import FIXTURES, JSON, PROTOBUF, request, wait_until
from senders import SENDERS, Running

ANONYMOUS = (FIXTURES / "python-anonymous-1.otlp.pb").read_bytes()
NAMED = (FIXTURES / "python-1.otlp.pb").read_bytes()
THE_LINE = "OTEL_RESOURCE_ATTRIBUTES=host.name="
EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


@pytest.fixture(scope="module")
def headroom(tmp_path_factory):
    from headroom import Headroom

    service = Headroom(tmp_path_factory.mktemp("otlp"), "--tick", "1").start()
    yield service
    service.stop()


def encoded(body, kind):
    return body if kind == PROTOBUF else otlp.as_json(otlp.parse(body))


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_a_sender_without_a_name_is_told_the_line_it_needs(headroom, kind):
    answer = headroom.push(encoded(ANONYMOUS, kind), kind)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith(kind)
    partial = otlp.response(answer.body, kind).partial_success
    assert partial.rejected_data_points == otlp.points(otlp.parse(ANONYMOUS))
    assert THE_LINE in partial.error_message
    assert "resource" in partial.error_message


def test_a_sender_without_a_name_is_told_over_grpc(headroom):
    with grpc.insecure_channel(headroom.grpc) as channel:
        partial = otlp.response(channel.unary_unary(EXPORT)(ANONYMOUS, timeout=10), PROTOBUF).partial_success
    assert partial.rejected_data_points == otlp.points(otlp.parse(ANONYMOUS))
    assert THE_LINE in partial.error_message


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_full_success_leaves_partial_success_unset(headroom, kind):
    # A name of its own for each parameter: the fixture's points are old by now, and that is a matter of other tests.
    message = otlp.request_of(f"full-{kind[-4:]}", time.time())
    answer = headroom.push(encoded(message.SerializeToString(), kind), kind)
    assert answer.status == 200, answer
    assert not otlp.response(answer.body, kind).HasField("partial_success"), answer


def test_an_empty_request_succeeds(headroom):
    answer = headroom.push(b"")
    assert answer.status == 200, answer
    assert not otlp.response(answer.body, PROTOBUF).HasField("partial_success"), answer


def test_only_the_points_without_a_name_are_rejected(headroom):
    message = otlp.request_of("mixed", time.time())
    message.MergeFrom(otlp.request_of(None, time.time()))
    answer = headroom.push(message.SerializeToString())
    assert answer.status == 200, answer
    assert otlp.response(answer.body, PROTOBUF).partial_success.rejected_data_points == 2
    wait_until(lambda: headroom.server("mixed"), "the named half has a record")


def test_gzip(headroom):
    message = otlp.request_of("gzipped", time.time()).SerializeToString()
    answer = headroom.push(otlp.zipped(message), headers={"Content-Encoding": "gzip"})
    assert answer.status == 200, answer
    wait_until(lambda: headroom.server("gzipped"), "a record from a compressed body")


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_other_signals_of_one_endpoint_senders_are_taken(headroom, signal):
    answer = request("POST", f"{headroom.otlp}/v1/{signal}", b"", {"Content-Type": PROTOBUF})
    assert answer.status == 200, answer


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_garbage_is_refused_for_good_with_a_status_message(headroom, kind):
    answer = headroom.push(b"\x0a\xff\xff\xff\xff\x0f garbage", kind)
    assert answer.status == 400, answer
    # google.rpc.Status in the type of the request, not problem+json.
    assert answer.headers["Content-Type"].startswith(kind)
    if kind == JSON:
        assert answer.json()["message"]
    else:
        assert answer.body


def test_garbage_is_refused_for_good_over_grpc(headroom):
    with grpc.insecure_channel(headroom.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(EXPORT)(b"\x0a\xff\xff\xff\xff\x0f garbage", timeout=10)
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL), refused.value


def test_a_body_that_grows_too_large_when_unpacked_is_refused(headroom):
    bomb = otlp.zipped(bytes(256 << 20))
    assert len(bomb) < 1 << 20
    answer = headroom.push(bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413, answer


def test_node_and_collector_tell_their_operators(headroom, component, tmp_path):
    """The message is worth nothing unless it reaches somebody: these two senders write it into their own logs."""
    running = Running(headroom, tmp_path, seconds=60)
    told = [SENDERS["node"], SENDERS["collector-http"]]
    for sender in told:
        component(sender.component)
        running.start(sender, None)
    try:
        for sender in told:
            wait_until(lambda: THE_LINE in running.said(sender), f"{sender} logs the partial success", 60)
    finally:
        running.stop()


def test_what_the_python_sdk_swallows_is_seen_here(headroom, component, tmp_path):
    """The Python SDK drops a partial success without a word, so the refusal has to be visible on our side."""
    component("python")
    running = Running(headroom, tmp_path, seconds=60)
    running.start(SENDERS["python-http"], None)
    try:
        wait_until(
            lambda: THE_LINE in headroom.get("/v1/inputs").body.decode(), "GET /v1/inputs names the refused sender", 60
        )
    finally:
        running.stop()
