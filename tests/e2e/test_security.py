"""A service as it stands beyond one machine: TLS, tokens, client certificates, and all of them replaced while it runs."""

import hashlib
import http.client
import os
import secrets
import socket
import ssl
import subprocess
import time

import otlp
import pytest
from certificates import Authority
from headroom import CACHE, EXECUTABLE, ROOT, free_ports, request, wait_until

SCOPES = ("ingest", "read", "operate", "admin")


class Secured:
    """A service with a caller for each scope and one that comes by certificate, and what their owners know."""

    def __init__(self, service, folder):
        self.folder = folder
        self.authority = Authority(folder)
        self.tokens = {scope: secrets.token_hex(32) for scope in SCOPES}
        callers = "callers:\n"
        for scope, token in self.tokens.items():
            shown = f"sha256: {hashlib.sha256(token.encode()).hexdigest()}"
            if scope == "read":
                (folder / "read.token").write_text(token + "\n")
                shown = "token_file: read.token"
            callers += f"- {{name: {scope}-caller, scopes: [{scope}], {shown}}}\n"
        callers += "- {name: station, scopes: [operate], certificate: 'spiffe://fleet/station'}\n"
        (folder / "callers.yaml").write_text(callers)
        self.install(*self.authority.sign("server"))
        self.config = folder / "headroom.yaml"
        self.config.write_text(
            f"""security:
  auth: tokens
  callers_file: {folder}/callers.yaml
  tls: {{cert_file: {folder}/tls.pem, key_file: {folder}/tls.key, client_ca_file: {folder}/ca.pem, client_auth: optional}}
"""
        )
        self.service = service(
            *("--config", str(self.config), "--tick", "1"),
            context=self.authority.context(),
            token=self.tokens["admin"],
        )

    def install(self, pem, key):
        for source, name in ((key, "tls.key"), (pem, "tls.pem")):
            (self.folder / "new").write_bytes(source.read_bytes())
            os.replace(self.folder / "new", self.folder / name)

    def bearer(self, scope):
        return {"Authorization": f"Bearer {self.tokens[scope]}"}

    def status(self, token, path="/v1/cells"):
        return self.service.get(path, {"Authorization": f"Bearer {token}"}).status

    def command(self, *arguments, environment=None):
        return subprocess.run(
            [EXECUTABLE, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            env={name: value for name, value in os.environ.items() if not name.startswith("HEADROOM")}
            | (environment or {}),
        )


@pytest.fixture
def secured(service, tmp_path):
    return Secured(service, tmp_path)


def python_sender(secured, protocol, host, headers, seconds=60):
    endpoint = f"https://{secured.service.grpc}" if protocol == "grpc" else secured.service.otlp
    # A bundle that the environment names wins, in the library below the exporter, over the file that we name.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "REQUESTS_", "CURL_"))}
    environment = kept | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(secured.authority.pem),
        "OTEL_EXPORTER_OTLP_HEADERS": headers,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_RESOURCE_ATTRIBUTES": f"host.name={host}",
        "RUN_SECONDS": str(seconds),
    }
    log = secured.folder / f"{host}.log"
    command = [CACHE / "python/venv/bin/python", ROOT / "tests/senders/python_host.py"]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            ["timeout", str(seconds), *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment
        )
    return process, log


def test_a_real_sdk_sends_over_tls_with_a_token_and_is_refused_without(component, secured):
    component("python")
    token = f"authorization=Bearer%20{secured.tokens['ingest']}"
    small = f"authorization=Bearer%20{secured.tokens['read']}"
    started = {
        (protocol, name): python_sender(secured, protocol, f"{name}-{protocol.split('/')[0]}", headers)
        for protocol in ("grpc", "http/protobuf")
        for name, headers in (("good", token), ("unnamed", ""), ("reader", small))
    }
    try:
        for (protocol, name), (_, log) in started.items():
            if name == "good":
                host = f"good-{protocol.split('/')[0]}"
                said = log.read_text
                wait_until(lambda: secured.service.server(host), f"a record of {host}; it said {said()}", 60)
            else:
                # What the SDKs' own log says of the refusal is all that their users see.
                word = {"unnamed": ("UNAUTHENTICATED", "401"), "reader": ("PERMISSION_DENIED", "403")}[name]
                expected = word[0] if protocol == "grpc" else word[1]
                wait_until(lambda: expected in log.read_text(), f"{expected} in {log}", 60)
    finally:
        for process, _ in started.values():
            process.terminate()
        for process, _ in started.values():
            process.wait(timeout=20)
    assert secured.service.servers() == {"good-grpc", "good-http"}
    metrics = secured.service.get("/metrics").body.decode()
    for reason in ("no_credentials", "missing_scope"):
        assert f'headroom_access_denied_requests_total{{surface="otlp",reason="{reason}"}}' in metrics


def test_callers_are_replaced_while_requests_go_on(secured):
    old, new = secured.tokens["read"], secrets.token_hex(32)
    assert (secured.status(old), secured.status(new)) == (200, 401)
    (secured.folder / "read.token").write_text(new)
    wait_until(lambda: secured.status(new) == 200, "the new token is good")
    assert secured.status(old) == 401

    callers = secured.folder / "callers.yaml"
    good = callers.read_text()
    callers.write_text("callers: [{name: oops")
    wait_until(lambda: secured.service.metric("headroom_access_reloads_total") == 2, "the mistake is noticed")
    assert secured.status(new) == 200, "what was before stays"
    assert "callers.yaml:1:" in secured.service.log.read_text(), "and the log says where the mistake is"

    callers.write_text("\n".join(line for line in good.splitlines() if "read-caller" not in line))
    wait_until(lambda: secured.status(new) == 401, "the caller is nobody any more")


