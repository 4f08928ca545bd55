"""The trace of one connection on a real server, as a receiver of OTLP gets it: nothing more, nothing less."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from otlp_decoded import Span
from otlp_receiver import GrpcReceiver, HttpReceiver, Receiver
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from .clients import RawPeer, library_client
from .rooms import CHUNK, LATE_SENDS, LINGER_S, STUCK_S
from .servers import HOST, UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

OPEN_S = 0.25  # for how long a client stays at least that decides when to go
CLOCK_NS = 50_000_000  # by how much two clocks of one busy machine may differ
WAIT_S = 15.0
AGENT = "a client of the tests"
NEVER_MS = "600000"
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Visit:
    """
    What a client did, with its own clock.

    Attributes:
        trace_id: Of the trace that it began.
        parent_id: Of its own span.
        began_ns: Before it connected.
        opened_ns: When it had the answer.
        left_ns: When it began to end the connection, or was told of the end.
    """

    trace_id: str
    parent_id: str
    began_ns: int
    opened_ns: int
    left_ns: int


Act = Callable[[Running, str, dict[str, str]], tuple[int, int]]
"""Plays a client with a path and headers; gives when it had the answer and when it left."""


def _stays(client: ClientConnection) -> int:
    """Talk for `OPEN_S`; give the number of messages."""
    ends_at = time.monotonic() + OPEN_S
    for number in itertools.count(1):
        client.send("hello")
        assert client.recv(timeout=5) == "hello"
        if time.monotonic() > ends_at:
            return number
    raise AssertionError


def _client_closes(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with library_client(running.port, path, headers=headers) as client:
        opened_ns = time.time_ns()
        _stays(client)
        left_ns = time.time_ns()
        client.close(4000, "bye\u0007")
    return opened_ns, left_ns


def _is_told(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with library_client(running.port, path, headers=headers) as client:
        opened_ns = time.time_ns()
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
        return opened_ns, time.time_ns()


def _is_denied(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with pytest.raises(InvalidStatus), library_client(running.port, path, headers=headers):
        pass
    return time.time_ns(), time.time_ns()


def _resets(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with RawPeer(running.port, path, headers=headers) as peer:
        peer.accepted()
        opened_ns = time.time_ns()
        peer.send_text("hello")
        assert peer.read(WAIT_S)
        left_ns = time.time_ns()
        peer.reset()
    return opened_ns, left_ns


def _goes_away(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with library_client(running.port, path, headers=headers) as client:
        opened_ns = time.time_ns()
        client.close(1001)
    return opened_ns, opened_ns


def _gets_and_resets(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
    with RawPeer(running.port, path, headers=headers) as peer:
        peer.accepted()
        opened_ns = time.time_ns()
        peer.wait_for_traffic()
        left_ns = time.time_ns()
        peer.reset()
    return opened_ns, left_ns


@dataclass(frozen=True)
class Story:
    """
    One way of a connection to end.

    Attributes:
        act: What the client does.
        connection: What the connection's span says beside id, route, lingering and the counts that depend on the time;
            empty when there is none.
        events: Names of the span events.
        error: Value of ``error.type``; None: no span is an error.
        lingered_s: For how long the handler went on, at least and less than.
    """

    act: Act
    connection: Attributes
    events: tuple[str, ...] = ("websocket.accept", "websocket.close")
    error: str | None = None
    lingered_s: tuple[float, float] = (0.0, LINGER_S / 2)


def _end(status: str, initiator: str, code: int, reason: str = "") -> Attributes:
    values: Attributes = {
        "websocket.connection.status": status,
        "websocket.close.initiator": initiator,
        "websocket.close.code": code,
    }
    return {**values, "websocket.close.reason": reason} if reason else values


LATE = ("websocket.accept", "websocket.close", "asgi_ws_guard.late_send")
STORIES = {
    "echo": Story(_client_closes, _end("normal_closure", "client", 4000, "bye\\x07")),
    "close": Story(_is_told, _end("app_close", "application", 4001, "enough")),
    "echo/reset": Story(_resets, _end("going_away", "client", 1005)),
    "deny": Story(_is_denied, {}),
    "error": Story(_is_told, _end("app_error", "application", 1011), error="ValueError"),
    "late": Story(
        _goes_away,
        {**_end("going_away", "client", 1001), "asgi_ws_guard.dropped.client_disconnected": LATE_SENDS},
        LATE,
    ),
    "push": Story(
        _gets_and_resets,
        {"websocket.messages.received": 0},  # a send or the guard's read learns of the reset first, see below
        (*LATE, "asgi_ws_guard.handler_stopped", "asgi_ws_guard.handler_stopped"),
        lingered_s=(LINGER_S, 10.0),
    ),
}


def visit(running: Running, name: str, act: Act) -> Visit:
    """Play one client, which has a trace of its own."""
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{parent_id}-01", "user-agent": AGENT}
    began_ns = time.time_ns()
    opened_ns, left_ns = act(running, f"/{name.partition('/')[0]}/blue?token=s3cret", headers)
    return Visit(trace_id, parent_id, began_ns, opened_ns, left_ns)


@contextmanager
def rooms(receiver: Receiver, folder: Path, **environment: str) -> Iterator[Running]:
    """Run the application; it exports to the receiver."""
    everything = {
        "ROOMS_TELEMETRY": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf",
        "OTEL_SERVICE_NAME": "rooms",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        **environment,
    }
    with start(
        UVICORN_SANSIO,
        f"{PACKAGE}.rooms:make_app",
        folder,
        env=everything,
        python_path=[IMPORT_ROOT],
        arguments=["--factory"],
    ) as running:
        yield running


def of_trace(receiver: Receiver, trace_id: str) -> list[Span]:
    """List the spans of a trace so far, in the order of their starts."""
    return sorted((one for one in receiver.spans() if one.trace_id == trace_id), key=lambda one: one.start_ns)


def wait_for_trace(receiver: Receiver, visited: Visit, count: int = 2) -> list[Span]:
    """Wait until the trace of a client has so many spans, and list them."""
    receiver.wait_until(lambda: len(of_trace(receiver, visited.trace_id)) >= count, WAIT_S)
    return of_trace(receiver, visited.trace_id)


@dataclass(frozen=True)
class Told:
    """What all clients did, and what had been received when the server was gone."""

    visits: dict[str, Visit]
    receiver: Receiver
    log: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Play all stories on one server, wait for the last span of each, and end the server."""
    with HttpReceiver() as receiver:
        with rooms(receiver, tmp_path_factory.mktemp("traces")) as running:
            visits = {name: visit(running, name, story.act) for name, story in STORIES.items()}
            for name, one in visits.items():
                wait_for_trace(receiver, one, 2 if STORIES[name].connection else 1)
        yield Told(visits, receiver, running.log)


