"""What the benchmarks compare: an application bare, behind a pass-through, and behind the guard."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import structlog

from asgi_ws_guard import ALLOW, Allow, Identity, Policy, WebSocketGuardMiddleware
from asgi_ws_guard.plugins.auth import Auth
from asgi_ws_guard.plugins.limits import Limits, Rate
from asgi_ws_guard.plugins.origin import Origin
from asgi_ws_guard.plugins.shedding import Shedding
from asgi_ws_guard.plugins.timeouts import Timeouts

App = Callable[..., Any]


class PassThrough:
    """The cheapest middleware that wraps a websocket: two coroutines that pass everything on."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope."""

        async def pass_receive() -> Any:
            return await receive()

        async def pass_send(message: Any) -> None:
            await send(message)

        await self.app(scope, pass_receive, pass_send)


class Gated:
    """A policy with the cheapest gate there is, which lets everything pass."""

    def admit(self, handshake: Any) -> Allow:
        """Let everybody in."""
        return Allow(gate=lambda size: ALLOW)


ALL_TIMEOUTS = Timeouts(handshake_s=10.0, idle_s=60.0, max_age_s=3600.0, send_s=10.0)
PLENTY = Rate(1e9)


def every_policy() -> list[Policy]:
    """Make all that there is, with every limit on messages; none of it refuses anything here."""
    return [
        Shedding(),
        Origin(),
        Auth(lambda handshake: Identity("ann", time.time() + 3600)),
        Limits(connections=10**6, per_identity=10**6, messages=PLENTY, bytes_received=PLENTY, max_message_bytes=10**6),
        ALL_TIMEOUTS,
    ]


WRAPPERS: dict[str, Callable[[App], App]] = {
    "bare": lambda app: app,
    "pass-through": PassThrough,
    "guard, no observer": lambda app: WebSocketGuardMiddleware(app, observers=()),
    "guard, structlog": WebSocketGuardMiddleware,
    "guard, send deadline": lambda app: WebSocketGuardMiddleware(app, send_timeout_s=10.0),
    "guard, one gate": lambda app: WebSocketGuardMiddleware(app, policies=(Gated(),)),
    "guard, gate and all timeouts": lambda app: WebSocketGuardMiddleware(app, policies=(Gated(), ALL_TIMEOUTS)),
    "guard, every policy": lambda app: WebSocketGuardMiddleware(app, policies=every_policy()),
}
"""The subjects of the comparison, by name."""


def silence_logs() -> None:
    """Let structlog render as in production, JSON from ``info`` on, and throw it away: the terminal does not count."""
    null = open(os.devnull, "w")  # noqa: SIM115 - open for as long as the process
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(null),
        cache_logger_on_first_use=True,
    )


def scope(path: str = "/ws") -> dict[str, Any]:
    """Make a scope as large as uvicorn's."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def connected(app: App, scope: dict[str, Any]) -> tuple[asyncio.Queue[Any], asyncio.Task[None]]:
    """Begin a connection whose peer throws away what it is sent; give what it says, and the task that serves it."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})

    async def receive() -> Any:
        return await inbox.get()

    async def send(message: Any) -> None:
        pass

    return inbox, asyncio.create_task(app(scope, receive, send))


def spread(values: list[float]) -> str:
    """Give the median and the quartiles."""
    ordered = sorted(values)
    return f"{median(ordered):.2f} ({ordered[len(ordered) // 4]:.2f} to {ordered[3 * len(ordered) // 4]:.2f})"


def verdict(value: float, budget: float, *, at_most: bool = True) -> str:
    """Say whether a budget is met."""
    met = value <= budget if at_most else value >= budget
    sign = "≤" if at_most else "≥"
    return f"{sign} {budget}: {'met' if met else 'MISSED'}"
