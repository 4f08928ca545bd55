"""Marked secrets go through a real server with everything on: none of them comes out where it could be read."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from otlp_receiver import HttpReceiver
from websockets.exceptions import InvalidStatus

from .clients import library_client, watch
from .secretive import DENIAL, ERROR, HANDLERS, SAID, SENT, SUBJECT, TAIL, TOKEN, UNLUCKY_BYTES
from .servers import HOST, UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

QUERY, AUTHORIZATION, COOKIE = "s3cr3t-query", "s3cr3t-authorization", "s3cr3t-cookie"
SUBPROTOCOL, RECEIVED, ROOM, WRONG = "s3cr3t-subprotocol", "s3cr3t-received", "s3cr3t-room", "s3cr3t-wrong"
SECRETS = (QUERY, AUTHORIZATION, COOKIE, SUBPROTOCOL, RECEIVED, WRONG, SENT, DENIAL, ERROR, TAIL, TOKEN, SUBJECT)
MARK = "s3cr3t"
"""All of them begin so."""
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {
    "authorization": f"Bearer {AUTHORIZATION}",
    "cookie": f"session={COOKIE}",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
}
ENDED = 6  # accepted connections below


@dataclass(frozen=True)
class Told:
    """
    Everything that came out.

    Attributes:
        spans: As plain values.
        metrics: As plain values.
        records: OpenTelemetry log records, as the SDK writes them.
        exposition: Of Prometheus.
        health: dict: what was asked -> the answer, headers included.
        log: What the process has printed.
        is_json: Whether each line of structlog's is JSON.
        is_full: Whether all plugins were on with all options.
    """

    spans: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    records: list[dict[str, Any]]
    exposition: str
    health: dict[str, str]
    log: str
    is_json: bool
    is_full: bool


def _visit(running: Running, name: str) -> None:
    """Play a client that gives away everything it has."""
    path = f"/{name}/{ROOM}?token={QUERY}"
    if name == "deny":
        with (
            pytest.raises(InvalidStatus),
            library_client(running.port, path, headers=HEADERS, subprotocols=[SUBPROTOCOL]),
        ):
            pass
        return
    with library_client(running.port, path, headers=HEADERS, subprotocols=[SUBPROTOCOL]) as client:
        if name == "talk":
            for message in (RECEIVED, RECEIVED.encode()):
                client.send(message)
                assert [client.recv(timeout=5), client.recv(timeout=5)] == [SENT, SENT.encode()]
            client.close(4000, "bye\x1b[31m\r\nforged")
        else:
            watch(client)


def _visit_denied(running: Running) -> None:
    """Be denied by policies: by the origin, by an authenticator that says no, by one that raises the token."""
    for name, more in (("talk", {"origin": f"https://{QUERY}.example"}), ("refuse", {}), ("fail", {})):
        for subprotocols in ([SUBPROTOCOL], ["bearer", SUBPROTOCOL]):
            path, headers = f"/{name}/{ROOM}?token={QUERY}", HEADERS | more
            with (
                contextlib.suppress(InvalidStatus),  # who has no policies knows no such path, and no wrong origin
                library_client(running.port, path, headers=headers, subprotocols=subprotocols),
            ):
                pass


def _visit_unlucky(running: Running) -> None:
    """Send a message that a policy closes on."""
    with library_client(running.port, f"/talk/{ROOM}", headers=HEADERS, subprotocols=[SUBPROTOCOL]) as client:
        client.send(RECEIVED.ljust(UNLUCKY_BYTES, "."))
        watch(client, timeout_s=1.0)


def _ask(running: Running, path: str, token: str | None = None) -> str:
    connection = http.client.HTTPConnection(HOST, running.port, timeout=5)
    headers = {"cookie": HEADERS["cookie"]} | ({} if token is None else {"authorization": f"Bearer {token}"})
    try:
        connection.request("GET", f"{path}?token={QUERY}", headers=headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.getheaders()} {answer.read().decode()}"
    finally:
        connection.close()


def _health(running: Running) -> dict[str, str]:
    """Ask for everything, as everybody, while a connection is open."""
    with library_client(running.port, f"/park/{ROOM}?token={QUERY}", headers=HEADERS):
        found = {path: _ask(running, f"/ws-health{path}") for path in ("", "/health", "/stats", "/connections", "/no")}
        found["wrong"] = _ask(running, "/ws-health/connections", WRONG)
        found["token"] = _ask(running, "/ws-health/connections", TOKEN)
    return found


def _documents(text: str) -> list[dict[str, Any]]:
    """Read JSON documents that follow each other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


