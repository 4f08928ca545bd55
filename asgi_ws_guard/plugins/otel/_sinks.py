"""
Exporters behind the SDK's own bounded queue and its own clock, so that one that is down costs nothing.

Imports the SDK, which belongs to an extra: `exporters` imports this module once it knows that the SDK is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from ..._exceptions import ConfigurationError
from ._courier import Courier
from ._names import INSTANCE
from ._quiet import Health, Hush
from ._running import Running

_QUEUE_LOGGERS = ("opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace.export")
"""Where the SDK says that its queue is full: 1.45 in the first, versions before 1.33 in the second."""


TYPES = (SpanExporter, SpanProcessor, MetricExporter, MetricReader)

_SHUTDOWN_S = 0.5


class CarriedSpans(SpanExporter):
    """A span exporter behind a courier."""

    def __init__(self, exporter: SpanExporter, health: Health) -> None:
        self._exporter = exporter
        self.courier = Courier(
            self._carry, "spans", health, loggers_of(exporter), _timeout_s("OTEL_BSP_EXPORT_TIMEOUT")
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand a batch over; never raises, and ends within a bounded time."""
        return SpanExportResult.SUCCESS if self.courier.hand(spans) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Shut the exporter down; an export under way is given up."""
        _shut_down(self._exporter, self.courier)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return True

    def _carry(self, spans: Sequence[ReadableSpan]) -> bool:
        return self._exporter.export(spans) is SpanExportResult.SUCCESS


class CarriedMetrics(MetricExporter):
    """A metric exporter behind a courier, with the temporality and aggregation that it asks for."""

    def __init__(self, exporter: MetricExporter, health: Health) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self.courier = Courier(
            *(self._carry, "metrics", health, loggers_of(exporter), _timeout_s("OTEL_METRIC_EXPORT_TIMEOUT"))
        )

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand one collection over; never raises, and ends within a bounded time."""
        is_good = self.courier.hand((metrics_data, timeout_millis))
        return MetricExportResult.SUCCESS if is_good else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down; an export under way is given up."""
        _shut_down(self._exporter, self.courier)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def _carry(self, job: tuple[MetricsData, float]) -> bool:
        metrics_data, timeout_millis = job
        return self._exporter.export(metrics_data, timeout_millis=timeout_millis) is MetricExportResult.SUCCESS


class QuietBatches(BatchSpanProcessor):
    """The SDK's bounded queue of spans, which says nothing to the thread whose span does not fit."""

    def __init__(self, exporter: CarriedSpans) -> None:
        super().__init__(exporter)
        self._hush = Hush(_QUEUE_LOGGERS)

    def on_end(self, span: ReadableSpan) -> None:
        """Put a span into the queue; the oldest one goes when it is full."""
        with self._hush:
            super().on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what waits; the SDK waits for the exporter, and the courier bounds that."""
        with self._hush:
            return super().force_flush(30_000 if timeout_millis is None else timeout_millis)

    def shutdown(self) -> None:
        """End the worker and shut the exporter down."""
        super().shutdown()  # type: ignore[no-untyped-call]
        self._hush.remove()


class Sinks:
    """
    The processors and readers of one set of providers.

    Args:
        export_interval_s: Seconds between two exports of metrics; None for what the variable says.
    """

    def __init__(self, export_interval_s: float | None) -> None:
        self.processors: list[SpanProcessor] = []
        self.readers: list[MetricReader] = []
        self.running = Running()
        self._interval_ms = None if export_interval_s is None else export_interval_s * 1000

    def add(self, one: object, name: str, health: Health) -> None:
        """
        Put one exporter to work; a processor or a reader is taken as it is.

        Raises:
            ConfigurationError: It is none of the four, or the SDK refuses it.
        """
        found: SpanProcessor | MetricReader
        try:
            if isinstance(one, SpanExporter):
                found = self._own(CarriedSpans(one, health))
            elif isinstance(one, MetricExporter):
                found = self._own(CarriedMetrics(one, health))
            elif isinstance(one, SpanProcessor | MetricReader):
                found = one
            else:
                raise ConfigurationError("exporters", name, INSTANCE)
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError("exporters", name, f"OTEL_* variables that the SDK takes ({error})") from error
        self.running.flushes.append(found.force_flush)
        if isinstance(found, SpanProcessor):
            self.processors.append(found)
        else:
            self.readers.append(found)

    def _own(self, carried: CarriedSpans | CarriedMetrics) -> SpanProcessor | MetricReader:
        self.running.couriers.append(carried.courier)
        self.running.shutdowns.append(carried.shutdown)  # until the provider does it, after its last export
        if isinstance(carried, CarriedSpans):
            batches = QuietBatches(carried)
            self.running.shutdowns[-1] = batches.shutdown
            return batches
        reader = PeriodicExportingMetricReader(carried, export_interval_millis=self._interval_ms)
        self.running.shutdowns[-1] = reader.shutdown
        return reader


def loggers_of(exporter: object) -> list[str]:
    """List the names of the loggers that an exporter speaks through: its modules', and those of its bases."""
    return [one.__module__ for one in type(exporter).__mro__ if one.__module__ not in ("builtins", "abc", "typing")]


def _shut_down(exporter: SpanExporter | MetricExporter, courier: Courier) -> None:
    """End an exporter on a thread of its own: one may wait for its own export (gRPC before 1.35: 30 s)."""

    def end() -> None:
        with courier.hush, suppress(Exception):  # an exporter that cannot even end is no news
            exporter.shutdown()

    courier.stop()
    thread = threading.Thread(target=end, name="asgi-ws-guard-shutdown", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # from Python 3.12 on there is no new thread once the interpreter ends
        end()
    else:
        thread.join(_SHUTDOWN_S)


def _timeout_s(variable: str) -> float:
    try:
        return max(float(os.environ.get(variable, "30000")) / 1000, 0.001)
    except ValueError:
        return 30.0
