"""OpenTelemetry log records: named, graded, correlated, and none where nobody wants them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import NoOpLoggerProvider, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stories import (
    ACCEPT,
    CLOSE,
    HANDSHAKE_S,
    REQUEST,
    ROUTE,
    TEXT,
    Handler,
    accepted,
    echo,
    leaves,
    routed,
    serve,
    stays,
)

from asgi_ws_guard import (
    Accepted,
    Drop,
    Event,
    Leaked,
    ObserverFailed,
    Opened,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._scope import handshake_of, whole_scope
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.plugins.otel.attributes import SCHEMA_URL
from asgi_ws_guard.plugins.otel.logs import LogsObserver
from asgi_ws_guard.plugins.otel.tracing import TracingObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run


def provider() -> tuple[LoggerProvider, InMemoryLogRecordExporter]:
    """Make a logger provider and what it exports to."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    made = LoggerProvider(shutdown_on_exit=False)
    made.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    return made, exporter


def shown(logs: Sequence[ReadableLogRecord]) -> list[tuple[str | None, str]]:
    """Give name and severity of each."""
    return [(log.log_record.event_name, log.log_record.severity_text or "") for log in logs]


def values_of(log: ReadableLogRecord) -> dict[str, Any]:
    return dict(log.log_record.attributes or {})


def typed(values: dict[str, Any]) -> list[tuple[str, type, Any]]:
    return sorted((name, type(value), value) for name, value in values.items())


def play(app: Handler, script: Any = stays, **options: Any) -> tuple[Sequence[ReadableLogRecord], Recorder]:
    """Play a story, and see that nothing is kept."""
    made, exporter = provider()
    observer, recorder = LogsObserver(made), Recorder(wants_messages=True)
    run(lambda: serve(app, (observer, recorder), script, **options))
    assert observer._live == {}
    return exporter.get_finished_logs(), recorder


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    routed(scope)
    await receive()
    await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await receive()


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(scope, receive, send)
    await send(CLOSE)
    await send(TEXT)


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(scope, receive, send)
    raise LookupError("s3cret")


INFO = ("websocket.open", "INFO"), ("websocket.accept", "INFO"), ("websocket.close", "INFO")


@pytest.mark.parametrize(
    ("app", "script", "expected", "raised"),
    [
        (echo, leaves(texts=("a",)), [*INFO, ("websocket.closed", "INFO")], None),
        (late, stays, [*INFO, ("asgi_ws_guard.late_send", "WARN"), ("websocket.closed", "INFO")], None),
        (fails, stays, [*INFO, ("websocket.closed", "WARN")], LookupError),
        (denies, stays, [INFO[0], INFO[2], ("websocket.rejected", "WARN")], None),
        (hesitates, leaves(1006), [INFO[0], INFO[2], ("websocket.abandoned", "INFO")], None),
    ],
    ids=["closed", "late send", "failed", "denied", "abandoned"],
)
def test_every_step_is_a_record_with_a_name_and_a_severity(
    app: Handler, script: Any, expected: list[tuple[str, str]], raised: type[BaseException] | None
) -> None:
    """INFO for what is normal, WARN for what somebody should look at; messages have none."""
    logs, _ = play(app, script, expected=raised)
    assert shown(logs) == expected
    for log in logs:
        record = log.log_record
        assert record.body == record.event_name
        assert record.severity_number is SeverityNumber[record.severity_text or ""]
        assert log.instrumentation_scope is not None
        assert (log.instrumentation_scope.name, log.instrumentation_scope.schema_url) == ("asgi_ws_guard", SCHEMA_URL)


def test_the_attributes_are_those_of_the_spans() -> None:
    """Id on each, the request at the opening, the route from the accept on, the end and the totals at the end."""
    logs, recorder = play(fails, expected=LookupError)
    opened, accept, close, closed = map(values_of, logs)
    one = {"asgi_ws_guard.connection.id": recorder.one(Opened).connection_id}
    assert typed(opened) == typed({**one, **REQUEST})
    end = {
        "websocket.close.initiator": "application",
        "websocket.connection.status": "app_error",
        "websocket.close.code": 1011,
    }
    assert typed(accept) == typed({**one, "http.route": ROUTE})
    assert typed(close) == typed({**one, "http.route": ROUTE, **end})
    assert typed(closed) == typed(
        {
            **one,
            "http.route": ROUTE,
            **end,
            "asgi_ws_guard.handler.lingered": 0.0,
            "websocket.messages.received": 0,
            "websocket.messages.sent": 0,
            "asgi_ws_guard.sends.forwarded": 1,
            "asgi_ws_guard.sends.dropped": 0,
            "asgi_ws_guard.sends.failed": 0,
            "asgi_ws_guard.sends.refused": 0,
            "error.type": "LookupError",
        }
    )


def test_a_denial_says_its_answer() -> None:
    """Result and status, and the route although there was no accept."""
    logs, _ = play(denies)
    said = values_of(logs[-1])
    wanted = ("websocket.connection.result", "http.response.status_code", "http.route", "error.type")
    assert [said[name] for name in wanted] == ["denied", 503, ROUTE, "503"]


def test_the_times_are_times_of_day() -> None:
    """Of the event by the loop's clock, and of the moment of the observation."""
    before = time.time()
    logs, _ = play(echo, leaves())
    stamps = [log.log_record.timestamp or 0 for log in logs]
    assert [round((stamp - stamps[0]) / 1e9, 6) for stamp in stamps] == [0, HANDSHAKE_S, 2.0, 2.0]
    assert before - 0.001 <= stamps[0] / 1e9 <= time.time() + 0.001
    observed = [(log.log_record.observed_timestamp or 0) / 1e9 for log in logs]
    assert all(before - 0.001 <= one <= time.time() + 0.001 for one in observed)


