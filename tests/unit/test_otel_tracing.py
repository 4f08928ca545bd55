"""The trace of one connection: the right spans, with the right parents, links, times, statuses and attributes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, StaticSampler
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from stories import (
    ACCEPT,
    CLOSE,
    HANDSHAKE_S,
    REQUEST,
    ROUTE,
    TEXT,
    Handler,
    Script,
    accepted,
    echo,
    leaves,
    routed,
    serve,
    stays,
    until_disconnect,
)

from asgi_ws_guard import (
    Accepted,
    Close,
    CloseStatus,
    ConfigurationError,
    Deny,
    Drop,
    DropReason,
    Event,
    LateSend,
    MessageReceived,
    Opened,
    ReadAheadFull,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.otel.attributes import MAX_TEXT, SCHEMA_URL, safe
from asgi_ws_guard.plugins.otel.linking import HANDSHAKE_KEY, RootLinker
from asgi_ws_guard.plugins.otel.tracing import TracingObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())


def provider(**options: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    """Make a tracer provider and what it exports to."""
    exporter = InMemorySpanExporter()
    made = TracerProvider(shutdown_on_exit=False, **options)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made, exporter


@dataclass(frozen=True)
class Told:
    """
    What a story left behind.

    Attributes:
        spans: In the order in which they were exported.
        recorder: All events.
        server: What the server was given.
        observer: The observer.
        began_s: Time of day at which the story began at 0 s of the loop's clock; the third is when it had ended.
    """

    spans: Sequence[ReadableSpan]
    recorder: Recorder
    server: ScriptedServer
    observer: TracingObserver
    began_s: tuple[float, float]

    def named(self, name: str) -> list[ReadableSpan]:
        """Give the spans of one name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Give the only span of that name."""
        (span,) = self.named(name)
        return span


def play(
    app: Handler,
    script: Script = stays,
    *,
    sampler: Any = None,
    server: Callable[[], ScriptedServer] | None = None,
    message_spans: Any = "off",
    handler_spans: Any = "children",
    around: Callable[[TracerProvider], contextlib.AbstractContextManager[Any]] | None = None,
    **options: Any,
) -> Told:
    """Play a story with an observer of its own, and see that nothing of it is kept or left behind."""
    made, exporter = provider(sampler=sampler)
    observer = TracingObserver(made, message_spans=message_spans, handler_spans=handler_spans)
    recorder = Recorder()
    served: list[ScriptedServer] = []
    began_s: list[float] = []

    async def main() -> None:
        began_s.append(time.time() - asyncio.get_running_loop().time())
        one = None if server is None else server()
        with contextlib.nullcontext() if around is None else around(made):
            served.append(await serve(app, (observer, recorder), script, server=one, **options))
        began_s.append(time.time())

    run(main)
    assert observer._live == {}
    assert "ObserverFailed" not in recorder.names()
    return Told(exporter.get_finished_spans(), recorder, served[0], observer, (began_s[0], began_s[-1]))


def typed(values: Mapping[str, Any] | None) -> list[tuple[str, type, Any]]:
    """Give names, types and values, for 1 is equal to True and to 1.0."""
    return sorted((name, type(value), value) for name, value in (values or {}).items())


def since(span: ReadableSpan, origin: ReadableSpan) -> tuple[float, float]:
    """Give start and end, in seconds since the start of another span, to the microsecond."""
    assert span.start_time is not None
    assert span.end_time is not None
    assert origin.start_time is not None
    return round((span.start_time - origin.start_time) / 1e9, 6), round((span.end_time - origin.start_time) / 1e9, 6)


def request(recorder: Recorder, **more: Any) -> dict[str, Any]:
    """Give what the handshake's span says of every story's request."""
    return {
        "asgi_ws_guard.connection.id": recorder.one(Opened).connection_id,
        **REQUEST,
        "http.route": ROUTE,
        **more,
    }


def end(initiator: str, status: str, code: int | None, reason: str = "") -> dict[str, Any]:
    """Give what is said of an end."""
    values: dict[str, Any] = {"websocket.close.initiator": initiator, "websocket.connection.status": status}
    if code is not None:
        values["websocket.close.code"] = code
    if reason:
        values["websocket.close.reason"] = reason
    return values


def books(received: int = 0, sent: int = 0, forwarded: int = 1, dropped: int = 0, failed: int = 0) -> dict[str, int]:
    """Give the totals of a connection."""
    return {
        "websocket.messages.received": received,
        "websocket.messages.sent": sent,
        "asgi_ws_guard.sends.forwarded": forwarded,
        "asgi_ws_guard.sends.dropped": dropped,
        "asgi_ws_guard.sends.failed": failed,
        "asgi_ws_guard.sends.refused": 0,
    }


# The stories


async def closes(scope: Scope, receive: Receive, send: Send) -> None:
    """The application closes a second after the accept."""
    await accepted(scope, receive, send)
    await asyncio.sleep(1)
    await send(CLOSE)


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """The handler returns at once."""
    await accepted(scope, receive, send)


async def broken_pipe(scope: Scope, receive: Receive, send: Send) -> None:
    """The transport is lost while it sends."""
    await accepted(scope, receive, send)
    await asyncio.sleep(1)
    await send(TEXT)


async def resets(server: ScriptedServer) -> None:
    """Connect, and let sends fail later."""
    server.connect()
    await asyncio.sleep(1)
    server.fail_sends(ConnectionResetError("reset by peer"))


async def denies_401(scope: Scope, receive: Receive, send: Send) -> None:
    """A denial response, and a handler that goes on."""
    routed(scope)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})
    await asyncio.sleep(3)


async def denies_503(scope: Scope, receive: Receive, send: Send) -> None:
    """A denial response that says that the server is at fault."""
    routed(scope)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def denies_by_close(scope: Scope, receive: Receive, send: Send) -> None:
    """A close before the accept, which servers answer with 403."""
    routed(scope)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    await send({"type": "websocket.close", "code": 1008})


async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
    """The client leaves before there is an answer."""
    routed(scope)
    await receive()
    await receive()
    await asyncio.sleep(5)


async def fails_before(scope: Scope, receive: Receive, send: Send) -> None:
    """An exception before the accept."""
    routed(scope)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    raise LookupError("s3cret")


async def fails_after(scope: Scope, receive: Receive, send: Send) -> None:
    """An exception after the accept."""
    await accepted(scope, receive, send)
    await asyncio.sleep(1)
    raise LookupError("s3cret")


async def sends_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Two late sends, half a second apart."""
    await accepted(scope, receive, send)
    await until_disconnect(receive)
    for _ in range(2):
        await asyncio.sleep(0.5)
        await send(TEXT)


