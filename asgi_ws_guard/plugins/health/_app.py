"""
The raw ASGI application: routes, the token, and answers in JSON.

Nothing that a client sends is ever repeated in an answer, and no malformed scope, query or header raises.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple
from urllib.parse import parse_qsl

from ..._exceptions import ConfigurationError
from ..._types import ASGIApp, Message, Receive, Scope, Send
from ._verdict import THRESHOLDS, HubSource, Source, Thresholds, judge

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_DIGITS = 18


class _Answer(NamedTuple):
    status: int
    body: dict[str, object]
    headers: tuple[tuple[bytes, bytes], ...] = ()


def health_app(
    registry: Source,
    *,
    token: str | None = None,
    thresholds: Thresholds = THRESHOLDS,
    hubs: Sequence[HubSource] = (),
) -> ASGIApp:
    """
    Make an ASGI application that says how the connections are; mount it anywhere.

    ``/health`` (and the mount point itself) gives the verdict: 200 for ok and degraded, 503 for failing. ``/stats``
    gives the numbers. ``/connections`` lists live connections, 1 to 1000 a page (``?limit=&after=``), to those who have
    the token, and does not exist where none is set.

    Args:
        registry: Where the numbers come from: a `Registry` that observes the guards.
        token: What ``Authorization: Bearer`` must say for ``/connections``, of visible ASCII characters; None: off.
        thresholds: What degraded and failing mean.
        hubs: Hubs of this process, started; one that does not reach the others makes it degraded.

    Raises:
        ConfigurationError: An option is not allowed; the token is not shown in it.

    Note:
        A request costs some microseconds per live connection, on the event loop.
    """
    for method in ("summary", "connections"):
        if not callable(getattr(registry, method, None)) or isinstance(registry, type):
            raise ConfigurationError("registry", registry, "a Registry")
    if not isinstance(thresholds, Thresholds):
        raise ConfigurationError("thresholds", thresholds, "Thresholds")
    if not isinstance(hubs, list | tuple) or not all(callable(getattr(hub, "health", None)) for hub in hubs):
        raise ConfigurationError("hubs", type(hubs), "a list of Hub")
    return _Health(registry, _secret("token", token), thresholds, tuple(hubs))


def health_at(path: str, registry: Source, *, token: str | None = None) -> Callable[[Scope], ASGIApp | None]:
    """
    Make the answer to http requests at one path, for applications that cannot mount.

    Args:
        path: Where, such as ``"/ws-health"``; begins with a slash and does not end with one.
        registry: Where the numbers come from.
        token: As in `health_app`.

    Returns:
        A function that gives the application for a scope of a request at *path* or below it, else None.

    Raises:
        ConfigurationError: An option is not allowed; it is named as the guard's option.
    """
    if not isinstance(path, str) or not path.startswith("/") or path.endswith("/") or set(path) & set("?#"):
        allowed = "a path that begins with '/' and does not end with it, such as '/ws-health', or None"
        raise ConfigurationError("health_path", path, allowed)
    app = _Health(registry, _secret("health_token", token), THRESHOLDS, ())

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "", "path": _inner_path(scope)[len(path) :]}, receive, send)

    def pick(scope: Scope) -> ASGIApp | None:
        if scope.get("type") != "http":
            return None
        inner = _inner_path(scope)
        return below if inner == path or inner.startswith(f"{path}/") else None

    return pick


class _Health:
    def __init__(
        self, registry: Source, token: bytes | None, thresholds: Thresholds, hubs: tuple[HubSource, ...]
    ) -> None:
        self._hubs = hubs
        self._registry = registry
        self._token = token
        self._thresholds = thresholds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope.get("type")
        if kind == "http":
            await _respond(self._answer(scope), send, with_body=scope.get("method") != "HEAD")
        elif kind == "websocket":
            if (await receive()).get("type") == "websocket.connect":
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
        elif kind == "lifespan":
            await _live(receive, send)

    def _answer(self, scope: Scope) -> _Answer:
        path = _inner_path(scope).rstrip("/") or "/health"
        if path not in ("/health", "/stats") and not (path == "/connections" and self._token is not None):
            return _Answer(404, {"error": "not_found"})
        if scope.get("method") not in ("GET", "HEAD"):
            return _Answer(405, {"error": "method_not_allowed"}, ((b"allow", b"GET, HEAD"),))
        if path == "/stats":
            return _Answer(200, self._registry.summary().as_dict())
        if path == "/connections":
            return self._connections(scope)
        numbers = self._registry.summary()
        verdict = judge(numbers, self._thresholds, sum(hub.health().state != "up" for hub in self._hubs))
        body: dict[str, object] = {
            "status": verdict.status,
            "reasons": [asdict(reason) for reason in verdict.reasons],
            "connections": numbers.as_dict()["connections"],
        }
        return _Answer(503 if verdict.status == "failing" else 200, body)

    def _connections(self, scope: Scope) -> _Answer:
        if self._token is None or not hmac.compare_digest(_bearer(scope), self._token):
            return _Answer(401, {"error": "unauthorized"}, ((b"www-authenticate", b"Bearer"),))
        query = _query(scope)
        limit, after = _whole(query, "limit", DEFAULT_LIMIT), _whole(query, "after", 0)
        if limit is None or not 1 <= limit <= MAX_LIMIT:
            return _Answer(400, {"error": "bad_query", "limit": f"a whole number, 1 to {MAX_LIMIT}, once"})
        if after is None:
            return _Answer(400, {"error": "bad_query", "after": "a whole number, 0 or more, once"})
        page = self._registry.connections(after=after, limit=limit + 1)
        shown, rest = page[:limit], page[limit:]
        return _Answer(
            200, {"connections": [one.as_dict() for one in shown], "next": shown[-1].number if rest else None}
        )


async def _respond(answer: _Answer, send: Send, *, with_body: bool) -> None:
    body = json.dumps(answer.body, allow_nan=False).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body if with_body else b""})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message: Message = await receive()
        if message.get("type") == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message.get("type") == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def _inner_path(scope: Scope) -> str:
    """Give the path below the mount point: servers and frameworks put ``root_path`` before ``path`` (ASGI HTTP 2.4)."""
    path, root = scope.get("path"), scope.get("root_path")
    if not isinstance(path, str):
        return ""
    root = root.rstrip("/") if isinstance(root, str) else ""
    # Before that was settled some left it out, and a server's ``--root-path`` may not be in what a proxy passes on.
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def _bearer(scope: Scope) -> bytes:
    """Give the token of the only Authorization header; empty when there is none, or more than one."""
    found = []
    headers = scope.get("headers")
    for pair in headers if isinstance(headers, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(one, bytes) for one in pair):
            name, value = pair
            if name.lower() == b"authorization":
                found.append(value)
    if len(found) != 1:
        return b""
    scheme, _, token = found[0].strip().partition(b" ")
    return bytes(token.strip()) if scheme.lower() == b"bearer" else b""


def _query(scope: Scope) -> list[tuple[str, str]]:
    raw = scope.get("query_string")
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True) if isinstance(raw, bytes) else []


def _whole(query: list[tuple[str, str]], name: str, default: int) -> int | None:
    values = [value for key, value in query if key == name]
    if not values:
        return default
    value = values[0]
    is_whole = len(values) == 1 and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS
    return int(value) if is_whole else None


def _secret(option: str, token: object) -> bytes | None:
    if token is None:
        return None
    if not isinstance(token, str) or not token or not all("!" <= one <= "~" for one in token):
        raise ConfigurationError(option, "...", "visible ASCII characters without spaces, or None")
    return token.encode("ascii")