def certificate_of(secured):
    host, port = secured.service.api.split("//")[1].split(":")
    return ssl.get_server_certificate((host, int(port)), ca_certs=str(secured.authority.pem))


def test_certificates_are_replaced_and_connections_live_on(secured):
    first = certificate_of(secured)
    lasting = http.client.HTTPSConnection(secured.service.api.split("//")[1], context=secured.authority.context(), timeout=30)
    lasting.request("GET", "/v1/cells", headers=secured.bearer("read"))
    assert lasting.getresponse().read()
    secured.install(*secured.authority.sign("server-2"))
    wait_until(lambda: certificate_of(secured) != first, "new connections see the new certificate")
    lasting.request("GET", "/v1/cells", headers=secured.bearer("read"))
    answer = lasting.getresponse()
    assert (answer.status, bool(answer.read())) == (200, True), "on the connection from before"


def test_who_is_not_trusted_gets_no_connection(secured, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "stranger")
    for context in (other.context(), secured.authority.context(other.sign("station", "URI:spiffe://fleet/station"))):
        lasting = http.client.HTTPSConnection(secured.service.api.split("//")[1], context=context, timeout=30)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            lasting.request("GET", "/livez")
            lasting.getresponse()
    wait_until(
        lambda: secured.service.metric("headroom_listener_refused_connections_total") >= 1, "the refusal is counted"
    )


def test_operators_come_by_certificate_and_are_the_owners_of_what_they_do(secured):
    station = secured.authority.sign("station", "URI:spiffe://fleet/station")
    by_certificate = http.client.HTTPSConnection(
        secured.service.api.split("//")[1], context=secured.authority.context(station), timeout=30
    )
    action = b'{"mode": "observe", "owner": "somebody else", "reason": "a drill"}'
    by_certificate.request("POST", "/v1/mode", action, {"Content-Type": "application/json"})
    answer = by_certificate.getresponse()
    assert answer.status == 202, answer.read()
    wait_until(
        lambda: "station" in secured.service.log.read_text() and "a drill (for somebody else)" in secured.service.log.read_text(),
        "the log names who did it",
    )
    for scope, status in (("read", 403), ("ingest", 403), ("operate", 202), ("admin", 202)):
        answer = secured.service.post("/v1/mode", {"mode": "observe", "owner": "me", "reason": "x"}, secured.bearer(scope))
        assert answer.status == status, (scope, answer)


def test_operators_have_a_way_in_that_readers_cannot_block(service):
    port = free_ports(1)[0]
    headroom = service("--set", "http.connections_max=1", "--set", f"http.operator_listen=127.0.0.1:{port}")
    # The readers' listener takes one connection, and a stream keeps it.
    host, reader_port = headroom.api.split("//")[1].split(":")
    with socket.create_connection((host, int(reader_port)), timeout=10) as holder:
        holder.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n")
        assert holder.recv(12) == b"HTTP/1.1 200", "a stream that holds the only place"
        with pytest.raises(OSError):
            request("GET", headroom.api + "/livez", timeout=1)
        headroom.api = f"http://127.0.0.1:{port}"
        answer = headroom.post("/v1/mode", {"mode": "off", "owner": "me", "reason": "a drill"})
        assert answer.status == 202, answer


def test_commands_show_their_credentials_and_nothing_shows_a_token(secured):
    assert secured.service.push(otlp.request_of("web-1", time.time()).SerializeToString()).status == 200
    wait_until(lambda: secured.service.server("web-1"), "a server to ask for")
    url, trust = ("--url", secured.service.api), ("--ca-file", secured.authority.pem)
    token = ("--token-file", secured.folder / "read.token")
    certificate, key = secured.authority.sign("station", "URI:spiffe://fleet/station")
    shown = ("--client-cert-file", certificate, "--client-key-file", key)
    for arguments, environment, code, text in [
        (("top", "--once", *url, *trust, *token), {}, 0, "web-1"),
        (("explain", "web-1", *url, *trust, *shown), {}, 0, "web-1"),
        (("explain", "web-1"), {"HEADROOM_URL": secured.service.api, "HEADROOM_CA_FILE": str(trust[1]),
                                "HEADROOM_TOKEN": secured.tokens["operate"]}, 0, "web-1"),
        (("top", "--once", *url, *trust), {}, 1, "send `Authorization: Bearer <token>`"),
        (("top", "--once", *url, *trust), {"HEADROOM_TOKEN": secured.tokens["ingest"]}, 1, "this needs the scope read"),
        (("top", "--once", *url, *token), {}, 3, "UnknownIssuer"),
        (("top", "--once", "--url", secured.service.api.replace("https", "http"), *token), {}, 3, "cannot reach"),
        (("doctor", *url, *trust, *token, "--config", secured.config), {}, 0, "a service is ready"),
        (("check", "--config", secured.config), {}, 0, "the callers and certificates can be used"),
        (("check", secured.folder / "callers.yaml"), {}, 0, "a valid callers' file, 5 entries"),
        (("config", "print", "--effective", "--config", secured.config), {}, 0, "callers_file"),
    ]:
        ended = secured.command(*arguments, environment=environment)
        case = f"{arguments} {environment}: {ended}"
        assert ended.returncode == code and text in ended.stdout + ended.stderr, case
        assert not any(each in ended.stdout + ended.stderr for each in secured.tokens.values()), case
    said = secured.service.log.read_text() + secured.service.get("/metrics").body.decode()
    said += secured.service.get("/v1/policy").body.decode() + secured.service.get("/readyz?verbose").body.decode()
    private = (secured.folder / "tls.key").read_text().splitlines()[1]
    assert not any(secret in said for secret in (*secured.tokens.values(), private))
