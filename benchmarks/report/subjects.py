"""
Who is compared, by name: how each wraps an application. What belongs to one subject is imported for it alone.

Some patch the process that they are in, so that each subject is measured in a process of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks._subjects import App, PassThrough, silence_logs

Wrap = Callable[[App], App]

BARE, PASSED = "bare", "pass-through"
GUARD, DEFAULTS, EVERYTHING = "guard, no observer", "guard, defaults, no SDK", "guard, all telemetry"
NO_SIZES = "guard, all telemetry, no byte counts"
OTEL, OTEL_NO_SPANS, OTEL_NO_SDK = (
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-instrumentation-asgi, exclude_spans",
    "opentelemetry-instrumentation-asgi, no SDK",
)


class Subject(NamedTuple):
    """
    One of those who are compared.

    Attributes:
        make: Gives the function that wraps an application; it may import and patch.
        needs: The module without which it cannot be measured; empty: none.
    """

    make: Callable[[], Wrap]
    needs: str = ""

    @property
    def is_there(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or find_spec(self.needs) is not None


def _guard(**options: Any) -> Wrap:
    from asgi_ws_guard import WebSocketGuardMiddleware

    return lambda app: WebSocketGuardMiddleware(app, **options)


def _structlog() -> Wrap:
    from asgi_ws_guard.plugins.structlog import StructlogObserver

    return _guard(observers=[StructlogObserver()])


def _everything(**options: Any) -> Wrap:
    from asgi_ws_guard.plugins.logcontext import LogContext
    from asgi_ws_guard.plugins.structlog import StructlogObserver

    from ..telemetry import Providers

    sdk = Providers(readers=1)
    return lambda app: _guard(observers=[sdk.telemetry(**options), LogContext(), StructlogObserver()])(app)


def _otel(**options: Any) -> Wrap:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    from ..telemetry import Providers

    sdk = Providers(readers=1)
    return lambda app: OpenTelemetryMiddleware(app, tracer_provider=sdk.tracer, meter_provider=sdk.meter, **options)


def _otel_without_sdk() -> Wrap:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return lambda app: OpenTelemetryMiddleware(app)


def _sentry() -> Wrap:
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        """Throws away what it is given."""

        def capture_envelope(self, envelope: Any) -> None:
            """Take it."""

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Nowhere, traces_sample_rate=1.0)
    return lambda app: SentryAsgiMiddleware(app)


def _correlation_id() -> Wrap:
    from asgi_correlation_id import CorrelationIdMiddleware

    return lambda app: CorrelationIdMiddleware(app)


def _ddtrace() -> Wrap:
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false", DD_TRACE_STARTUP_LOGS="0"
    )
    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)
    from ddtrace.contrib.asgi import TraceMiddleware
    from ddtrace.trace import TraceFilter, tracer

    class Nowhere(TraceFilter):  # type: ignore[misc, unused-ignore]
        """Throws away what it is given, before anything is sent."""

        def process_trace(self, trace: Any) -> None:
            """Take it."""

    tracer.configure(trace_processors=[Nowhere()])
    return lambda app: TraceMiddleware(app)


SUBJECTS: dict[str, Subject] = {
    BARE: Subject(lambda: lambda app: app),
    PASSED: Subject(lambda: PassThrough),
    GUARD: Subject(partial(_guard, observers=())),
    "guard, structlog": Subject(_structlog),
    DEFAULTS: Subject(_guard),
    "guard, send deadline": Subject(partial(_guard, observers=(), send_timeout_s=10.0)),
    NO_SIZES: Subject(partial(_everything, sizes=False)),
    EVERYTHING: Subject(_everything),
    "asgi-correlation-id": Subject(_correlation_id, "asgi_correlation_id"),
    OTEL_NO_SPANS: Subject(partial(_otel, exclude_spans=["receive", "send"]), "opentelemetry.instrumentation.asgi"),
    OTEL_NO_SDK: Subject(_otel_without_sdk, "opentelemetry.instrumentation.asgi"),
    "sentry-sdk": Subject(_sentry, "sentry_sdk"),
    "ddtrace": Subject(_ddtrace, "ddtrace"),
    OTEL: Subject(_otel, "opentelemetry.instrumentation.asgi"),
}
"""All of them."""
SERVED = (BARE, PASSED, DEFAULTS, EVERYTHING, OTEL)
"""Those that are measured on real servers."""


def prepare(name: str) -> Wrap:
    """
    Make ready for one subject in this process.

    Args:
        name: One of `SUBJECTS`.

    Returns:
        What wraps an application.
    """
    silence_logs()
    return SUBJECTS[name].make()
