"""
The application that the servers import: it hands each connection to the framework that its path names.

`FRAMEWORKS_VARIABLE` says which frameworks are imported. Each has its own lifespan, where the server has one.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
from typing import Any
from urllib.parse import parse_qs

from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send

from .scenarios import OVER
from .stage import case, say

FRAMEWORKS_VARIABLE = "COMPATIBILITY_FRAMEWORKS"
SETTLE_PATH, END_PATH = "/settle", "/end"
SETTLE_TURNS = 5
_PARENT = __name__.rpartition(".")[0]

apps: dict[str, ASGIApp] = {
    name: importlib.import_module(f"{_PARENT}.apps.{name}_app").app
    for name in os.environ.get(FRAMEWORKS_VARIABLE, "raw").split(",")
}
_running: set[asyncio.Task[Any]] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope."""
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    name = scope["path"].lstrip("/").partition("/")[0].replace("_nicegui_ws", "nicegui")
    if scope["type"] == "http":
        await apps.get(name, _answer)(scope, receive, send)
        return
    query = parse_qs(scope["query_string"].decode())
    case.set((query["scenario"][0], query["tag"][0]))
    task = asyncio.current_task()
    assert task is not None
    _running.add(task)
    try:
        await apps[name](scope, receive, send)
    finally:
        _running.discard(task)
        say(OVER)


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that the server is there; let what is left to complain do so; end what has not ended by itself."""
    if scope["path"] in (SETTLE_PATH, END_PATH):
        for _ in range(SETTLE_TURNS):
            gc.collect()
            await asyncio.sleep(0.01)  # more than a turn: what a server has to say comes by its transports, too
    if scope["path"] == END_PATH:
        for task in [*_running, *(task for task in asyncio.all_tasks() if _is_ours(task))]:
            task.cancel()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def _is_ours(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__name__", "") == "_push_and_say"


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Start all frameworks, one after another, and end them with the server."""
    await receive()
    lives = [_Life(one, scope) for one in apps.values()]
    for life in lives:
        await life.tell("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for life in lives:
        await life.tell("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


class _Life:
    """The lifespan of one framework, which may have none."""

    def __init__(self, one: ASGIApp, scope: Scope) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.ensure_future(one({**scope, "state": {}}, self._inbox.get, self._answers.put))

    async def tell(self, what: str) -> None:
        """Pass a message on, and wait for the answer, or for the end of a framework that gives none."""
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        answer.cancel()
        if self._task.done() and not self._task.cancelled():
            self._task.exception()
