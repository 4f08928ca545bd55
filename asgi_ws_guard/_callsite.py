"""
Finds the line of the application that is sending.

It walks the frames of the running task, and skips the guard's own, those of frameworks and servers, and those of the
standard library. It looks at names of modules and at code objects, never at values.
"""

from __future__ import annotations

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
        __name__.partition(".")[0],
    }
)


def call_site() -> CallSite | None:
    """
    Find who is sending.

    Returns:
        The innermost line of the application in the caller's stack, None when there is none (a task that runs the
        framework's `send` directly).
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if (package not in _NOT_THE_APPLICATION and package not in sys.stdlib_module_names) or package == "__main__":
            return CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None