@pytest.fixture(params=STORIES)
def name(request: pytest.FixtureRequest) -> str:
    """Name each story in turn."""
    given: str = request.param
    return given


def test_there_are_two_spans_and_no_more(told: Told, name: str) -> None:
    """A handshake's span, and one for the connection if there was one, by the names of their routes."""
    route = f"/{name.partition('/')[0]}/{{room}}"
    names = [one.name for one in of_trace(told.receiver, told.visits[name].trace_id)]
    assert names == ([f"GET {route}", f"websocket {route}"] if STORIES[name].connection else [f"GET {route}"])


def test_no_other_trace_has_a_span(told: Told) -> None:
    """All spans of the server belong to the traces of the clients."""
    assert {one.trace_id for one in told.receiver.spans()} == {one.trace_id for one in told.visits.values()}


def test_parents_links_and_kinds(told: Told, name: str) -> None:
    """The client's span is the parent of the handshake, which is the connection's parent and its one link."""
    visited = told.visits[name]
    handshake, *connection = of_trace(told.receiver, visited.trace_id)
    assert (handshake.kind, handshake.parent_id, handshake.links) == ("SERVER", visited.parent_id, ())
    for one in connection:
        assert (one.kind, one.parent_id) == ("INTERNAL", handshake.span_id)
        assert [(to.trace_id, to.span_id) for to in one.links] == [(handshake.trace_id, handshake.span_id)]