async def raised_zombie(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends for ever, until the guard raises."""
    await accepted(scope, receive, send)
    await until_disconnect(receive)
    while True:
        await send(TEXT)
        await asyncio.sleep(1)


async def cancelled_zombie(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends for ever and swallows what is raised, until the guard cancels."""
    await accepted(scope, receive, send)
    await until_disconnect(receive)
    while True:
        with contextlib.suppress(OSError):
            await send(TEXT)
        await asyncio.sleep(1)


async def parked(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits a minute for something else, whatever the client does."""
    await accepted(scope, receive, send)
    await asyncio.sleep(60)


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends to a peer that does not read."""
    await accepted(scope, receive, send)
    await asyncio.sleep(1)
    await send(TEXT)


async def stalls(server: ScriptedServer) -> None:
    """Connect, and read no more after a second."""
    server.connect()
    await asyncio.sleep(1)
    server.stall_sends()


class Strict:
    """A policy that closes at the first message."""

    def message(self, connection_id: str, direction: str, size: int) -> Close:
        """Close."""
        return Close(4008, "too much", CloseStatus.RATE_LIMITED)


@dataclass(frozen=True)
class Story:
    """
    A connection that was accepted, and what its span is to say.

    Attributes:
        app: The handler.
        script: The client.
        ended_s: When the span ends, in seconds since the handshake began.
        says: Attributes beside id and route.
        events: Name, time and attributes of the span events between accept and end; the code's place is left out.
        error: Value of ``error.type`` if the span is an error.
        options: Those of the guard.
        expected: What leaves the guard.
    """

    app: Handler
    script: Script
    ended_s: float
    says: dict[str, Any]
    events: tuple[tuple[str, float, dict[str, Any]], ...]
    error: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    expected: type[BaseException] | None = None


def lingered(seconds: float) -> dict[str, Any]:
    return {"asgi_ws_guard.handler.lingered": float(seconds)}


LATE = {"asgi_ws_guard.message.type": "websocket.send", "reason": "client_disconnected"}
AWAY = end("client", "going_away", 1001)

NOTHING: dict[str, Any] = {}

ACCEPTED_STORIES = {
    "closed by the client": Story(
        echo,
        leaves(1000, "bye", texts=("a", "é")),
        2.0,
        {**end("client", "normal_closure", 1000, "bye"), **lingered(0), **books(2, 2, 3)},
        (("websocket.close", 2.0, NOTHING),),
    ),
    "closed by the application": Story(
        closes,
        stays,
        1.25,
        {**end("application", "app_close", 4001, "bye"), **lingered(0), **books(0, 0, 2)},
        (("websocket.close", 1.25, NOTHING),),
    ),
    "closed for a handler that returned": Story(
        returns,
        stays,
        0.25,
        {**end("application", "app_close", 1000), **lingered(0), **books()},
        (("websocket.close", 0.25, NOTHING),),
    ),
    "reset": Story(
        broken_pipe,
        resets,
        1.25,
        {
            **end("transport", "transport_error", 1006),
            **lingered(0),
            **books(0, 0, 1, dropped=1),
            "asgi_ws_guard.dropped.transport_lost": 1,
        },
        (
            ("websocket.close", 1.25, NOTHING),
            (
                "asgi_ws_guard.late_send",
                1.25,
                {"asgi_ws_guard.message.type": "websocket.send", "reason": "transport_lost"},
            ),
        ),
    ),
    "exception after the accept": Story(
        fails_after,
        stays,
        1.25,
        {**end("application", "app_error", 1011), **lingered(0), **books()},
        (("websocket.close", 1.25, NOTHING),),
        error="LookupError",
        expected=LookupError,
    ),
    "late sends": Story(
        sends_late,
        leaves(1001),
        2.0,
        {**AWAY, **lingered(1), **books(0, 0, 1, dropped=2), "asgi_ws_guard.dropped.client_disconnected": 2},
        (("websocket.close", 2.0, NOTHING), ("asgi_ws_guard.late_send", 2.5, LATE)),
    ),
    "zombie, raised": Story(
        raised_zombie,
        leaves(1001),
        2.0,
        {
            **AWAY,
            **lingered(10),
            **books(0, 0, 1, dropped=11),
            "asgi_ws_guard.dropped.client_disconnected": 11,
            "asgi_ws_guard.absorbed.type": "ConnectionClosed",
        },
        (
            ("websocket.close", 2.0, NOTHING),
            ("asgi_ws_guard.late_send", 2.0, LATE),
            ("asgi_ws_guard.handler_stopped", 12.0, {"asgi_ws_guard.handler.stopped_how": "raised"}),
        ),
    ),
    "zombie, cancelled": Story(
        cancelled_zombie,
        leaves(1001),
        2.0,
        {
            **AWAY,
            **lingered(4),
            **books(0, 0, 1, dropped=4),
            "asgi_ws_guard.dropped.client_disconnected": 4,
        },
        (
            ("websocket.close", 2.0, NOTHING),
            ("asgi_ws_guard.late_send", 2.0, LATE),
            ("asgi_ws_guard.handler_stopped", 4.0, {"asgi_ws_guard.handler.stopped_how": "raised"}),
            ("asgi_ws_guard.handler_stopped", 6.0, {"asgi_ws_guard.handler.stopped_how": "cancelled"}),
        ),
        options={"linger_s": 2},
    ),
    "zombie that goes on": Story(
        parked,
        leaves(1001),
        2.0,
        {**AWAY, **lingered(21), **books(), "asgi_ws_guard.handler.running": True},
        (("websocket.close", 2.0, NOTHING), ("asgi_ws_guard.handler_outlived", 23.0, lingered(21))),
    ),
    "send timeout": Story(
        slow,
        stalls,
        6.5,
        {**end("guard", "slow_consumer", 1006), **lingered(0), **books(failed=1)},
        (
            ("asgi_ws_guard.send_timeout", 6.5, {"asgi_ws_guard.send.timeout": 5.0}),
            ("websocket.close", 6.5, NOTHING),
        ),
        error="slow_consumer",
        options={"send_timeout_s": 5},
    ),
    "closed by a policy": Story(
        echo,
        leaves(texts=("a",)),
        0.25,
        {**end("guard", "rate_limited", 4008, "too much"), **lingered(0), **books(1)},
        (
            (
                "asgi_ws_guard.policy_applied",
                0.25,
                {
                    "asgi_ws_guard.policy": f"{__name__}.Strict",
                    "asgi_ws_guard.policy.decision": "close",
                    "asgi_ws_guard.policy.reason": "too much",
                },
            ),
            ("websocket.close", 0.25, NOTHING),
        ),
        options={"policies": (Strict(),)},
    ),
}


@pytest.mark.parametrize("story", ACCEPTED_STORIES.values(), ids=ACCEPTED_STORIES)
def test_the_two_spans_of_an_accepted_connection(story: Story) -> None:
    """Exactly two: the handshake until the accept, the connection from there to the end, each with its truth."""
    told = play(story.app, story.script, expected=story.expected, **story.options)
    shake, connection = told.spans

    assert (shake.name, shake.kind, shake.parent, shake.links) == (f"GET {ROUTE}", SpanKind.SERVER, None, ())
    assert shake.status.status_code is StatusCode.UNSET
    assert since(shake, shake) == (0, HANDSHAKE_S)
    says = request(told.recorder, **{"http.response.status_code": 101, "websocket.connection.result": "accepted"})
    assert typed(shake.attributes) == typed(says)
    assert shake.events == ()

    assert (connection.name, connection.kind) == (f"websocket {ROUTE}", SpanKind.INTERNAL)
    assert connection.parent == shake.context
    assert [link.context for link in connection.links] == [shake.context]
    assert connection.links[0].attributes == {}
    assert since(connection, shake) == (HANDSHAKE_S, story.ended_s)
    says = {
        "asgi_ws_guard.connection.id": told.recorder.one(Opened).connection_id,
        "http.route": ROUTE,
        **story.says,
        **({} if story.error is None else {"error.type": story.error}),
    }
    assert typed(connection.attributes) == typed(says)
    assert connection.status.status_code is (StatusCode.UNSET if story.error is None else StatusCode.ERROR)
    assert connection.status.description is None
    assert shake.start_time is not None
    seen = [
        (event.name, round((event.timestamp - shake.start_time) / 1e9, 6), typed(_without_site(event.attributes)))
        for event in connection.events
    ]
    assert seen == [
        ("websocket.accept", HANDSHAKE_S, []),
        *((name, at_s, typed(values)) for name, at_s, values in story.events),
    ]


def _without_site(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if not name.startswith("code.")}


@dataclass(frozen=True)
class Denial:
    """A connection that was not accepted, and what its handshake's span is to say."""

    app: Handler
    script: Script
    ended_s: float
    says: dict[str, Any]
    error: str | None = None
    expected: type[BaseException] | None = None


DENIED = {"websocket.connection.result": "denied"}
DENIALS = {
    "denial response": Denial(denies_401, stays, HANDSHAKE_S, {**DENIED, "http.response.status_code": 401}),
    "denial response, at fault": Denial(
        denies_503, stays, HANDSHAKE_S, {**DENIED, "http.response.status_code": 503}, error="503"
    ),
    "close": Denial(denies_by_close, stays, HANDSHAKE_S, {**DENIED, "http.response.status_code": 403}),
    "abandoned": Denial(hesitates, leaves(1006, after_s=2), 2.0, {"websocket.connection.result": "aborted"}),
    "exception before the accept": Denial(
        fails_before, stays, HANDSHAKE_S, DENIED, error="LookupError", expected=LookupError
    ),
}


@pytest.mark.parametrize("story", DENIALS.values(), ids=DENIALS)
def test_the_one_span_of_a_handshake_without_an_accept(story: Denial) -> None:
    """It ends at the denial, although the handler goes on, and says how; only a fault of the server's is an error."""
    told = play(story.app, story.script, expected=story.expected)
    (shake,) = told.spans
    assert (shake.name, shake.kind, shake.parent) == (f"GET {ROUTE}", SpanKind.SERVER, None)
    assert since(shake, shake) == (0, story.ended_s)
    error = {} if story.error is None else {"error.type": story.error}
    assert typed(shake.attributes) == typed(request(told.recorder, **story.says, **error))
    assert shake.status.status_code is (StatusCode.UNSET if story.error is None else StatusCode.ERROR)
    assert (shake.events, shake.links) == ((), ())


def test_a_policy_that_denies_ends_the_handshake() -> None:
    """With its status; no handler runs and no route is known, so the name has none."""

    class Full:
        def admit(self, handshake: object) -> Deny:
            return Deny(429, end=CloseStatus.RATE_LIMITED)

    told = play(echo, policies=(Full(),))
    (shake,) = told.spans
    assert shake.name == "GET"
    expected = request(told.recorder, **DENIED, **{"http.response.status_code": 429})
    del expected["http.route"]
    assert typed(shake.attributes) == typed(expected)


def test_a_connection_without_a_route_has_names_without_one() -> None:
    """Never the path in its place."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send, None)
        await send(TEXT)

    told = play(app, message_spans="all")
    assert [span.name for span in told.spans] == ["GET", "websocket transmit", "websocket"]
    assert not any("http.route" in (span.attributes or {}) for span in told.spans)


def test_a_route_that_is_known_after_the_accept_names_the_connection() -> None:
    """A handler may be routed late; the handshake's span is gone by then."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        routed(scope)
        await receive()
        await send(ACCEPT)

    told = play(app)
    assert told.one(f"websocket {ROUTE}")


def test_the_times_are_times_of_day() -> None:
    """The loop's clock, moved to the time of day at which the connection opened."""
    told = play(echo, leaves())
    for span in told.spans:
        assert span.start_time is not None
        assert told.began_s[0] - 0.001 <= span.start_time / 1e9 - (0 if span.name.startswith("GET") else HANDSHAKE_S)
        assert span.start_time / 1e9 <= told.began_s[1] + HANDSHAKE_S


def test_a_connection_that_opens_later_on_the_same_loop_has_its_own_time_of_day() -> None:
    """The clock of a loop and the time of day drift apart; each connection looks anew."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await accepted(scope, receive, send)

    made, exporter = provider()

    async def main() -> None:
        await asyncio.sleep(1000)
        await serve(app, (TracingObserver(made),))

    before_s = time.time()
    run(main)
    (start,) = (span.start_time for span in exporter.get_finished_spans() if span.name.startswith("GET"))
    assert start is not None
    assert before_s - 0.001 <= start / 1e9 <= time.time() + 0.001


def test_the_late_send_names_the_place_in_the_application() -> None:
    """File, line and function, by the code conventions."""
    told = play(sends_late, leaves(1001))
    (late,) = (event for event in told.one(f"websocket {ROUTE}").events if event.name == "asgi_ws_guard.late_send")
    site = told.recorder.one(LateSend).site
    assert site is not None
    assert site.function == "sends_late"
    values = late.attributes or {}
    assert typed({name: value for name, value in values.items() if name.startswith("code.")}) == typed(
        {"code.file.path": site.file, "code.line.number": site.line, "code.function.name": "sends_late"}
    )


def test_a_zombie_is_exported_while_it_runs_and_not_again() -> None:
    """The span of a connection does not wait for a handler that may never end; when it does, nothing is added."""
    made, exporter = provider()
    observer, heard = TracingObserver(made), Recorder()
    seen: list[list[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        for pause_s in (22.5, 1.0, 20.0):
            await asyncio.sleep(pause_s)
            seen.append([span.name for span in exporter.get_finished_spans()])
        await send(TEXT)

    run(lambda: serve(app, (observer, heard), leaves(1001)))
    assert heard.names()[-4:] == ["HandlerOutlived", "LateSend", "HandlerStopped", "Closed"]
    shake, connection = f"GET {ROUTE}", f"websocket {ROUTE}"
    assert seen == [[shake], [shake, connection], [shake, connection]]
    assert [span.name for span in exporter.get_finished_spans()] == [shake, connection]
    assert observer._live == {}


@pytest.mark.parametrize(
    ("app", "script", "says", "ended_s"),
    [
        (denies_by_close, stays, "denied", HANDSHAKE_S),
        (hesitates, leaves(1006), "aborted", 2.0),
    ],
    ids=["denied", "aborted"],
)
def test_a_zombie_of_a_handshake_ends_its_span_once(app: Handler, script: Script, says: str, ended_s: float) -> None:
    """The span of a handshake that had no accept does not wait for its handler either."""

    async def goes_on(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        await asyncio.sleep(15)
        seen.extend(exporter.get_finished_spans())
        await asyncio.sleep(60)

    made, exporter = provider()
    seen: list[ReadableSpan] = []
    heard = Recorder()
    run(lambda: serve(goes_on, (TracingObserver(made), heard), script, linger_s=1))
    assert heard.names()[-2:] == ["HandlerOutlived", "Rejected" if says == "denied" else "Abandoned"]
    (shake,) = exporter.get_finished_spans()
    assert seen == [shake]
    assert since(shake, shake) == (0, ended_s)
    assert (shake.attributes or {})["websocket.connection.result"] == says


# Parents


def with_headers(*headers: tuple[bytes, bytes]) -> Callable[[], ScriptedServer]:
    return lambda: ScriptedServer("/rooms/7", headers=list(headers))


@pytest.mark.parametrize("name", [b"traceparent", b"Traceparent"])
def test_the_handshake_is_the_child_of_the_clients_span(name: bytes) -> None:
    """As the header says, however it is spelt; the connection belongs to the same trace."""
    told = play(echo, leaves(), server=with_headers((name, TRACEPARENT[1]), (b"tracestate", b"a=1")))
    shake, connection = told.spans
    assert shake.parent is not None
    assert (f"{shake.parent.trace_id:032x}", f"{shake.parent.span_id:016x}") == (TRACE, PARENT)
    assert shake.parent.is_remote
    assert shake.parent.trace_state == {"a": "1"}
    assert shake.kind is SpanKind.SERVER
    assert connection.context is not None
    assert f"{connection.context.trace_id:032x}" == TRACE


def test_headers_of_several_lines_are_one() -> None:
    """A trace state may come in parts (W3C Trace Context, section 3.3); two parents are none."""
    told = play(echo, leaves(), server=with_headers(TRACEPARENT, (b"tracestate", b"a=1"), (b"Tracestate", b"b=2")))
    assert told.spans[0].parent is not None
    assert dict(told.spans[0].parent.trace_state) == {"a": "1", "b": "2"}
    told = play(echo, leaves(), server=with_headers(TRACEPARENT, TRACEPARENT))
    assert told.spans[0].parent is None


def test_a_propagator_of_another_format_finds_what_it_looks_for() -> None:
    """Some formats carry baggage in headers of any name behind a prefix: they ask for all names, each once."""
    seen: list[Any] = []

    class ByPrefix(TraceContextTextMapPropagator):
        def extract(self, carrier: Any, context: Context | None = None, getter: Any = None) -> Context:
            names = getter.keys(carrier)
            seen.append((names, getter.get(carrier, "X-Baggage-User"), getter.get(carrier, "x-none")))
            return super().extract(carrier, context, getter)

    headers = ((b"X-Baggage-User", b"7"), TRACEPARENT, (b"x-baggage-user", b"8"))
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(ByPrefix())
    try:
        told = play(echo, leaves(), server=with_headers(*headers))
    finally:
        propagate.set_global_textmap(before)
    assert seen == [(["x-baggage-user", "traceparent"], ["7,8"], None)]
    assert told.spans[0].parent is not None


def test_a_sampler_sees_how_the_connection_ended() -> None:
    """Everything is known when the connection's span is made: a sampler may keep the bad ends alone."""
    asked: dict[str, dict[str, Any]] = {}

    class Asked(StaticSampler):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *rest: Any, **named: Any) -> Any:
            asked[name] = dict((rest[1] if len(rest) > 1 else named["attributes"]) or {})
            return super().should_sample(parent_context, trace_id, name, *rest, **named)

    told = play(echo, leaves(1001), sampler=Asked(Decision.RECORD_AND_SAMPLE))
    shake, connection = told.spans
    assert asked[connection.name] == dict(connection.attributes or {})
    assert asked[connection.name]["websocket.close.code"] == 1001
    assert set(asked) == {"GET", connection.name}
    assert shake.name.startswith("GET")


@pytest.mark.parametrize(
    "value", [b"", b"00-zz-zz-01", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"\xff\xfe", b"x" * 10_000]
)
def test_a_broken_traceparent_starts_a_new_trace(value: bytes) -> None:
    """Whatever a stranger sends."""
    told = play(echo, leaves(), server=with_headers((b"traceparent", value)))
    shake, connection = told.spans
    assert shake.parent is None
    assert connection.parent == shake.context


def test_inside_a_span_of_another_instrumentation_the_handshake_is_its_child() -> None:
    """Then that span is the server's, and this one is internal; the header was theirs to read."""
    told = play(
        echo,
        leaves(),
        server=with_headers(TRACEPARENT),
        around=lambda made: made.get_tracer("other").start_as_current_span("outer"),
    )
    shake, connection, outer = told.spans
    assert outer.name == "outer"
    assert shake.parent == outer.context
    assert (shake.kind, connection.kind) == (SpanKind.INTERNAL, SpanKind.INTERNAL)


def test_a_connection_may_be_of_http_2_and_of_a_unix_socket() -> None:
    """What the server does not tell is not said, and no attribute is None."""
    told = play(
        echo,
        leaves(),
        server=lambda: ScriptedServer(
            "/rooms/7", client=None, server=("/run/app.sock", None), scheme="wss", http_version="2"
        ),
    )
    other = play(echo, leaves(), server=lambda: ScriptedServer("/rooms/7", client=("10.0.0.9", None), server=None))
    nobody = play(echo, leaves(), server=lambda: ScriptedServer("/rooms/7", client=(None, 1), server=(None, 2)))
    assert not [name for name in nobody.spans[0].attributes or {} if name.startswith(("client.", "server."))]
    values = told.spans[0].attributes or {}
    assert (values["url.scheme"], values["network.protocol.version"]) == ("wss", "2")
    assert values["server.address"] == "/run/app.sock"
    assert not {"client.address", "client.port", "server.port"} & set(values)
    values = other.spans[0].attributes or {}
    assert values["client.address"] == "10.0.0.9"
    assert not {"client.port", "server.address", "server.port"} & set(values)


def test_the_user_agent_is_the_only_header_that_is_said() -> None:
    """Made safe, however it is spelt."""
    told = play(echo, leaves(), server=with_headers((b"cookie", b"s3cret"), (b"User-Agent", b"curl\n" + b"x" * 999)))
    values = told.spans[0].attributes or {}
    assert values["user_agent.original"] == "curl\\n" + "x" * (MAX_TEXT - 6) + "…"
    assert "s3cret" not in str(dict(values))


def test_foreign_text_is_cut_and_escaped() -> None:
    """No control character, no lone surrogate, no sheet of text; the bound holds for what comes out."""
    assert safe("é ✓") == "é ✓"
    assert safe("a\x00\n\u202e\udcff") == "a\\x00\\n\\u202e\\udcff"
    assert safe("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert safe("x" * (MAX_TEXT + 1)) == "x" * MAX_TEXT + "…"
    assert len(safe("\U000e0001" * 10_000)) == MAX_TEXT + 1


def test_the_scope_of_the_spans_is_ours() -> None:
    """With name and schema."""
    told = play(echo, leaves())
    for span in told.spans:
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "asgi_ws_guard"
        assert span.instrumentation_scope.schema_url == SCHEMA_URL


# Events of the span


def test_a_span_has_at_most_32_events_and_the_close_is_one_of_them() -> None:
    """The accept and 30 more find a place, the close always has one, and what found none is counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        for _ in range(50):
            with contextlib.suppress(RuntimeError):
                await send(ACCEPT)
        await send(CLOSE)
        await send(TEXT)

    connection = play(app).one(f"websocket {ROUTE}")
    kinds = [event.name for event in connection.events]
    assert kinds == ["websocket.accept", *["asgi_ws_guard.violation"] * 30, "websocket.close"]
    assert typed({"o": (connection.attributes or {})["asgi_ws_guard.events.omitted"]}) == [("o", int, 21)]
    values = connection.events[1].attributes or {}
    assert values["asgi_ws_guard.violation.state"] == "OPEN"
    assert "accept" in str(values["asgi_ws_guard.violation.problem"])


def test_every_step_has_a_name_and_attributes() -> None:
    """Also those that are rare."""
    told = play(closes)
    opened, accept = told.recorder.one(Opened), told.recorder.one(Accepted)
    one = opened.connection_id
    made, exporter = provider()
    observer = TracingObserver(made)
    (closed,) = told.recorder.events[-1:]

    class Careless:
        def message(self, connection_id: str, direction: str, size: int) -> Drop:
            return Drop("spam\n")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await send(TEXT)
        await send({"type": "websocket.close", "code": 1005, "reason": "x" * 200})

    seen = play(app, policies=(Careless(),)).one(f"websocket {ROUTE}")
    events = {event.name: dict(event.attributes or {}) for event in seen.events}
    assert events["asgi_ws_guard.policy_applied"]["asgi_ws_guard.policy.decision"] == "drop"
    assert events["asgi_ws_guard.policy_applied"]["asgi_ws_guard.policy.reason"] == "spam\\n"
    assert typed(events["asgi_ws_guard.close_adjusted"]) == [
        ("asgi_ws_guard.close.asked_code", int, 1005),
        ("websocket.close.code", int, 1000),
    ]

    token = otel_context.attach(Context())
    for event in (opened, accept, ReadAheadFull(one, 0.5, 3, 99), closed):
        observer(event)
    otel_context.detach(token)
    events = {event.name: dict(event.attributes or {}) for event in exporter.get_finished_spans()[-1].events}
    assert typed(events["asgi_ws_guard.read_ahead_full"]) == [
        ("asgi_ws_guard.unread.messages", int, 3),
        ("asgi_ws_guard.unread.size", int, 99),
    ]


def test_another_observer_that_fails_is_an_event() -> None:
    """Its name and the type of its error, not the text."""
    made, exporter = provider()

    class Broken:
        def __call__(self, event: Event) -> None:
            if isinstance(event, Accepted):
                raise LookupError("s3cret")

    run(lambda: serve(closes, (TracingObserver(made), Broken())))
    events = {event.name: dict(event.attributes or {}) for event in exporter.get_finished_spans()[-1].events}
    assert list(events["asgi_ws_guard.observer_failed"].items()) == [
        ("asgi_ws_guard.observer", f"{__name__}.{Broken.__qualname__}"),
        ("error.type", "LookupError"),
    ]


def test_bytes_are_said_when_somebody_counts_them() -> None:
    """Not without, for 0 would be a lie."""

    class Sizes(Recorder):
        wants_sizes = True

    made, exporter = provider()
    run(lambda: serve(echo, (TracingObserver(made), Sizes()), leaves(texts=("é", "abc"))))
    values = exporter.get_finished_spans()[-1].attributes or {}
    said = {name: value for name, value in values.items() if name.startswith("websocket.io")}
    assert typed(said) == [("websocket.io.received", int, 5), ("websocket.io.sent", int, 5)]
    run(lambda: serve(sending(TEXT), (TracingObserver(made), Sizes())))
    values = exporter.get_finished_spans()[-1].attributes or {}
    assert (values["websocket.io.received"], values["websocket.io.sent"]) == (0, 3)


# Cancellation is no error


def test_a_handler_that_the_server_cancels_is_no_error() -> None:
    """Servers cancel at their shutdown, and daphne after a disconnect: that is not this application's failure."""
    made, exporter = provider()

    async def main() -> None:
        server = ScriptedServer("/rooms/7")
        task = server.call(WebSocketGuardMiddleware(parked, observers=(TracingObserver(made),)))
        server.connect()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        server = ScriptedServer("/rooms/7")
        task = server.call(WebSocketGuardMiddleware(parked, observers=(TracingObserver(made),)))
        server.connect()
        await asyncio.sleep(1)
        server.disconnect(1000)
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    spans = exporter.get_finished_spans()
    assert [(span.attributes or {}).get("websocket.connection.status") for span in spans] == [
        None,
        "shutdown",
        None,
        "normal_closure",
    ]
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    assert not any("error.type" in (span.attributes or {}) for span in spans)


# The handler's own spans


def working(made: TracerProvider, *, child_task: bool = False) -> Handler:
    """Make a handler that works in spans of its own: before and after the accept, and in a task that it creates."""
    tracer = made.get_tracer("app")

    async def in_task() -> None:
        with tracer.start_as_current_span("in task"):
            pass

    async def accept_it(scope: Scope, receive: Receive, send: Send) -> None:
        with tracer.start_as_current_span("before"):
            pass
        await accepted(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if child_task:
            await asyncio.create_task(accept_it(scope, receive, send))
        else:
            await accept_it(scope, receive, send)
        with tracer.start_as_current_span("work"), tracer.start_as_current_span("inner"):
            pass
        await asyncio.create_task(in_task())

    return app


OWN = ("before", "work", "in task")


@pytest.mark.parametrize("child_task", [False, True], ids=["own task", "child task"])
def test_the_handlers_spans_are_children_of_the_handshake(child_task: bool) -> None:
    """Before and after the accept, in its task and in those that it creates, also where a child accepts (Quart)."""
    made, exporter = provider()
    run(lambda: serve(working(made, child_task=child_task), (TracingObserver(made),)))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    shake = spans[f"GET {ROUTE}"]
    assert [spans[name].parent for name in OWN] == [shake.context] * 3
    assert spans["inner"].parent == spans["work"].context
    assert not any(spans[name].links for name in (*OWN, "inner"))


@pytest.mark.parametrize("child_task", [False, True], ids=["own task", "child task"])
def test_linked_the_handlers_spans_are_roots_with_one_link(child_task: bool) -> None:
    """To the handshake; a span inside one of them is its child, without a link."""
    made, exporter = provider()
    run(lambda: serve(working(made, child_task=child_task), (TracingObserver(made, handler_spans="linked"),)))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    shake = spans[f"GET {ROUTE}"]
    for name in OWN:
        assert spans[name].parent is None
        assert [link.context for link in spans[name].links] == [shake.context]
    assert len({spans[name].context.trace_id for name in (*OWN, f"GET {ROUTE}")}) == 4
    assert spans["inner"].parent == spans["work"].context
    assert spans["inner"].links == ()
    assert spans[f"websocket {ROUTE}"].parent == shake.context
    assert len(spans[f"websocket {ROUTE}"].links) == 1


def test_linked_gives_one_link_however_many_guards_and_observers_there_are() -> None:
    """A provider gets one processor; the link goes to the handshake of the observer that is heard last."""
    made, exporter = provider()
    observers = [TracingObserver(made, handler_spans="linked") for _ in range(3)]

    async def main() -> None:
        await serve(working(made), observers[:2])
        await serve(working(made), observers[2:])

    run(main)
    work = [span for span in exporter.get_finished_spans() if span.name == "work"]
    assert [len(span.links) for span in work] == [1, 1]
    processors = made._active_span_processor._span_processors
    assert sum(isinstance(one, RootLinker) for one in processors) == 1


def test_linked_does_not_link_what_is_outside_of_a_handler() -> None:
    """Another span of the same provider, also one that is started while a connection lives, in another task."""
    made, exporter = provider()
    tracer = made.get_tracer("app")

    async def main() -> None:
        task = asyncio.create_task(serve(closes, (TracingObserver(made, handler_spans="linked"),)))
        await asyncio.sleep(0.5)
        tracer.start_span("outside").end()
        tracer.start_span("explicit", context=Context()).end()
        await task

    run(main)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert (spans["outside"].links, spans["explicit"].links) == ((), ())


class Bare(NoOpTracerProvider):
    """A provider of somebody else's, without span processors."""

    def __init__(self, inner: TracerProvider) -> None:
        self.inner = inner

    def get_tracer(self, *arguments: Any, **named: Any) -> trace.Tracer:
        """Give the tracer of the provider inside."""
        return self.inner.get_tracer(*arguments, **named)


def test_linked_works_without_links_where_a_provider_takes_no_processor() -> None:
    """The handler's spans are roots all the same."""
    made, exporter = provider()
    heard = Recorder()
    run(lambda: serve(working(made), (TracingObserver(Bare(made), handler_spans="linked"), heard)))
    assert "ObserverFailed" not in heard.names()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert (spans["work"].parent, spans["work"].links) == (None, ())
    assert len(spans) == 6


def test_the_processor_holds_nothing() -> None:
    """It is asked to flush and to shut down as others are."""
    made, _ = provider()
    linker = RootLinker()
    made.add_span_processor(linker)  # type: ignore[arg-type]
    assert made.force_flush()
    assert linker.force_flush()
    made.shutdown()


# Context is given back


def accepting_in_a_child(scope: Scope, receive: Receive, send: Send) -> Any:
    return working(TracerProvider(shutdown_on_exit=False), child_task=True)(scope, receive, send)


@pytest.mark.parametrize("handler_spans", ["children", "linked"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("app", "expected"),
    [(closes, None), (denies_by_close, None), (fails_after, LookupError), (accepting_in_a_child, None)],
    ids=["closed", "denied", "failed", "accepted in a child"],
)
def test_the_task_of_the_handler_gets_its_context_back(
    app: Handler,
    expected: type[BaseException] | None,
    count: int,
    handler_spans: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server may serve the next connection in the same task: nothing of this one is left, whoever else observes."""
    made, _ = provider()
    observers = tuple(TracingObserver(made, handler_spans=handler_spans) for _ in range(count))
    inside: list[Context] = []

    async def looks(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(otel_context.get_current())
        await app(scope, receive, send)

    async def main() -> None:
        server = ScriptedServer("/rooms/7")
        server.connect()
        guard = WebSocketGuardMiddleware(looks, observers=observers)
        before = otel_context.get_current()
        with contextlib.suppress(*() if expected is None else (expected,)):
            await guard(server.scope, server.receive, server.send)
        assert otel_context.get_current() is before
        assert inside[0] is not before
        with made.get_tracer("other").start_as_current_span("outer") as outer:
            server = ScriptedServer("/rooms/7")
            server.connect()
            with contextlib.suppress(*() if expected is None else (expected,)):
                await guard(server.scope, server.receive, server.send)
            assert trace.get_current_span() is outer
        assert otel_context.get_current() is before

    run(main)
    assert caplog.records == []


def test_a_context_that_the_handler_left_behind_is_taken_back_too() -> None:
    """Whatever it attached and never detached."""
    made, _ = provider()

    async def untidy(scope: Scope, receive: Receive, send: Send) -> None:
        otel_context.attach(otel_context.set_value("left", "behind"))
        await accepted(scope, receive, send)

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        before = otel_context.get_current()
        guard = WebSocketGuardMiddleware(untidy, observers=(TracingObserver(made),))
        await guard(server.scope, server.receive, server.send)
        assert otel_context.get_current() is before

    run(main)


class Stacked:
    """A runtime context of somebody else's, whose tokens are not those of `contextvars`."""

    def __init__(self) -> None:
        self.stack = [Context()]

    def attach(self, context: Context) -> Any:
        """Push."""
        self.stack.append(context)
        return len(self.stack) - 1

    def get_current(self) -> Context:
        """Give the last one."""
        return self.stack[-1]

    def detach(self, token: Any) -> None:
        """Go back to what was before."""
        del self.stack[token:]


def test_another_runtime_context_gets_its_context_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry lets one be plugged in by ``OTEL_PYTHON_CONTEXT``; its tokens are its own."""
    stacked = Stacked()
    monkeypatch.setattr(otel_context, "_RUNTIME_CONTEXT", stacked)
    told = play(closes)
    assert len(told.spans) == 2
    assert len(stacked.stack) == 1


def test_a_coroutine_that_the_garbage_collector_closes_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is closed wherever the collector runs; the context there stays, nothing is logged, nothing is kept."""
    made, exporter = provider()
    observer = TracingObserver(made)

    async def main() -> None:
        server = ScriptedServer("/rooms/7")
        server.connect()
        guard = WebSocketGuardMiddleware(parked, observers=(observer,))
        coroutine = guard(server.scope, server.receive, server.send)
        contextvars.copy_context().run(coroutine.send, None)
        assert observer._live
        with made.get_tracer("other").start_as_current_span("somebody") as span:
            coroutine.close()
            assert trace.get_current_span() is span

    run(main)
    assert caplog.records == []
    assert observer._live == {}
    assert [span.name for span in exporter.get_finished_spans()] == [f"GET {ROUTE}", "somebody"]


def test_nothing_leaks_into_other_tasks() -> None:
    """A task beside the handler, and one that was there before, never see the span of the handshake."""
    made, _ = provider()
    seen: list[bool] = []

    async def bystander() -> None:
        for _ in range(10):
            seen.append(trace.get_current_span().get_span_context().is_valid)
            await asyncio.sleep(0.2)

    async def main() -> None:
        task = asyncio.create_task(bystander())
        await serve(closes, (TracingObserver(made),))
        await task

    run(main)
    assert seen == [False] * 10


def test_the_handler_does_not_hold_the_span_of_the_handshake() -> None:
    """A handler may run for days; only the ids of the span stay."""
    made, _ = provider()
    after: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        after.append(trace.get_current_span())

    run(lambda: serve(app, (TracingObserver(made),)))
    assert type(after[0]) is NonRecordingSpan


def test_a_span_of_the_application_around_the_accept_stays_current() -> None:
    """The accept takes nobody's context away."""
    made, exporter = provider()
    tracer = made.get_tracer("app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with tracer.start_as_current_span("own") as own:
            await accepted(scope, receive, send)
            assert trace.get_current_span() is own

    run(lambda: serve(app, (TracingObserver(made),)))
    assert "own" in [span.name for span in exporter.get_finished_spans()]


# Broken things


class Explosive(SpanProcessor):
    """A span processor that raises for some spans."""

    def __init__(self, name: str, at: str) -> None:
        self.name, self.at = name, at

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        """Raise, perhaps."""
        if self.at == "start" and span.name == self.name:
            raise LookupError("processor")

    def on_end(self, span: ReadableSpan) -> None:
        """Raise, perhaps."""
        if self.at == "end" and span.name.startswith(self.name):
            raise LookupError("processor")


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("name", ["GET", f"websocket {ROUTE}"])
def test_a_processor_that_raises_costs_no_memory_and_no_context(
    name: str, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The guard contains it; what was kept of the connection goes all the same, and the context comes back."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(Explosive(name, at))
    observer = TracingObserver(made)

    async def main() -> None:
        server = ScriptedServer("/rooms/7")
        server.connect()
        before = otel_context.get_current()
        guard = WebSocketGuardMiddleware(closes, observers=(observer,))
        await guard(server.scope, server.receive, server.send)
        assert otel_context.get_current() is before
        assert sum(guard.observer_failures.values()) == 1

    run(main)
    assert observer._live == {}
    assert len(caplog.records) == 1


# Without an SDK, and without a sample


@pytest.mark.parametrize("made", [None, NoOpTracerProvider()], ids=["none", "no-op"])
def test_without_an_sdk_nothing_is_kept_and_nothing_attached(made: trace.TracerProvider | None) -> None:
    """It costs next to nothing, and asks for no messages."""
    observer = TracingObserver(made, message_spans="all")
    assert not observer.wants_messages
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(bool(observer._live))
        seen.append(otel_context.get_current() is outside[0])
        await accepted(scope, receive, send)

    outside: list[Context] = []

    async def main() -> None:
        outside.append(otel_context.get_current())
        await serve(app, (observer,))

    run(main)
    assert seen == [False, True]


def test_what_is_not_sampled_is_not_exported() -> None:
    """Neither the two spans nor those of the handler, whose trace it is."""
    made, exporter = provider(sampler=ALWAYS_OFF)
    observer = TracingObserver(made)
    run(lambda: serve(working(made), (observer,)))
    assert exporter.get_finished_spans() == ()
    assert observer._live == {}


def test_the_client_decides_whether_its_trace_is_sampled() -> None:
    """By the flag in its header, for the connection's span too."""
    told = play(echo, leaves(), server=with_headers((b"traceparent", TRACEPARENT[1][:-2] + b"00")))
    assert told.spans == ()


def test_no_cycle_keeps_what_was_kept_of_a_connection() -> None:
    """It is gone with the terminal event, without the help of the garbage collector."""
    made, _ = provider()
    observer = TracingObserver(made)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        spans.append(weakref.ref(shaking[0]))

    async def begins(scope: Scope, receive: Receive, send: Send) -> None:
        shaking.append(trace.get_current_span())
        await app(scope, receive, send)

    shaking: list[Any] = []
    spans: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        made.shutdown()
        run(lambda: serve(begins, (observer,)))
        shaking.clear()
        assert spans[0]() is None
    finally:
        gc.enable()


# Spans of messages


def messages(told: Told, direction: str = "transmit") -> list[ReadableSpan]:
    return told.named(f"websocket {direction} {ROUTE}")


def test_message_spans_are_off_unless_they_are_asked_for() -> None:
    """And nobody pays for the messages."""
    made, _ = provider()
    assert not TracingObserver(made).wants_messages
    assert not TracingObserver(made, message_spans=0).wants_messages
    assert not TracingObserver(made, message_spans="off").wants_messages
    for share in ("all", 1, 0.01):
        assert TracingObserver(made, message_spans=share).wants_messages
    told = play(echo, leaves(texts=("a",)))
    assert len(told.spans) == 2


class SlowServer(ScriptedServer):
    """A server whose send takes 300 ms, and may fail then."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("/rooms/7")
        self.failure = error

    async def send(self, message: Message) -> None:
        """Take a message, in time."""
        if message["type"] == "websocket.send":
            await asyncio.sleep(0.3)
            if self.failure is not None:
                raise self.failure
        await super().send(message)


def sending(message: Message) -> Handler:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await asyncio.sleep(1)
        with contextlib.suppress(LookupError):
            await send(message)

    return app


@pytest.mark.parametrize(
    ("error", "message", "says", "status"),
    [
        (None, TEXT, {"websocket.message.type": "text", "websocket.message.size": 3, "result": "forwarded"}, False),
        (
            None,
            {"type": "websocket.send", "bytes": b"\x00\x01"},
            {"websocket.message.type": "binary", "websocket.message.size": 2, "result": "forwarded"},
            False,
        ),
        (
            LookupError("s3cret"),
            TEXT,
            {
                "websocket.message.type": "text",
                "websocket.message.size": 3,
                "result": "failed",
                "error.type": "LookupError",
            },
            True,
        ),
        (
            ConnectionResetError("s3cret"),
            TEXT,
            {
                "websocket.message.type": "text",
                "websocket.message.size": 3,
                "result": "dropped",
                "reason": "transport_lost",
            },
            False,
        ),
    ],
    ids=["text", "binary", "failed", "dropped"],
)
def test_the_span_of_a_sent_message_wraps_the_real_send(
    error: Exception | None, message: Message, says: dict[str, Any], status: bool
) -> None:
    """Its time and its outcome: 300 ms and failed is an error; dropped is none. A root, linked to the handshake."""
    told = play(sending(message), server=lambda: SlowServer(error), message_spans="all")
    (span,) = messages(told)
    shake = told.one(f"GET {ROUTE}")
    assert since(span, shake) == (1.25, 1.55)
    assert (span.kind, span.parent) == (SpanKind.INTERNAL, None)
    assert [link.context for link in span.links] == [shake.context]
    assert span.context is not None
    assert shake.context is not None
    assert span.context.trace_id != shake.context.trace_id
    expected = {
        "asgi_ws_guard.connection.id": told.recorder.one(Opened).connection_id,
        "network.io.direction": "transmit",
        "http.route": ROUTE,
        **says,
    }
    assert typed(span.attributes) == typed(expected)
    assert span.status.status_code is (StatusCode.ERROR if status else StatusCode.UNSET)


def test_a_late_message_gets_no_span() -> None:
    """The server was never asked; it is in the totals."""
    assert messages(play(sends_late, leaves(1001), message_spans="all")) == []


def test_the_span_of_a_received_message_lasts_until_the_next_receive() -> None:
    """Not over the idle wait; the last one until the end of the handler."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        for work_s in (0.5, 0.25):
            await receive()
            await asyncio.sleep(work_s)
            if work_s == 0.25:
                return

    async def script(server: ScriptedServer) -> None:
        server.connect()
        await asyncio.sleep(1)
        server.text("é")
        await asyncio.sleep(3)
        server.deliver({"type": "websocket.receive", "bytes": b"12345"})

    told = play(app, script, message_spans="all")
    shake = told.one(f"GET {ROUTE}")
    first, second = messages(told, "receive")
    assert [since(span, shake) for span in (first, second)] == [(1.0, 1.5), (4.0, 4.25)]
    for span, kind, size in ((first, "text", 2), (second, "binary", 5)):
        assert span.parent is None
        assert [link.context for link in span.links] == [shake.context]
        expected = {
            "asgi_ws_guard.connection.id": told.recorder.one(Opened).connection_id,
            "network.io.direction": "receive",
            "websocket.message.type": kind,
            "websocket.message.size": size,
            "http.route": ROUTE,
        }
        assert typed(span.attributes) == typed(expected)
    assert told.recorder.of(MessageReceived)


@pytest.mark.parametrize("handler_spans", ["children", "linked"])
def test_a_message_that_is_sent_inside_a_span_is_its_child(handler_spans: Any) -> None:
    """Linked to the handshake all the same; a received one is a root wherever it is handled."""
    made, exporter = provider()
    tracer = made.get_tracer("app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await receive()
        with tracer.start_as_current_span("own"):
            await send(TEXT)
            await receive()

    run(
        lambda: serve(
            app, (TracingObserver(made, message_spans="all", handler_spans=handler_spans),), leaves(texts=("a",))
        )
    )
    spans = {span.name: span for span in exporter.get_finished_spans()}
    sent, received = spans[f"websocket transmit {ROUTE}"], spans[f"websocket receive {ROUTE}"]
    assert sent.parent == spans["own"].context
    assert received.parent is None
    for span in (sent, received):
        assert [link.context for link in span.links] == [spans[f"GET {ROUTE}"].context]


@pytest.mark.parametrize("handler_spans", ["children", "linked"])
def test_a_broadcast_does_not_put_its_messages_into_the_trace_of_the_sender(handler_spans: Any) -> None:
    """The handler of another connection sends, in no span of the application's: a root, linked to the receiver's."""
    made, exporter = provider()
    observer = TracingObserver(made, message_spans="all", handler_spans=handler_spans)
    peers: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        if peers:
            await peers[0](TEXT)
            return
        peers.append(send)
        await until_disconnect(receive)

    async def main() -> None:
        guard = WebSocketGuardMiddleware(app, observers=(observer,))
        servers = [ScriptedServer("/rooms/7") for _ in range(2)]
        tasks = []
        for server in servers:
            server.connect()
            tasks.append(server.call(guard))
            await asyncio.sleep(1)
        servers[0].disconnect()
        await asyncio.gather(*tasks)

    run(main)
    spans = exporter.get_finished_spans()
    (sent,) = (span for span in spans if span.name == f"websocket transmit {ROUTE}")
    receiver = next(span for span in spans if span.name == f"GET {ROUTE}")
    assert sent.parent is None
    assert [link.context for link in sent.links] == [receiver.context]


def test_a_share_of_the_messages_gets_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by chance, sent and received alike."""
    draws = iter([0.0, 0.249, 0.25, 0.9, 0.1, 0.999])
    monkeypatch.setattr(random, "random", lambda: next(draws))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        for _ in range(6):
            await send(TEXT)

    assert len(messages(play(app, message_spans=0.25))) == 3
    assert next(draws, None) is None


def test_all_messages_get_spans_without_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance has no part in it."""
    monkeypatch.setattr(random, "random", lambda: 1.0)
    told = play(echo, leaves(texts=("a", "b")), message_spans="all")
    assert (len(messages(told)), len(messages(told, "receive"))) == (2, 2)


# Options


@pytest.mark.parametrize("value", ["some", "", None, True, False, -0.1, 1.1, float("nan"), "0.5", [1]])
def test_bad_message_spans_are_refused(value: Any) -> None:
    """When the observer is built."""
    with pytest.raises(ConfigurationError, match="message_spans"):
        TracingObserver(message_spans=value)


@pytest.mark.parametrize("value", ["roots", "", None, True])
def test_bad_handler_spans_are_refused(value: Any) -> None:
    """When the observer is built."""
    with pytest.raises(ConfigurationError, match="handler_spans"):
        TracingObserver(handler_spans=value)


def test_events_of_a_connection_that_was_never_opened_are_passed_over() -> None:
    """An observer that was asked too late, or a leak after the end."""
    told = play(sends_late, leaves(1001))
    observer = TracingObserver(provider()[0])
    for event in told.recorder.events:
        if not isinstance(event, Opened):
            observer(event)
    assert observer._live == {}


def test_the_reason_of_a_late_send_is_one_of_a_few() -> None:
    """The name of an attribute may hold it."""
    told = play(sends_late, leaves(1001))
    prefix = "asgi_ws_guard.dropped."
    said = [name for name in told.spans[1].attributes or {} if name.startswith(prefix)]
    assert {name.removeprefix(prefix) for name in said} <= {reason.value for reason in DropReason}
    assert HANDSHAKE_KEY.startswith("asgi_ws_guard.")
