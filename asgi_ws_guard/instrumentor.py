"""
The guard as an instrumentation of OpenTelemetry: ``opentelemetry-instrument uvicorn package.module:app``.

``opentelemetry-instrument`` finds it by its entry point ``asgi_ws_guard`` and leaves it out when
``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`` names that. It needs opentelemetry-instrumentation, which is no dependency of
this package: nothing else here imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from ._environment import guard, leave
from ._exceptions import ConfigurationError
from ._hooks import Hooks

__all__ = ["WebSocketGuardInstrumentor"]


class WebSocketGuardInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """
    Guard every application that uvicorn, hypercorn, daphne or granian loads from now on.

    The options come from ``ASGI_WS_GUARD_*`` and are read when an application is loaded. `uninstrument` gives the
    servers their own functions back; applications that are running keep their guard.
    """

    _hooks: Hooks

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: each server is hooked when, and if, it is imported."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._hooks = Hooks(_guard, _Seed())
        self._hooks.put_in()

    def _uninstrument(self, **kwargs: Any) -> None:
        self._hooks.take_out()


class _Seed:
    """Instruments the process in which it is unpickled, when it was pickled in one that is instrumented."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[bool]]:
        return _grow, (WebSocketGuardInstrumentor().is_instrumented_by_opentelemetry,)


def _grow(is_instrumented: bool) -> None:
    instrumentor = WebSocketGuardInstrumentor()
    if is_instrumented and not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()


def _guard(app: Callable[..., object]) -> Callable[..., object]:
    """Wrap what a server has loaded; wrong variables end the process, as they do with `wrap`."""
    try:
        return guard(app, os.environ)
    except ConfigurationError as error:
        leave(error)