def test_times(told: Told, name: str) -> None:
    """The handshake lies before the client's answer; the connection lasts from there to the client's end of it."""
    visited, story = told.visits[name], STORIES[name]
    handshake, *connection = of_trace(told.receiver, visited.trace_id)
    assert visited.began_ns <= handshake.start_ns < handshake.end_ns <= visited.opened_ns + CLOCK_NS
    for one in connection:
        assert one.start_ns == handshake.end_ns
        times = [one.start_ns, *(event.time_ns for event in one.events)]
        assert times == sorted(times)
        assert abs(one.end_ns - visited.left_ns) < 5 * CLOCK_NS
        assert next(event.time_ns for event in one.events if event.name == "websocket.close") == one.end_ns
    if story.act is _client_closes:
        assert OPEN_S < (connection[0].end_ns - connection[0].start_ns) / 1e9 < OPEN_S + 0.5


def test_the_handshake_says_what_was_asked_for(told: Told, name: str) -> None:
    """The request without its query string, its answer, and who asked; every value of the right type."""
    handshake = of_trace(told.receiver, told.visits[name].trace_id)[0]
    denied = not STORIES[name].connection
    values = dict(handshake.attributes)
    assert len(values.pop("asgi_ws_guard.connection.id")) == 16
    assert type(values.pop("client.port")) is int
    assert type(values.pop("server.port")) is int
    assert values == {
        "http.request.method": "GET",
        "http.response.status_code": 401 if denied else 101,
        "http.route": f"/{name.partition('/')[0]}/{{room}}",
        "url.scheme": "ws",
        "url.path": f"/{name.partition('/')[0]}/blue",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "client.address": HOST,
        "server.address": HOST,
        "user_agent.original": AGENT,
        "websocket.connection.result": "denied" if denied else "accepted",
    }
    assert type(values["http.response.status_code"]) is int
    assert (handshake.status, handshake.events) == ("UNSET", ())


def test_the_connection_says_how_it_ended(told: Told, name: str) -> None:
    """Code, reason, initiator, status and books are what the client did; only the bug of the handler is an error."""
    story = STORIES[name]
    handshake, *connection = of_trace(told.receiver, told.visits[name].trace_id)
    for one in connection:
        assert one.status == ("UNSET" if story.error is None else "ERROR")
        assert one.attributes.get("error.type") == story.error
        assert one.attributes["asgi_ws_guard.connection.id"] == handshake.attributes["asgi_ws_guard.connection.id"]
        lingered_s = one.attributes["asgi_ws_guard.handler.lingered"]
        assert type(lingered_s) is float
        assert story.lingered_s[0] <= lingered_s < story.lingered_s[1]
        for attribute, value in story.connection.items():
            assert (attribute, one.attributes[attribute]) == (attribute, value)
            assert type(one.attributes[attribute]) is type(value)
        books = {key: value for key, value in one.attributes.items() if key.startswith("asgi_ws_guard.sends.")}
        assert set(books) == {f"asgi_ws_guard.sends.{one}" for one in ("forwarded", "dropped", "failed", "refused")}
        assert all(type(value) is int for value in books.values())
        dropped = {key: value for key, value in one.attributes.items() if key.startswith("asgi_ws_guard.dropped.")}
        assert sum(dropped.values()) == books["asgi_ws_guard.sends.dropped"]
        assert tuple(event.name for event in one.events) == story.events


