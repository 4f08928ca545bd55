"""
What there is in the server's process: handlers, tasks, spans, gauges, books, objects, memory, descriptors.

It counts for itself beside the guard's own books: what is called below the guard, and what reaches the server above it.
Runs in the server's process, whose answers `runs.py` compares; it judges nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.plugins.limits import Limits

from .mishaps import CANCELLED, accepted, arrange, is_ours
from .styles import options_of

COUNTED = ("asgi_ws_guard", "chaos", "opentelemetry.sdk.trace", "starlette.websockets", "quart.wrappers.websocket")
"""Modules whose objects are counted one by one."""
BY_ROUTE = ("Account", "Tally", "Books")
"""Classes of which there is one for each route that was ever seen; a connection's own books go with its `Session`."""
STATM = Path("/proc/self/statm")
DESCRIPTORS = "/dev/fd"


class OpenSpans(SpanProcessor):
    """Counts the spans that were started and ended, and keeps the open ones."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.open: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Count a span that begins."""
        self.started += 1
        if span.context is not None:
            self.open[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        """Count a span that ends; one that was never started shows as a sum below zero."""
        self.ended += 1
        if span.context is not None:
            self.open.pop(span.context.span_id, None)


class Telltale:
    """The SDK of one server's process, without an exporter."""

    def __init__(self) -> None:
        self.spans = OpenSpans()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(self.spans)
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def gauges(self) -> dict[str, float]:
        """Collect; give the sum over all label sets of each metric that has one."""
        sums: Counter[str] = Counter()
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        sums[metric.name] += getattr(point, "value", 0)
        return dict(sums)


class Style:
    """
    One application behind the guard, with a count of its own on either side of it.

    Args:
        app: The application without the guard.
        options: Of the guard; None: there is no guard.
        is_cancelled: Whether the task that the server made may be cancelled too.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any] | None, *, is_cancelled: bool) -> None:
        self._app = app
        self._is_cancelled = is_cancelled
        self._policies = (options or {}).get("policies", ())
        self.guard = None if options is None else WebSocketGuardMiddleware(self._inside, **options)
        self.handlers: set[int] = set()
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, and count what passes between guard and server."""

        async def receive_outside() -> Message:
            message = await receive()
            self.counts["delivered"] += message["type"] == "websocket.receive"
            return message

        async def send_outside(message: Message) -> None:
            await send(message)
            self.counts["taken"] += message["type"] == "websocket.send"
            if message["type"] == "websocket.accept":
                accepted()

        self.counts["connections"] += 1
        try:
            await (self.guard or self._inside)(scope, receive_outside, send_outside)
        except asyncio.CancelledError as error:
            if is_ours(error):  # a second cancellation has none of the text, and granian prints no chain
                raise asyncio.CancelledError(CANCELLED) from error
            raise

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_inside(message: Message) -> None:
            self.counts["attempted"] += 1
            await send(message)

        options = options_of(scope)
        number = int(options["n"])
        self.handlers.add(number)
        if self._is_cancelled:
            arrange(options)
        try:
            await self._app(scope, receive, send_inside)
        finally:
            self.handlers.discard(number)

    def figures(self) -> dict[str, Any]:
        """Give what is left of this style's connections, and its books; without a guard it has none."""
        if self.guard is None:
            return {"handlers": sorted(self.handlers), "counts": dict(self.counts)}
        books = self.guard.totals()
        return {
            "handlers": sorted(self.handlers),
            "sessions": self.guard.connections,
            "admitted": sum(policy.live for policy in self._policies if isinstance(policy, Limits)),
            "counts": dict(self.counts),
            "failures": sum(self.guard.observer_failures.values()),
            "attempted": books.attempted,
            "forwarded": books.forwarded,
            "failed": books.failed,
            "refused": books.refused,
            "dropped": books.dropped_total,
            "sent": books.sent,
            "received": books.received,
        }


def process_figures(telltale: Telltale) -> dict[str, Any]:
    """
    Give what there is in the process now.

    Args:
        telltale: Its SDK.
    """
    tasks = asyncio.all_tasks()
    return {
        "tasks": dict(Counter(map(_name, tasks))),
        "waits": dict(Counter(map(_where, tasks))),
        "spans_started": telltale.spans.started,
        "spans_ended": telltale.spans.ended,
        "spans_open": dict(Counter(telltale.spans.open.values())),
        "gauges": telltale.gauges(),
        "descriptors": len(os.listdir(DESCRIPTORS)),
    }


def memory_figures() -> dict[str, Any]:
    """Collect the garbage; give the numbers of objects of `COUNTED` and of all, and the resident memory in bytes."""
    gc.collect()
    _trim()
    everything = gc.get_objects()
    counted = Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, everything) if _is_counted(kind))
    pages = int(STATM.read_text().split()[1]) if STATM.exists() else 0
    return {"objects": dict(counted), "everything": len(everything), "rss": pages * os.sysconf("SC_PAGE_SIZE")}


def _trim() -> None:
    """Let the C library give back what it holds free: what a storm took at its height is no leak."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _is_counted(kind: type) -> bool:
    return str(kind.__module__).startswith(COUNTED) and kind.__name__ not in BY_ROUTE


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))


def _where(task: asyncio.Task[Any]) -> str:
    """Give the chain of coroutines that a task waits in."""
    names: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None:
        names.append(str(getattr(inner, "__qualname__", type(inner).__qualname__)))
        # an `__await__` that gives that of a coroutine names it to the garbage collector only
        behind = [one for one in gc.get_referents(inner) if asyncio.iscoroutine(one)]
        inner = behind[0] if names[-1] == "coroutine_wrapper" and behind else getattr(inner, "cr_await", None)
    return " > ".join(names)
