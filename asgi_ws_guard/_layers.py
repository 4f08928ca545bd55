"""
Looks at what an application is wrapped in, without calling it and without importing a framework.

It follows the attributes by which middleware keeps what it wraps, and Starlette's list of middleware to come. Imported
by `instrumentor`, `wrap` and the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ._middleware import WebSocketGuardMiddleware

_INNER = ("app", "asgi_app", "application", "inner", "_app", "wrapped_app", "asgi_handler")
_MOST = 64  # layers; a stack that is deeper is a circle that `id` did not find


@dataclass(frozen=True)
class Layer:
    """
    One object around or in front of an application.

    Attributes:
        kind: Its class.
        options: How it will be built, for a middleware that the framework has not built yet; else empty.
        item: The object itself, None when it is not built yet.
    """

    kind: type
    options: dict[str, Any] = field(default_factory=dict)
    item: object = None

    @property
    def name(self) -> str:
        """Return module and name of the class."""
        return f"{self.kind.__module__}.{self.kind.__qualname__}"


def layers(app: object) -> Iterator[Layer]:
    """
    Walk from the outermost object to the innermost that can be found.

    Args:
        app: An ASGI application.

    Yields:
        Every object, and after a Starlette application each of its middleware, from the outside in.
    """
    seen: set[int] = set()
    while app is not None and id(app) not in seen and len(seen) < _MOST:
        seen.add(id(app))
        yield Layer(type(app), item=app)
        held = _held(app)
        user_middleware = held.get("user_middleware")
        if isinstance(user_middleware, list | tuple):
            yield from _to_come(user_middleware)
            return
        app = next((held[name] for name in _INNER if callable(held.get(name))), None)


def is_guarded(app: object) -> bool:
    """Tell whether a guard is found in the stack of an application."""
    return any(issubclass(layer.kind, WebSocketGuardMiddleware) for layer in layers(app))


def _held(app: object) -> dict[str, Any]:
    """Return what an object holds itself; no property of it runs."""
    held = getattr(app, "__dict__", None)
    return held if isinstance(held, dict) else {}


def _to_come(user_middleware: list[Any] | tuple[Any, ...]) -> Iterator[Layer]:
    for middleware in user_middleware:
        kind, options = getattr(middleware, "cls", None), getattr(middleware, "kwargs", {})
        if isinstance(kind, type):
            yield Layer(kind, options if isinstance(options, dict) else {})