def test_a_late_send_is_told_with_its_line(told: Told) -> None:
    """The first late send is a span event with the file, line and function of the application."""
    connection = of_trace(told.receiver, told.visits["late"].trace_id)[1]
    late = next(event for event in connection.events if event.name == "asgi_ws_guard.late_send")
    assert late.attributes["code.function.name"] == "late"
    assert late.attributes["code.file.path"].endswith("rooms.py")
    assert type(late.attributes["code.line.number"]) is int
    assert late.attributes["reason"] == "client_disconnected"


def test_a_zombie_is_stopped_by_force(told: Told) -> None:
    """A handler that catches every exception is cancelled in the end, and its span says so."""
    connection = of_trace(told.receiver, told.visits["push"].trace_id)[1]
    stopped = [event for event in connection.events if event.name == "asgi_ws_guard.handler_stopped"]
    assert [event.attributes["asgi_ws_guard.handler.stopped_how"] for event in stopped] == ["raised", "cancelled"]
    assert connection.attributes["asgi_ws_guard.sends.dropped"] > 1
    words = ("websocket.connection.status", "websocket.close.initiator", "websocket.close.code")
    assert tuple(connection.attributes[word] for word in words) in (
        ("transport_error", "transport", 1005),
        ("going_away", "client", 1005),
    )
    assert "asgi_ws_guard.handler.running" not in connection.attributes


def test_who_made_them(told: Told) -> None:
    """All spans carry the scope, its schema and the service's name."""
    for one in told.receiver.spans():
        assert (one.scope.name, one.scope.schema_url) == (
            *("asgi_ws_guard", "https://opentelemetry.io/schemas/1.37.0"),
        )
        assert one.scope.resource["service.name"] == "rooms"


@pytest.mark.parametrize("make_receiver", [HttpReceiver, GrpcReceiver])
def test_a_stopped_server_loses_nothing(make_receiver: Callable[[], Receiver], tmp_path: Path) -> None:
    """
    SIGTERM ends open connections, and the last span and the last count arrive.

    The exporter would wait for minutes by itself, and uvicorn kills its own process with the signal that it got, so
    that nothing runs at exit: only the end of the lifespan is left.
    """
    with make_receiver() as receiver:
        waits = {"OTEL_BSP_SCHEDULE_DELAY": NEVER_MS, "OTEL_METRIC_EXPORT_INTERVAL": NEVER_MS}
        with rooms(receiver, tmp_path, **waits) as running:
            gone = visit(running, "echo", _client_closes)
            with RawPeer(running.port, "/echo/blue") as peer:
                peer.accepted()
                assert receiver.spans() == []
                running.process.terminate()
                running.process.wait(WAIT_S)
        handshakes = receiver.wait_for(2, name="GET /echo/{room}")
        connections = receiver.wait_for(2, name="websocket /echo/{room}")
        assert len(of_trace(receiver, gone.trace_id)) == len(handshakes) == len(connections) == 2
        assert len(receiver.spans()) == 4
        ends = {one.attributes["websocket.connection.status"] for one in connections}
        assert ends == {"normal_closure", "shutdown"}
        counted = receiver.wait_for_metric("websocket.server.connections")
        assert [one.value for one in counted.points if one.value] == [2]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Receiver]]:
    """Run the application with a span for every message."""
    with (
        HttpReceiver() as receiver,
        rooms(receiver, tmp_path_factory.mktemp("messages"), ROOMS_MESSAGE_SPANS="all") as running,
    ):
        yield running, receiver


def _does_not_read(line: str) -> Act:
    """Make a client that reads nothing until the application prints a line, and then vanishes."""

    def act(running: Running, path: str, headers: dict[str, str]) -> tuple[int, int]:
        with RawPeer(running.port, path, headers=headers, receive_buffer_bytes=4096) as peer:
            peer.accepted()
            opened_ns, deadline = time.time_ns(), time.monotonic() + WAIT_S
            while line not in running.log:
                assert time.monotonic() < deadline, running.log
                time.sleep(0.01)
            left_ns = time.time_ns()
            peer.reset()
        return opened_ns, left_ns

    return act


