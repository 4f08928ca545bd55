"""
What telemetry costs: per message, per connection, per collection and in memory, as ratios from interleaved rounds.

Run it with ``python -m benchmarks.telemetry``. The SDK is real: spans go through a batch processor, metrics through a
periodic reader; only the exporters at the end throw away what they are given. OpenTelemetry's own ASGI middleware is
measured beside it, in its three usual settings.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracerProvider, Tracer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver

from ._subjects import App, PassThrough, scope, silence_logs, spread, verdict
from .memory import SETTLE_S, per_connection
from .overhead import added_per_message, ratios

PER_MESSAGE_BUDGET = 1.7
CONNECTION_BUDGET_SPANS = 5.0
COLLECTION_BUDGET_MS = 20.0
MEMORY_BUDGET_BYTES = 2048
CONNECTIONS = 300
SPANS = 1000


class _NoSpans(SpanExporter):
    """Throws spans away."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take them."""
        return SpanExportResult.SUCCESS


class _NoMetrics(MetricExporter):
    """Throws metrics away."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Take them."""
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Hold nothing back."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Hold nothing open."""


class Providers:
    """
    An SDK that exports.

    Args:
        readers: Metric readers that ask on their own, 1 or 2; `reader` is the second, and asks when it is told to.
    """

    def __init__(self, readers: int = 2) -> None:
        self.tracer = TracerProvider()
        # Half of the time that idle connections are left alone: what waits for its export is not theirs.
        self.tracer.add_span_processor(BatchSpanProcessor(_NoSpans(), schedule_delay_millis=SETTLE_S * 500))
        self.reader = InMemoryMetricReader()
        periodic = PeriodicExportingMetricReader(_NoMetrics(), export_interval_millis=1000)
        self.meter = MeterProvider(metric_readers=[periodic, self.reader][:readers])

    def telemetry(self, **options: Any) -> Telemetry:
        """Make the observer."""
        return Telemetry(tracer_provider=self.tracer, meter_provider=self.meter, **options)

    def shutdown(self) -> None:
        """End the exporting threads."""
        self.tracer.shutdown()
        self.meter.shutdown()


def wrappers(sdk: Providers) -> dict[str, Callable[[App], App]]:
    """List the subjects. Dict: name -> makes it of an application."""

    def everything(app: App) -> App:
        return WebSocketGuardMiddleware(app, observers=[sdk.telemetry(), LogContext(), StructlogObserver()])

    def without_sizes(app: App) -> App:
        observers = (sdk.telemetry(sizes=False), LogContext(), StructlogObserver())
        return WebSocketGuardMiddleware(app, observers=observers)

    def theirs(app: App, **options: Any) -> App:
        return OpenTelemetryMiddleware(app, tracer_provider=sdk.tracer, meter_provider=sdk.meter, **options)

    def theirs_without_sdk(app: App) -> App:
        return OpenTelemetryMiddleware(app, tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())

    return {
        "bare": lambda app: app,
        "pass-through": PassThrough,
        "guard, defaults, no SDK": WebSocketGuardMiddleware,
        "guard, SDK exporting, sizes=False": without_sizes,
        "guard, SDK exporting": everything,
        "OpenTelemetry's, no SDK": theirs_without_sdk,
        "OpenTelemetry's, exclude_spans": lambda app: theirs(app, exclude_spans=["receive", "send"]),
        "OpenTelemetry's": theirs,
    }


