"""`Telemetry`: three observers in one, and no secret in anything that they tell."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stories import ACCEPT, CLOSE, HANDSHAKE_S, ROUTE, TEXT, Handler, Script, accepted, echo, leaves, routed, serve

from asgi_ws_guard import (
    Close,
    CloseStatus,
    ConfigurationError,
    Event,
    ObserverFailed,
    Opened,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._session import Session
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.otel.attributes import MAX_TEXT
from asgi_ws_guard.testing import Recorder, ScriptedServer, run


@dataclass
class Wired:
    """Providers, and what they export."""

    tracers: TracerProvider
    meters: MeterProvider
    loggers: LoggerProvider
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    logs: InMemoryLogRecordExporter

    def telemetry(self, **options: Any) -> Telemetry:
        """Make the observer."""
        return Telemetry(
            tracer_provider=self.tracers, meter_provider=self.meters, logger_provider=self.loggers, **options
        )

    def metrics(self) -> Any:
        """Collect. Dict: name -> list of labels and values."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [json.loads(point.to_json()) for point in metric.data.data_points]
        return found

    def everything(self) -> list[tuple[str, Any]]:
        """Give every exported word: the place where it stands, and the word."""
        outputs: dict[str, Any] = {
            "spans": [json.loads(span.to_json()) for span in self.spans.get_finished_spans()],
            "logs": [json.loads(log.to_json()) for log in self.logs.get_finished_logs()],
            "metrics": self.metrics(),
        }
        return list(_walk("", outputs))


def _walk(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield place, name
            yield from _walk(name, one)
    elif isinstance(value, list):
        for one in value:
            yield from _walk(place, one)
    else:
        yield place, value


@pytest.fixture
def wired() -> Wired:
    """All three providers, in memory."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    tracers, loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    return Wired(tracers, meters, loggers, spans, reader, logs)


# Composition


def test_it_is_traces_metrics_and_logs_in_one(wired: Wired) -> None:
    """With the options handed down, and the log records in the trace of the handshake."""
    telemetry = wired.telemetry(message_spans="all", handler_spans="linked")
    assert telemetry.wants_messages
    assert telemetry.wants_sizes

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        with wired.tracers.get_tracer("app").start_as_current_span("own"):
            await send(TEXT)

    run(lambda: serve(app, (telemetry,)))
    names = [span.name for span in wired.spans.get_finished_spans()]
    assert names == [f"GET {ROUTE}", f"websocket transmit {ROUTE}", "own", f"websocket {ROUTE}"]
    own = wired.spans.get_finished_spans()[2]
    assert (own.parent, len(own.links)) == (None, 1)
    records = wired.logs.get_finished_logs()
    assert [log.log_record.event_name for log in records] == [
        "websocket.open",
        "websocket.accept",
        "websocket.close",
        "websocket.closed",
    ]
    shake = wired.spans.get_finished_spans()[0].context
    assert shake is not None
    assert {log.log_record.span_id for log in records} == {shake.span_id}
    found = wired.metrics()
    assert found["websocket.server.connection.duration"][0]["count"] == 1
    assert {point["value"] for point in found["websocket.server.io"]} == {0, 3}


def test_options_may_switch_parts_off(wired: Wired) -> None:
    """Sizes and message spans are wishes that cost every message something."""
    assert not wired.telemetry(sizes=False).wants_sizes
    assert not wired.telemetry().wants_messages


def test_without_providers_it_wishes_nothing() -> None:
    """The global ones are none: no slower path, nothing kept."""
    telemetry = Telemetry(message_spans="all")
    assert not telemetry.wants_messages
    assert not telemetry.wants_sizes
    run(lambda: serve(echo, (telemetry,), leaves()))
    telemetry.flush()


def test_no_session_is_kept_by_what_observes_it(wired: Wired) -> None:
    """When the handlers are done nothing of their connections is reachable, though observers and providers live on."""
    telemetry, context = wired.telemetry(message_spans="all", handler_spans="linked"), LogContext()
    heard = Recorder()

    async def main() -> None:
        guard = WebSocketGuardMiddleware(_talkative, observers=(telemetry, context, heard))
        for _ in range(3):
            server = _secretive()
            script = asyncio.ensure_future(_speaks(server))
            with contextlib.suppress(LookupError):
                await server.call(guard)
            await script
        await asyncio.sleep(60)
        gc.collect()
        ids = {opened.connection_id for opened in heard.of(Opened)}
        sessions = [
            one for one in gc.get_objects() if type(one) is Session
        ]  # isinstance asks lazy objects for their class
        assert not ids & {session.connection_id for session in sessions}
        assert guard.totals().sent == 3

    gc.collect()
    run(main)
    assert len(wired.spans.get_finished_spans()) == 3 * 4


class Explosive(SpanProcessor):
    """A span processor that raises at every start."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Raise."""
        raise LookupError("processor")

    def on_end(self, span: ReadableSpan) -> None:
        """Raise."""
        raise LookupError("processor")


def test_one_part_that_raises_does_not_silence_the_others(wired: Wired, caplog: pytest.LogCaptureFixture) -> None:
    """They hear every event; the failure goes to the guard, which counts it and tells the other observers once."""
    wired.tracers.add_span_processor(Explosive())
    heard = Recorder()
    run(lambda: serve(echo, (wired.telemetry(), heard), leaves()))
    assert heard.one(ObserverFailed).error_type == "LookupError"
    assert wired.metrics()["websocket.server.connection.duration"][0]["count"] == 1
    assert [log.log_record.event_name for log in wired.logs.get_finished_logs()] == [
        "websocket.open",
        "websocket.accept",
        "websocket.close",
        "websocket.closed",
    ]
    assert len(caplog.records) == 1


def test_the_first_failure_is_the_one_that_is_told(wired: Wired) -> None:
    """The others are likely to follow from it."""
    telemetry = wired.telemetry()
    order: list[str] = []

    def failing(name: str) -> Callable[[Event], None]:
        def part(event: Event) -> None:
            order.append(name)
            raise LookupError(name)

        return part

    telemetry._parts = tuple(failing(name) for name in ("first", "second", "third"))  # type: ignore[assignment]
    with pytest.raises(LookupError, match="first"):
        telemetry(Event("1", 1.0))
    assert order == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("endpoint", "https://user:s3cret@collector"),
        ("headers", {"authorization": "s3cret"}),
        ("service_name", "s3cret"),
        ("sampler", "s3cret"),
        ("export_interval_s", 0.0),
    ],
)
def test_an_option_of_exporters_needs_exporters(option: str, value: Any) -> None:
    """Else it would do nothing. The value may be a password, and is not shown."""
    with pytest.raises(ConfigurationError, match=f"{option}=.*None without exporters") as caught:
        Telemetry(**{option: value})
    assert "s3cret" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize("option", ["message_spans", "handler_spans"])
