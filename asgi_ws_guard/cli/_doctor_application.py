"""
What `doctor` sees in an application: guards, middleware around and inside of them, frameworks and their adapters.

It calls nothing of the application; it reads attributes, and the source of middleware. Imported by `_doctor.py` only.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from .._layers import Layer, layers
from .._middleware import WebSocketGuardMiddleware
from ._findings import Finding, Level

_STARLETTE = (
    "After the application closed, or after a refused send, its own object refuses above the guard:"
    ' Cannot call "send" once a close message has been sent.'
)
# Frameworks whose own object keeps a state above `send`: module -> (module of the adapter, what it refuses).
_FRAMEWORKS = {
    "fastapi": ("starlette", _STARLETTE),
    "starlette": ("starlette", _STARLETTE),
    "litestar": ("litestar", "Its own object refuses to receive after the disconnect was read."),
    "quart": ("quart", "A second close raises: Cannot close websocket multiple times."),
    "falcon": ("falcon", "Its own receive pump hides late sends: a handler that catches everything stays alive."),
    "blacksheep": ("blacksheep", "Its own object refuses a send after the end."),
}
# Middleware that lets websockets pass unseen: class -> what is therefore not done for them.
_HTTP_ONLY = {
    "starlette.middleware.cors.CORSMiddleware": "Any page may open a WebSocket: nothing checks its Origin.",
    "slowapi.middleware.SlowAPIMiddleware": "No limit applies to handshakes or to messages.",
    "slowapi.middleware.SlowAPIASGIMiddleware": "No limit applies to handshakes or to messages.",
    "starlette.middleware.base.BaseHTTPMiddleware": "What it checks for requests is not checked for WebSockets.",
}
_OPEN_TELEMETRY = "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware"
_SPANS = "It makes a span of every message: 390 times the cost of a message, 22 times with exclude_spans."
_EXCLUDE = 'exclude_spans=["receive", "send"]'


def advise_application(app: object) -> Iterator[Finding]:
    """
    Look at an application that is imported, and at what it is wrapped in.

    Yields:
        Findings, none of them critical.
    """
    stack = list(layers(app))
    guards = [at for at, layer in enumerate(stack) if issubclass(layer.kind, WebSocketGuardMiddleware)]
    yield from _guards(stack, guards)
    for at, layer in enumerate(stack):
        is_outside = bool(guards) and at < guards[0]
        yield from _middleware(layer, is_outside=is_outside, is_inside=_is_inside(stack, at, guards))
        yield from _spans(layer)
    yield from _frameworks()


def _is_inside(stack: Sequence[Layer], at: int, guards: Sequence[int]) -> bool:
    """Tell whether a middleware stands between the application and the guard, or the place of one from outside."""
    return at > (guards[0] if guards else -1) and (at + 1 < len(stack) or stack[at].item is None)


def _guards(stack: Sequence[Layer], guards: Sequence[int]) -> Iterator[Finding]:
    if not guards:
        yield Finding(
            Level.WARNING,
            "guard",
            "no guard is found in the application",
            "Late sends, lost disconnects and handlers that never end are the server's and the framework's to handle.",
            "app = WebSocketGuardMiddleware(app), or one of the ways from outside: asgi-ws-guard run",
        )
    elif len(guards) > 1:
        yield Finding(
            Level.NOTE,
            "guard",
            f"{len(guards)} guards are found around each other",
            "The outermost one guards; the options of the others have no effect.",
            "keep one",
        )


def _middleware(layer: Layer, *, is_outside: bool, is_inside: bool) -> Iterator[Finding]:
    bases = [f"{base.__module__}.{base.__qualname__}" for base in layer.kind.__mro__]
    unseen = next((_HTTP_ONLY[base] for base in bases if base in _HTTP_ONLY), None)
    if unseen is not None:
        yield Finding(
            Level.WARNING,
            layer.name,
            "this middleware skips WebSockets",
            unseen,
            "a policy of the guard (policies=), or a check in the handler before it accepts",
        )
        return
    if not (is_outside or is_inside) or issubclass(layer.kind, WebSocketGuardMiddleware) or not _wraps_send(layer.kind):
        return
    if is_outside:
        yield Finding(
            Level.WARNING,
            layer.name,
            "this middleware wraps send outside of the guard",
            "The guard takes it for the server: an error of its own may be taken for a lost peer, or hide one.",
            "put the guard outermost: add_middleware of Starlette puts the last one added outermost",
        )
    else:
        yield Finding(
            Level.NOTE,
            layer.name,
            "this middleware wraps send inside of the guard",
            "It still sees late sends before the guard drops them, and counts or traces them as sent.",
        )


def _spans(layer: Layer) -> Iterator[Finding]:
    held = getattr(layer.item, "__dict__", {})
    excluded: object
    if layer.name == _OPEN_TELEMETRY:
        names = [name for name in ("receive", "send") if held.get(f"exclude_{name}_span")]
        excluded = names if layer.item is not None else layer.options.get("exclude_spans")
    elif held.get("_is_instrumented_by_opentelemetry"):
        function = getattr(held.get("build_middleware_stack"), "__func__", None)
        excluded = inspect.getclosurevars(function).nonlocals.get("exclude_spans") if function else None
    else:
        return
    if not {"receive", "send"} <= set(excluded if isinstance(excluded, list | tuple | set) else ()):
        yield Finding(Level.WARNING, layer.name, "OpenTelemetry traces every message", _SPANS, _EXCLUDE)


def _frameworks() -> Iterator[Finding]:
    for name, (adapter, refuses) in _FRAMEWORKS.items():
        if name not in sys.modules or (name == "starlette" and "fastapi" in sys.modules):
            continue
        if all(find_spec(f"asgi_ws_guard.adapters.{one}") is None for one in (name, adapter)):
            yield Finding(
                Level.WARNING,
                name,
                "the application imports it, and there is no adapter for it here",
                refuses,
                "a newer asgi-ws-guard; until then, send nothing after your own close",
            )
        else:
            yield Finding(
                Level.NOTE,
                name,
                f"the adapter {adapter} applies",
                f'With adapters="auto". Without it: {refuses}',
            )


def _wraps_send(kind: type) -> bool:
    """
    Tell whether the ``__call__`` of a middleware hands down another ``send`` than it was given.

    Returns:
        False also when there is no source to read.
    """
    try:
        source = textwrap.dedent(inspect.getsource(kind.__call__))
    except (AttributeError, OSError, TypeError):
        return False
    function = ast.parse(source).body[0]
    if not isinstance(function, ast.AsyncFunctionDef) or len(function.args.args) < 4:
        return False
    scope, _, send = (argument.arg for argument in function.args.args[1:4])
    awaited = [node.value for node in ast.walk(function) if isinstance(node, ast.Await)]
    calls = [node.args for node in awaited if isinstance(node, ast.Call) and len(node.args) == 3]
    return any(_is_name(first, scope) and not _is_name(last, send) for first, _, last in calls)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
