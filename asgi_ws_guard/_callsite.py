"""
Finds the line of the application that is sending.

It walks the frames of the running task, and skips the guard's own, those of frameworks and servers, and those of the
standard library. It looks at names of modules and at code objects, never at values.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

from ._events import CallSite

_NOT_THE_APPLICATION = frozenset(
    {
        "_pytest",
        "a2wsgi",
        "anyio",
        "ariadne",
        "asgiref",
        "blacksheep",
        "channels",
        "daphne",
        "django",
        "elasticapm",
        "engineio",
        "falcon",
        "fastapi",
        "granian",
        "hypercorn",
        "litestar",
        "nicegui",
        "opentelemetry",
        "prometheus_client",
        "pluggy",
        "quart",
        "sanic",
        "sentry_sdk",
        "slowapi",
        "socketio",
        "starlette",
        "strawberry",
        "structlog",
        "trio",
        "uvicorn",
        "uvloop",
        "websockets",
        "werkzeug",
        "wsproto",
    }
)
_GUARD = __name__.partition(".")[0]
_ADAPTERS = f"{_GUARD}.adapters."
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def call_site() -> CallSite | None:
    """
    Find who is sending.

    Returns:
        The innermost line of the application in the running task's coroutines, None when there is none (a task that
        runs `send` itself, as `asyncio.gather` makes it). What started the task is not looked at.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package(frame) == _GUARD:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_flags & _COROUTINE:
        package = _package(frame)
        is_ours = _module(frame).startswith(_ADAPTERS)
        if package not in _NOT_THE_APPLICATION and package not in sys.stdlib_module_names and not is_ours:
            return CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