def test_an_option_of_a_part_is_checked_when_it_is_built(option: str) -> None:
    """By the part that it belongs to."""
    with pytest.raises(ConfigurationError, match=option):
        Telemetry(**{option: "nonsense"})  # type: ignore[arg-type]


class Held:
    """Providers that a `Telemetry` would have made of exporters."""

    def __init__(self, error: Exception | None = None) -> None:
        self.flushed_s: list[float] = []
        self.error = error

    def flush(self, timeout_s: float) -> None:
        """Remember, and raise."""
        self.flushed_s.append(timeout_s)
        if self.error is not None:
            raise self.error


async def _lifespan(observer: Telemetry) -> WebSocketGuardMiddleware:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            pass

    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return inbox.pop(0)

    async def send(message: Message) -> None:
        """Take it."""

    guard = WebSocketGuardMiddleware(app, observers=(observer,))
    await guard({"type": "lifespan"}, receive, send)
    assert inbox == []
    return guard


def test_what_is_held_back_goes_out_when_the_lifespan_is_over(wired: Wired) -> None:
    """Three seconds at most; providers of somebody else's are theirs to flush."""
    telemetry, held = wired.telemetry(), Held()
    telemetry._providers = held
    run(lambda: _lifespan(telemetry))
    assert held.flushed_s == [3.0]

    flushed: list[str] = []
    wired.tracers.force_flush = lambda *a, **k: flushed.append("tracers")  # type: ignore[assignment, method-assign]
    run(lambda: _lifespan(wired.telemetry()))
    assert flushed == []


def test_a_flush_that_fails_reaches_no_application(wired: Wired, caplog: pytest.LogCaptureFixture) -> None:
    """It is contained, counted and logged."""
    telemetry = wired.telemetry()
    telemetry._providers = Held(LookupError("down"))
    guard = run(lambda: _lifespan(telemetry))
    assert list(guard.observer_failures.values()) == [1]
    assert len(caplog.records) == 1


# Secrets

QUERY, AUTH, COOKIE, PROTOCOL, PAYLOAD, PATH, ERROR, AGENT = (
    f"s3cret{number}word" for number in ("query", "auth", "cookie", "protocol", "payload", "path", "error", "header")
)
SECRETS = (QUERY, AUTH, COOKIE, PROTOCOL, PAYLOAD, PATH, ERROR, AGENT)
REASON = "\x1b[31m\n" + "r" * 10_000 + "\u202e"


def _secretive() -> ScriptedServer:
    return ScriptedServer(
        f"/rooms/{PATH}",
        query_string=f"token={QUERY}".encode(),
        headers=[
            (b"authorization", f"Bearer {AUTH}".encode()),
            (b"cookie", f"session={COOKIE}".encode()),
            (b"x-forwarded-for", AGENT.encode()),
            (b"sec-websocket-protocol", f"bearer, {PROTOCOL}".encode()),
            (b"user-agent", b"browser"),
        ],
        subprotocols=["bearer", PROTOCOL],
    )


