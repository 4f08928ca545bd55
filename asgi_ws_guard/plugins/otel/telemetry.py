"""
`Telemetry`: one observer for traces, metrics and log records, with the options of all three.

Without options it uses the global providers and sets nothing up; with exporters it makes providers of its own. It hears
nothing itself: it hands each event on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..._events import Event
from ..._exceptions import ConfigurationError
from ..._plugin import Statistics
from .logs import LogsObserver
from .metrics import MetricsObserver
from .tracing import HandlerSpans, MessageSpans, TracingObserver

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

FLUSH_S = 3.0
"""Seconds that the end of an application may wait for an exporter."""


class Telemetry:
    """Traces, metrics and log records of every connection, as one observer."""

    def __init__(
        self,
        *,
        exporters: Sequence[Any] | None = None,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        service_name: str | None = None,
        sampler: Any = None,
        export_interval_s: float | None = None,
        message_spans: MessageSpans = "off",
        handler_spans: HandlerSpans = "children",
        sizes: bool = True,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        """
        Observe with the global providers, with given ones, or with exporters.

        Args:
            exporters: Names of installed exporters, as in ``OTEL_TRACES_EXPORTER`` and ``OTEL_METRICS_EXPORTER``, and
                instances; None: set nothing up.
            endpoint: Where the exporters send to, as in ``OTEL_EXPORTER_OTLP_ENDPOINT``; only with exporters, and so
                are the next four.
            headers: What they send along.
            service_name: As in ``OTEL_SERVICE_NAME``.
            sampler: A sampler, a name as in ``OTEL_TRACES_SAMPLER``, or the share of traces to keep, 0 to 1.
            export_interval_s: Seconds between two exports of metrics, as in ``OTEL_METRIC_EXPORT_INTERVAL``.
            message_spans: ``"off"``, ``"all"``, or the share of messages that get a span; see `TracingObserver`.
            handler_spans: ``"children"`` or ``"linked"``; see `TracingObserver`.
            sizes: Count bytes and types of messages; see `MetricsObserver`.
            tracer_provider: Makes the spans; None: that of the exporters, else the global one.
            meter_provider: Makes the metrics; None: as above.
            logger_provider: Makes the log records; None: the global one.

        Raises:
            ConfigurationError: An option has a value that is not allowed, or the extra ``otel`` is missing.
        """
        self._providers: Any = None
        built: dict[str, Any] = {
            "endpoint": endpoint,
            "headers": headers,
            "service_name": service_name,
            "sampler": sampler,
            "export_interval_s": export_interval_s,
        }
        if exporters is not None:
            from .exporters import build_providers

            self._providers = build_providers(exporters, **built)
            tracer_provider = tracer_provider or self._providers.tracer_provider
            meter_provider = meter_provider or self._providers.meter_provider
        else:
            for option, value in built.items():
                if value is not None:
                    raise ConfigurationError(option, type(value).__name__, "None without exporters")
        self._tracing = TracingObserver(tracer_provider, message_spans=message_spans, handler_spans=handler_spans)
        self._metrics = MetricsObserver(meter_provider, sizes=sizes)
        self._parts = (self._tracing, self._metrics, LogsObserver(logger_provider))

    @property
    def wants_messages(self) -> bool:
        """Whether messages get spans."""
        return self._tracing.wants_messages

    @property
    def wants_sizes(self) -> bool:
        """Whether the guard shall count bytes."""
        return self._metrics.wants_sizes

    def attach(self, statistics: Statistics) -> None:
        """
        Read the statistics of one more guard.

        Args:
            statistics: Those of a guard that has this observer.
        """
        self._metrics.attach(statistics)

    def flush(self) -> None:
        """Send out what exporters of this object still hold; waits `FLUSH_S` at most. Others' providers are theirs."""
        if self._providers is not None:
            self._providers.flush(FLUSH_S)

    def shutdown(self) -> None:
        """End what this object made of exporters, now instead of with the process."""
        if self._providers is not None:
            self._providers.shutdown()

    def __call__(self, event: Event, /) -> None:
        """
        Hand one event on, to all although one of them raises.

        Args:
            event: Any event.
        """
        failed: Exception | None = None
        for part in self._parts:
            try:
                part(event)
            except Exception as error:  # noqa: BLE001 - raised below; the guard contains, counts and reports it
                failed = failed or error
        if failed is not None:
            raise failed