def _messages(receiver: Receiver, visited: Visit) -> list[Span]:
    """List the spans of messages of a connection that is over, in the order of their ends."""
    handshake, connection = wait_for_trace(receiver, visited)
    number = sum(connection.attributes[f"asgi_ws_guard.sends.{one}"] for one in ("forwarded", "dropped", "failed")) - 1
    is_of = connection.attributes["asgi_ws_guard.connection.id"]

    def found() -> list[Span]:
        named = receiver.spans(f"websocket transmit {handshake.attributes['http.route']}")
        return [one for one in named if one.attributes["asgi_ws_guard.connection.id"] == is_of]

    receiver.wait_until(lambda: len(found()) >= number)
    for one in found():
        assert (one.kind, one.parent_id) == ("INTERNAL", "")
        assert [(to.trace_id, to.span_id) for to in one.links] == [(handshake.trace_id, handshake.span_id)]
        assert one.attributes["websocket.message.size"] == len(CHUNK)
    assert len(found()) == number
    return sorted(found(), key=lambda one: one.end_ns)


def test_a_send_that_is_given_up_is_no_success(busy: tuple[Running, Receiver]) -> None:
    """The span of a send that the application cancelled after 300 ms lasted as long, and is an error."""
    running, receiver = busy
    visited = visit(running, "impatient", _does_not_read("gave up blue"))
    *earlier, last = _messages(receiver, visited)
    assert (last.status, last.attributes["result"], last.attributes["error.type"]) == (
        *("ERROR", "failed", "CancelledError"),
    )
    assert STUCK_S - 0.01 <= (last.end_ns - last.start_ns) / 1e9 < STUCK_S + 0.3
    assert earlier
    assert {(one.status, one.attributes["result"]) for one in earlier} == {("UNSET", "forwarded")}


def test_a_send_whose_peer_vanishes_is_no_success(busy: tuple[Running, Receiver]) -> None:
    """The span of a send that hung for 300 ms until the peer was gone lasted as long, and was dropped with a reason."""
    running, receiver = busy
    visited = visit(running, "flood", _does_not_read("stuck blue"))
    *earlier, last = _messages(receiver, visited)
    assert (last.status, last.attributes["result"]) == ("UNSET", "dropped")
    assert last.attributes["reason"] in ("client_disconnected", "transport_lost")
    assert STUCK_S - 0.01 <= (last.end_ns - last.start_ns) / 1e9 <= (visited.left_ns - visited.began_ns) / 1e9 + 0.3
    assert abs(last.end_ns - visited.left_ns) < 5 * CLOCK_NS
    assert {(one.status, one.attributes["result"]) for one in earlier} == {("UNSET", "forwarded")}


def test_a_received_message_lasts_until_the_next_receive(busy: tuple[Running, Receiver]) -> None:
    """Its span holds the handling of one message, the answer's send included, and not the wait for the next."""
    running, receiver = busy
    visited = visit(running, "echo", _client_closes)
    connection = wait_for_trace(receiver, visited)[1]
    number = connection.attributes["websocket.messages.received"]
    handled = receiver.wait_for(number, name="websocket receive /echo/{room}")
    answers = receiver.wait_for(number, name="websocket transmit /echo/{room}")
    assert len(handled) == len(answers) == number
    for one, answer in zip(*(sorted(spans, key=lambda at: at.start_ns) for spans in (handled, answers)), strict=True):
        assert one.start_ns <= answer.start_ns <= answer.end_ns <= one.end_ns
    total_s = sum(one.end_ns - one.start_ns for one in handled) / 1e9
    assert total_s < (connection.end_ns - connection.start_ns) / 1e9
