"""
What uvicorn imports for the demo: the incident application, bare or behind the guard, and a route that tells how it is.

It runs in the server's process; the demo starts it with `uvicorn --factory asgi_ws_guard.cli._demo_server:bare` or
`:guarded`. It changes nothing of the application: the whole difference between the two is one line in `Metered`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
from typing import Any, cast

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send

STATS_PATH = "/asgi-ws-guard-demo"

# A wheel carries a copy of examples/fastapi_chat.py under the first name; a checkout has the second.
CHAT_MODULES = ("asgi_ws_guard.cli._chat", "examples.fastapi_chat")


def bare() -> ASGIApp:
    """Return the incident application as it is."""
    return Metered(_load_chat(), with_guard=False)


def guarded() -> ASGIApp:
    """Return the incident application behind the guard."""
    return Metered(_load_chat(), with_guard=True)


def _load_chat() -> ASGIApp:
    """Import the incident application from the wheel or the checkout."""
    installed, checkout = CHAT_MODULES
    name = installed if importlib.util.find_spec(installed) else checkout
    return cast("ASGIApp", importlib.import_module(name).app)


class Metered:
    """
    Run an application, with or without the guard, and count what the demo compares.

    The counters stand between guard and application: it is the application that must end, and see no error.
    """

    def __init__(self, app: ASGIApp, *, with_guard: bool) -> None:
        self._app = app
        self._guard = WebSocketGuardMiddleware(self._handle) if with_guard else None
        self._handlers = 0
        self._returned = 0
        self._raised = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for STATS_PATH; everything else is the application's."""
        if scope["type"] == "http" and scope["path"] == STATS_PATH:
            await self._answer(send)
        elif self._guard is not None:
            await self._guard(scope, receive, send)
        else:
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and know for how long."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return

        async def counted_send(message: Message) -> None:
            try:
                await send(message)
            except BaseException:
                self._raised += 1
                raise
            self._returned += 1

        self._handlers += 1
        try:
            await self._app(scope, receive, counted_send)
        finally:
            self._handlers -= 1

    def _stats(self) -> dict[str, Any]:
        """Return what is alive now, and what became of the sends so far; `books` is the guard's own account."""
        stats: dict[str, Any] = {
            "handlers": self._handlers,
            "tasks": len(asyncio.all_tasks()),
            "returned": self._returned,
            "raised": self._raised,
        }
        if self._guard is not None:
            totals = self._guard.totals()
            stats["books"] = {name: getattr(totals, name) for name in ("forwarded", "failed", "refused")}
            stats["books"]["dropped"] = {str(reason): count for reason, count in totals.dropped.items()}
        return stats

    async def _answer(self, send: Send) -> None:
        """Send the stats as JSON."""
        body = json.dumps(self._stats()).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