async def connect_and_close(wrap: Callable[[App], App], connections: int = CONNECTIONS) -> float:
    """Measure a connection that is accepted, gets one message, sends one and is left: nanoseconds each."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "hello world"})

    async def send(message: Any) -> None:
        pass

    wrapped = wrap(app)
    started = time.thread_time_ns()
    for _ in range(connections):
        inbox = [
            {"type": "websocket.disconnect", "code": 1001},
            {"type": "websocket.receive", "text": "hello world"},
            {"type": "websocket.connect"},
        ]

        async def receive(inbox: list[Any] = inbox) -> Any:
            return inbox.pop()

        await wrapped(scope(), receive, send)
    return (time.thread_time_ns() - started) / connections


def one_span(tracer: Tracer) -> float:
    """Measure one span of the SDK, started and ended: nanoseconds each."""
    started = time.thread_time_ns()
    for _ in range(SPANS):
        tracer.start_span("span").end()
    return (time.thread_time_ns() - started) / SPANS


async def collection_ms(sdk: Providers, connections: int, rounds: int) -> list[float]:
    """Measure collections over idle live connections: milliseconds each."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello world"})
        await over.wait()

    async def receive() -> Any:
        await over.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(message: Any) -> None:
        pass

    over = asyncio.Event()
    guard = WebSocketGuardMiddleware(app, observers=[sdk.telemetry()], watch=False)
    tasks = [asyncio.create_task(guard(scope(), receive, send)) for _ in range(connections)]
    await asyncio.sleep(0)
    if guard.totals().sent != connections:
        raise RuntimeError("not every connection is open")
    found = []
    for _ in range(rounds):
        started = time.thread_time()
        sdk.reader.collect()
        found.append((time.thread_time() - started) * 1000)
    over.set()
    await asyncio.gather(*tasks)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds")
    options = parser.parse_args()
    silence_logs()
    console, sdk = Console(), Providers()
    try:
        _per_message(console, sdk, options.rounds)
        _per_connection(console, sdk, options.rounds)
        _collections(console, sdk, options.rounds)
        _memory(console, sdk)
    finally:
        sdk.shutdown()


def _per_message(console: Console, sdk: Providers, rounds: int) -> None:
    subjects = wrappers(sdk)
    found = added_per_message(rounds, {"text": "hello world"}, subjects, messages=400)
    title = f"Added per message, in units of the pass-through's (CPython {platform.python_version()})"
    table = Table("subject", "ns per message", "ratio: median (quartiles)", "budget", title=title)
    for name in subjects:
        ratio = ratios(found, name)
        budget = verdict(median(ratio), PER_MESSAGE_BUDGET) if name.startswith("guard") else ""
        table.add_row(name, f"{median(found[name]):.0f}", spread(ratio), budget)
    console.print(table)


def _per_connection(console: Console, sdk: Providers, rounds: int) -> None:
    subjects = wrappers(sdk)
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in track(range(rounds), description="connections", transient=True):
        span = one_span(sdk.tracer.get_tracer("benchmark"))
        for name, wrap in subjects.items():
            found[name].append(asyncio.run(connect_and_close(wrap)) / span)
    table = Table("subject", "in SDK spans: median (quartiles)", "budget", title="Connect, one message, close")
    for name, costs in found.items():
        budget = verdict(median(costs), CONNECTION_BUDGET_SPANS) if name == "guard, SDK exporting" else ""
        table.add_row(name, spread(costs), budget)
    console.print(table)


def _collections(console: Console, sdk: Providers, rounds: int) -> None:
    table = Table("live connections", "ms: median (quartiles)", "budget", title="One collection of all metrics")
    for connections in (10, 1000, 10_000):
        times = asyncio.run(collection_ms(sdk, connections, rounds))
        budget = verdict(median(times), COLLECTION_BUDGET_MS) if connections == 10_000 else ""
        table.add_row(str(connections), spread(times), budget)
    console.print(table)


def _memory(console: Console, sdk: Providers) -> None:
    table = Table("subject", "bytes over the pass-through", "budget", title="Memory of an idle connection")
    subjects = wrappers(sdk)
    passed = asyncio.run(per_connection(subjects["pass-through"], 1000))
    for name, wrap in subjects.items():
        over = asyncio.run(per_connection(wrap, 1000)) - passed
        budget = verdict(over, MEMORY_BUDGET_BYTES) if name.startswith("guard") else ""
        table.add_row(name, f"{over:+.0f}", budget)
    console.print(table)


if __name__ == "__main__":
    main()