@pytest.fixture(scope="module", params=["console", "json", "default"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Run the application with each way to log, give it all secrets, and gather what came out."""
    folder = tmp_path_factory.mktemp("secrets")
    with HttpReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "SECRETIVE_LOGS": request.param,
        }
        with start(
            UVICORN_SANSIO,
            f"{PACKAGE}.secretive:make_app",
            folder,
            env=environment,
            python_path=[IMPORT_ROOT],
            # uvicorn's own lines have the query string, and the traceback of a handler its text
            arguments=["--factory", "--log-level", "critical"],
        ) as running:
            for name in HANDLERS:
                if name != "park":
                    _visit(running, name)
            _visit_unlucky(running)
            _visit_denied(running)
            health = _health(running)
            receiver.wait_until(lambda: len(_connections(receiver)) >= ENDED - 1)
            receiver.wait_for_metric("websocket.server.connections")
            exposition = _ask(running, "/metrics/")
        yield Told(
            [asdict(one) for one in receiver.spans()],
            [asdict(one) for one in receiver.metrics()],
            _documents((folder / "records.json").read_text("utf-8")),
            exposition,
            health,
            running.log,
            request.param == "json",
            request.param != "default",
        )


def _connections(receiver: HttpReceiver) -> list[str]:
    return [one.name for one in receiver.spans() if one.name.startswith("websocket /")]


def test_no_secret_comes_out(told: Told) -> None:
    """None is in any span, metric, log record, log line, exposition or answer."""
    everything = {
        "spans": repr(told.spans),
        "metrics": repr(told.metrics),
        "records": repr(told.records),
        "exposition": told.exposition,
        "health": repr(told.health),
        "log": told.log,
    }
    found = [(where, secret) for where, text in everything.items() for secret in SECRETS if secret in text]
    assert found == []


def test_a_path_parameter_is_in_the_path_alone(told: Told) -> None:
    """It is in the attribute ``url.path`` and the log field ``path``, and in no metric."""
    assert _holders([told.spans, told.records]) == {"url.path"}
    assert MARK not in repr(told.metrics)
    assert MARK not in told.exposition
    if told.is_json:
        lines = [json.loads(line) for line in told.log.splitlines() if line.startswith("{")]
        assert _holders(lines) == {"path"}
        assert all(MARK not in line for line in told.log.splitlines() if not line.startswith("{"))
    else:
        assert MARK not in re.sub(rf"\bpath=\S*/{ROOM}(?=\s)", "", _plain(told.log))


def _holders(value: Any, key: str = "") -> set[str]:
    """Name the innermost keys under which there is a secret, or which are one."""
    if isinstance(value, dict):
        return set().union(*(_holders(one, str(name)) | _holders(str(name), "a key") for name, one in value.items()))
    if isinstance(value, list | tuple):
        return set().union(*(_holders(one, key) for one in value))
    return {key} if MARK in str(value) else set()


def _plain(log: str) -> str:
    """Take the colours of structlog's console away."""
    return re.sub("\x1b\\[[0-9;]*m", "", log)


def test_health_tells_a_path_to_nobody_without_the_token(told: Told) -> None:
    """Only the list of connections has a path, and only for who has the token."""
    assert [asked for asked, answer in told.health.items() if MARK in answer] == ["token"]
    assert told.health["token"].startswith("200 ")
    assert f'"path": "/park/{ROOM}"' in told.health["token"] or f'"path":"/park/{ROOM}"' in told.health["token"]
    assert [told.health[asked][:4] for asked in ("", "/stats", "/connections", "wrong")] == [
        *("200 ", "200 ", "401 ", "401 "),
    ]


def test_a_monstrous_close_reason_is_cut_and_harmless(told: Told) -> None:
    """Of 10 KB with control characters, what is told is short and printable; so is the client's."""
    reasons = {
        one["attributes"].get("websocket.close.reason") for one in told.spans if one["name"].startswith("websocket /")
    }
    assert "bye\\x1b[31m\\r\\nforged" in reasons
    (long,) = (one for one in reasons if one is not None and one.startswith("\\x1b[31mred\\r\\n\\x00r"))
    assert len(long) <= 257
    assert all(one.isprintable() for one in reasons if one is not None)
    if told.is_json:
        lines = [json.loads(line) for line in told.log.splitlines() if line.startswith("{")]
        assert [line for line in lines if not str(line.get("reason", "")).isprintable()] == []
    assert "\x00" not in told.log
    assert "\x1b[31mred" not in told.log
    assert not any(line.startswith(("forged", "rrr")) for line in told.log.splitlines())


def test_everything_was_told(told: Told) -> None:
    """The search above is one of full outputs: every way out has told of the connections."""
    names = {one["name"] for one in told.spans}
    assert {f"GET /{name}/{{room}}" for name in HANDLERS} <= names
    assert {f"websocket /{name}/{{room}}" for name in HANDLERS if name not in ("deny", "park")} <= names
    assert "asgi_ws_guard.violation" in repr(told.spans)
    assert ("websocket transmit /talk/{room}" in names) == told.is_full
    assert {"websocket.server.messages", "asgi_ws_guard.sends"} <= {one["name"] for one in told.metrics}
    assert 'websocket_server_messages_total{http_route="/talk/{room}"' in re.sub(
        r'otel_scope_\w+="[^"]*",?', "", told.exposition
    )
    bodies = {one["body"] for one in told.records}
    assert {"websocket.open", "websocket.accept", "websocket.closed", "websocket.rejected"} <= bodies
    assert ("asgi_ws_guard.policy_applied" in bodies) == told.is_full
    if told.is_full:
        reasons = re.findall(r"asgi_ws_guard\.policy\.reason\W+(\w+)", repr(told.records))
        assert {"not_listed", "rejected", "failed"} <= set(reasons)
    log = _plain(told.log)
    if told.is_full:
        assert "an authenticator raised KeyError at" in log
    for line in ("websocket accepted", "websocket late send dropped", "websocket closed", "websocket rejected", SAID):
        assert line in log
    if told.is_full:
        assert re.search(
            rf"logging app {SAID} connection_id=\w{{16}} route=/talk/{{room}} trace_id={TRACE} span_id=\w{{16}}",
            log,
        )