async def _talkative(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts with the token, sends secrets in time, late, and wrongly."""
    routed(scope)
    await receive()
    await asyncio.sleep(HANDSHAKE_S)
    await send({**ACCEPT, "subprotocol": PROTOCOL, "headers": [(b"set-cookie", COOKIE.encode())]})
    await receive()
    await send({"type": "websocket.send", "text": PAYLOAD})
    for wrong in ({**ACCEPT}, {"type": "websocket.send", "text": PAYLOAD, "bytes": PAYLOAD.encode()}):
        with contextlib.suppress(RuntimeError):
            await send(wrong)
    while (await receive())["type"] != "websocket.disconnect":
        pass
    await send({"type": "websocket.send", "bytes": PAYLOAD.encode()})
    raise LookupError(ERROR)


async def _fails(scope: Scope, receive: Receive, send: Send) -> None:
    routed(scope)
    await receive()
    raise LookupError(f"{ERROR} {scope['query_string']} {scope['headers']}")


async def _denies(scope: Scope, receive: Receive, send: Send) -> None:
    routed(scope)
    await receive()
    body = PAYLOAD.encode()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-token", AUTH.encode())]})
    await send({"type": "websocket.http.response.body", "body": body})


async def _parks(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(scope, receive, send)
    await asyncio.sleep(60)


async def _closes(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(scope, receive, send)
    await send({**CLOSE, "reason": REASON})


async def _speaks(server: ScriptedServer) -> None:
    server.connect()
    server.text(PAYLOAD)
    await asyncio.sleep(1)
    server.fail_sends(None)
    server.disconnect(1001, REASON)


async def _breaks(server: ScriptedServer) -> None:
    server.connect()
    server.text(PAYLOAD)
    server.fail_sends(lambda message: OSError(ERROR) if message["type"] == "websocket.send" else None)


async def _stalls(server: ScriptedServer) -> None:
    server.connect()
    server.text(PAYLOAD)
    await asyncio.sleep(0.5)
    server.stall_sends()


class _Closing:
    def message(self, connection_id: str, direction: str, size: int) -> Close:
        return Close(4008, REASON, CloseStatus.RATE_LIMITED)


async def _sleepy(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(scope, receive, send)
    await asyncio.sleep(1)
    await send({"type": "websocket.send", "text": PAYLOAD})


STORIES: dict[str, tuple[Handler, Script, type[BaseException] | None, dict[str, Any]]] = {
    "everything": (_talkative, _speaks, LookupError, {}),
    "lost": (_talkative, _breaks, LookupError, {}),
    "failed": (_fails, _speaks, LookupError, {}),
    "denied": (_denies, _speaks, None, {}),
    "zombie": (_parks, _speaks, None, {}),
    "long reason": (_closes, _speaks, None, {}),
    "policy": (_sleepy, _speaks, None, {"policies": (_Closing(),)}),
    "timeout": (_sleepy, _stalls, None, {"send_timeout_s": 5}),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("handler_spans", ["children", "linked"])
def test_no_secret_is_exported(
    story: tuple[Handler, Script, type[BaseException] | None, dict[str, Any]],
    handler_spans: Any,
    wired: Wired,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only ``url.path`` may hold text of the path; a reason is cut and escaped wherever it stands."""
    app, script, expected, options = story
    telemetry = wired.telemetry(message_spans="all", handler_spans=handler_spans)

    async def main() -> None:
        await serve(app, (telemetry,), script, server=_secretive(), expected=expected, **options)

    run(main)
    said = wired.everything()
    assert any(PATH in str(word) for _, word in said)
    for place, word in said:
        text = str(word)
        found = [secret for secret in SECRETS if secret in text]
        assert found == ([PATH] if place == "url.path" else []), (place, text)
        assert text.isprintable(), (place, text)
        assert len(text) <= MAX_TEXT + 1 or place == "code.file.path", (place, text)
    metrics = json.dumps(wired.metrics())
    assert PATH not in metrics
    assert "close.reason" not in metrics
    assert caplog.records == []


def test_the_reason_is_there_cut_and_escaped(wired: Wired) -> None:
    """So that the test above looks at something."""

    async def main() -> None:
        await serve(echo, (wired.telemetry(),), _speaks, server=_secretive())

    run(main)
    reasons = [word for place, word in wired.everything() if place == "websocket.close.reason"]
    assert len(reasons) == 3  # of the span, and of the log records of the close and of the end
    assert set(reasons) == {"\\x1b[31m\\n" + "r" * (MAX_TEXT - 10) + "…"}