@pytest.mark.parametrize("handler_spans", ["children", "linked"])
def test_records_belong_to_the_trace_of_the_handshake(handler_spans: Any) -> None:
    """All of them, also in a trace whose handler makes roots, and those that another task causes."""
    made, exporter = provider()
    spans = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(accepted(scope, receive, send))
        with tracers.get_tracer("app").start_as_current_span("own"):
            await send(CLOSE)

    run(lambda: serve(app, (TracingObserver(tracers, handler_spans=handler_spans), LogsObserver(made))))
    shake = next(span.context for span in spans.get_finished_spans() if span.name.startswith("GET"))
    assert shake is not None
    logs = exporter.get_finished_logs()
    assert len(logs) == 4
    for log in logs:
        record = log.log_record
        assert (record.trace_id, record.span_id) == (shake.trace_id, shake.span_id)
        assert record.trace_flags == shake.trace_flags


def test_without_a_trace_records_belong_to_none() -> None:
    """And to the span of somebody else where there is one."""
    logs, _ = play(echo, leaves())
    assert {log.log_record.trace_id for log in logs} == {0}
    made, exporter = provider()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("other")

    async def main() -> None:
        with tracer.start_as_current_span("outer") as outer:
            await serve(echo, (LogsObserver(made),), leaves())
            ids.append(outer.get_span_context().span_id)

    ids: list[int] = []
    run(main)
    assert {log.log_record.span_id for log in exporter.get_finished_logs()} == set(ids)


def test_a_leak_is_a_record_of_its_own() -> None:
    """After the end of the story, in the span of whoever sends, and nothing is kept for it."""
    made, exporter = provider()
    observer, heard = LogsObserver(made), Recorder()
    leaked: list[Send] = []
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        leaked.append(send)

    async def main() -> None:
        await serve(app, (observer, heard))
        with tracer.start_as_current_span("job") as job:
            await leaked[0](TEXT)
            ids.append(job.get_span_context().span_id)

    ids: list[int] = []
    run(main)
    record = exporter.get_finished_logs()[-1].log_record
    assert (record.event_name, record.severity_text, record.span_id) == ("asgi_ws_guard.leak", "WARN", ids[0])
    assert (record.attributes or {})["reason"] == heard.one(Leaked).reason.value
    assert observer._live == {}


@pytest.mark.parametrize("handler_spans", ["children", "linked"])
def test_a_leak_from_another_handler_belongs_to_the_span_that_sends(handler_spans: Any) -> None:
    """Not to the handshake of the connection whose handler that is, if it has a span of its own."""
    made, exporter = provider()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracing = TracingObserver(tracers, handler_spans=handler_spans)
    leaked: list[Send] = []
    ids: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        with tracers.get_tracer("app").start_as_current_span("own") as own:
            ids.append(own.get_span_context().span_id)
            for one in leaked:
                await one(TEXT)
        leaked.append(send)

    async def main() -> None:
        for _ in range(2):
            await serve(app, (tracing, LogsObserver(made)))

    run(main)
    (leak,) = (one.log_record for one in exporter.get_finished_logs() if one.log_record.event_name == LEAK)
    assert leak.span_id == ids[1]


LEAK = "asgi_ws_guard.leak"


def test_an_event_that_is_new_has_a_name_all_the_same() -> None:
    """New classes may come."""

    class Invented(Event):
        pass

    made, exporter = provider()
    observer = LogsObserver(made)
    observer(Opened("1", 1.0, handshake_of(whole_scope(ScriptedServer().scope))))
    observer(Invented("1", 1.0))
    assert shown(exporter.get_finished_logs())[1:] == [("asgi_ws_guard.invented", "WARN")]


def test_a_policy_that_answers_is_normal() -> None:
    """That is what it is for."""
    made, exporter = provider()

    class Quiet:
        def message(self, connection_id: str, direction: str, size: int) -> Drop:
            return Drop("spam")

    run(lambda: serve(echo, (LogsObserver(made),), leaves(texts=("a",)), policies=(Quiet(),)))
    assert ("asgi_ws_guard.policy_applied", "INFO") in shown(exporter.get_finished_logs())


@pytest.mark.parametrize("made", [None, NoOpLoggerProvider()], ids=["none", "no-op"])
def test_without_a_logger_provider_nothing_is_made_or_kept(made: Any) -> None:
    """Not even while a connection lives."""
    observer = LogsObserver(made)
    kept: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        kept.append(len(observer._live))

    run(lambda: serve(app, (observer,)))
    assert kept == [0]


class Explosive(LogRecordProcessor):
    """A processor that raises at the end of a connection."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Raise, perhaps."""
        if log_record.log_record.event_name == "websocket.closed":
            raise LookupError("processor")

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing."""
        return True


def test_a_processor_that_raises_costs_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """The guard contains it, and what was kept of the connection goes."""
    made = LoggerProvider(shutdown_on_exit=False)
    made.add_log_record_processor(Explosive())
    observer, heard = LogsObserver(made), Recorder()
    run(lambda: serve(echo, (observer, heard), leaves()))
    assert heard.one(ObserverFailed).error_type == "LookupError"
    assert observer._live == {}
    assert len(caplog.records) == 1


def test_a_connection_that_was_opened_before_the_provider_was_there_has_no_records() -> None:
    """A provider may come in the middle of a connection: nobody asks for it at each event before."""
    heard = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(heard,)))

    run(main)
    made, exporter = provider()
    observer = LogsObserver(made)
    observer(heard.one(Accepted))
    assert exporter.get_finished_logs() == ()
    assert observer._live == {}
    assert trace.get_current_span(otel_context.get_current()) is trace.INVALID_SPAN
