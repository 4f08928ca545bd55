"""
Make the providers of the SDK from options: which exporters, where to, under which name.

It sets nothing global: the providers belong to who asked for them. Without options nobody needs this module, and the
application's own providers are used. The SDK belongs to the extra ``otel`` and is imported when providers are built.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..._exceptions import ConfigurationError
from ._names import GROUPS, INSTANCE, find_exporter, installed
from ._quiet import Health, Hush
from ._running import Running
from ._settings import Settings, check_settings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

Exporter: TypeAlias = "str | SpanExporter | SpanProcessor | MetricExporter | MetricReader"

_log = logging.getLogger("asgi_ws_guard")


@dataclass(frozen=True, slots=True)
class Providers:
    """
    The providers that options ask for; they are shut down with the process.

    Attributes:
        tracer_provider: None when no exporter takes spans.
        meter_provider: None when no exporter takes metrics.
    """

    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    _running: Running = field(default_factory=Running, repr=False)

    def flush(self, timeout_s: float) -> bool:
        """
        Export what waits, in every exporter at the same time.

        Args:
            timeout_s: For how long to wait, in seconds. What is not done by then goes on by itself.

        Returns:
            True if all of it was exported; False if an exporter failed, or needs longer. Never raises.

        Note:
            It blocks its thread; an event loop calls it in another one.
        """
        return self._running.flush(timeout_s)

    def shutdown(self) -> None:
        """
        Export what waits and end the exporters. Happens by itself at the end of the process; once is enough.

        Takes 3 s at most, and half a second more for each exporter after the first that does not answer; instances of
        SpanProcessor and MetricReader take as long as they take. Never raises.
        """
        atexit.unregister(self.shutdown)
        self._running.end()


def build_providers(
    exporters: Sequence[Exporter],
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | str | None = None,
    service_name: str | None = None,
    sampler: Sampler | str | float | None = None,
    export_interval_s: float | None = None,
) -> Providers:
    """
    Make providers that export to some exporters. Every option wins over its ``OTEL_*`` variable.

    Args:
        exporters: Names as in ``OTEL_TRACES_EXPORTER`` and ``OTEL_METRICS_EXPORTER``, each of them used for the signals
            that it takes; instances of SpanExporter, SpanProcessor, MetricExporter and MetricReader, taken as they
            are. ``"otlp"`` is gRPC or HTTP as ``OTEL_EXPORTER_OTLP_PROTOCOL`` says, else gRPC if its exporter is
            installed, else HTTP. ``["none"]`` exports nothing.
        endpoint: Base address for the OTLP exporters found by name, as in ``OTEL_EXPORTER_OTLP_ENDPOINT``: over HTTP
            ``/v1/traces`` and ``/v1/metrics`` are appended, over gRPC it is used as it is.
        headers: Headers for the OTLP exporters found by name: a mapping, or ``name=value,name=value`` with values
            percent-encoded. Over HTTP the exporter keeps those of its variable that have other names.
        service_name: The service's name, as in ``OTEL_SERVICE_NAME``.
        sampler: A Sampler, a name as in ``OTEL_TRACES_SAMPLER``, or a ratio from 0 to 1.
        export_interval_s: Seconds between two exports of metrics, as in ``OTEL_METRIC_EXPORT_INTERVAL``.

    Returns:
        The providers; both None with ``["none"]`` and when ``OTEL_SDK_DISABLED`` is true.

    Raises:
        ConfigurationError: An option is not allowed, or the SDK or an exporter's package is not installed.
    """
    if isinstance(exporters, str) or not isinstance(exporters, Sequence) or not exporters:
        raise ConfigurationError("exporters", _named(exporters), "a sequence of names and instances, not empty")
    try:
        from . import _sinks
    except ImportError as error:
        missing = f'the OpenTelemetry SDK, pip install "asgi-ws-guard[otel]" ({error})'
        raise ConfigurationError("exporters", [_named(one) for one in exporters], missing) from None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    settings = check_settings(endpoint, headers, service_name, sampler, export_interval_s)
    for one in exporters:
        if not isinstance(one, (str, *_sinks.TYPES)):
            raise ConfigurationError("exporters", _named(one), f"names and instances; an instance is {INSTANCE}")
    plans = _plan(exporters, settings)
    if not plans or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Providers(None, None)
    healths = {plan.name: Health(plan.name) for plan in plans}
    sinks = _sinks.Sinks(settings.export_interval_s)
    made: list[Any] = []
    try:
        for plan in plans:
            made.append(_make(plan))
        for plan, one in zip(plans, made, strict=True):
            sinks.add(one, plan.name, healths[plan.name])
        resource = Resource.create({"service.name": settings.service_name} if settings.service_name else None)
        meters = tracers = None
        if sinks.readers:
            try:
                meters = MeterProvider(sinks.readers, resource, shutdown_on_exit=False)
            except Exception as error:
                named = [type(one).__name__ for one in sinks.readers]
                raise ConfigurationError("exporters", named, "readers that belong to no other provider") from error
        if sinks.processors:
            tracers = TracerProvider(settings.sampler, resource, shutdown_on_exit=False)
            for processor in sinks.processors:
                tracers.add_span_processor(processor)
    except BaseException:
        sinks.running.end(0.0, 0.0)
        for plan, one in list(zip(plans, made, strict=False))[len(sinks.running.flushes) :]:
            if plan.make is not None:
                with suppress(Exception):
                    one.shutdown()
        raise
    sinks.running.shutdowns[:] = [one.shutdown for one in (tracers, meters) if one is not None]
    providers = Providers(tracers, meters, sinks.running)
    atexit.register(providers.shutdown)
    return providers


@dataclass(frozen=True, slots=True)
class _Plan:
    """
    One exporter of one signal, before it is made.

    Attributes:
        name: Its name, or the name of an instance's type.
        make: What the entry point stands for, None for an instance.
        made: The instance, None for a name.
        options: What `make` gets.
    """

    name: str
    make: Any
    made: Any
    options: dict[str, Any]


def _plan(exporters: Sequence[object], settings: Settings) -> list[_Plan]:
    if list(exporters) == ["none"]:
        settings.all_are_taken(set())
        return []
    plans: list[_Plan] = []
    taken: set[str] = set()
    seen: set[object] = set()
    for one in exporters:
        found = _by_name(one, settings) if isinstance(one, str) else [_Plan(_named(one), None, one, {})]
        for plan in found:
            key = id(one) if plan.made is not None else plan.make
            if key in seen:
                raise ConfigurationError("exporters", [_named(one) for one in exporters], f"{plan.name} once")
            seen.add(key)
            taken |= set(plan.options)
        plans += found
    settings.all_are_taken(taken)
    return plans


def _by_name(name: str, settings: Settings) -> list[_Plan]:
    plans = []
    for group in GROUPS:
        found = find_exporter(name, group)
        if found is not None:
            own, make = found
            plans.append(_Plan(own, make, None, settings.options_for(own, group, _parameters(make))))
    if not plans:
        names = ", ".join(installed()) or "those to be installed"
        raise ConfigurationError("exporters", name, f"one of {names}, or {INSTANCE}")
    return plans


def _make(plan: _Plan) -> object:
    if plan.make is None:
        return plan.made
    hush = Hush(["opentelemetry.util.re"])  # it logs a header that it cannot read, with its value
    try:
        with hush:
            return plan.make(**plan.options)
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else None
        what = type(error).__name__ + (f": {why}" if why else "")
        raise ConfigurationError("exporters", plan.name, f"an exporter that can be made ({what})") from error
    finally:
        hush.remove()
        if hush.held:
            _log.warning("OTEL_EXPORTER_OTLP_HEADERS: a part is not name=value, and was left out")


def _parameters(make: Any) -> set[str]:
    try:
        return set(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return set()


def _named(one: object) -> str:
    return one if isinstance(one, str) else f"class {one.__name__}" if isinstance(one, type) else type(one).__name__
