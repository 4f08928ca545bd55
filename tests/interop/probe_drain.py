"""Handlers that a drain meets, one for each path; how each ended is a line of JSON on the standard output."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from asgi_ws_guard import Allow, Drain, Handshake, WebSocketGuardMiddleware

DRAIN = Drain(deadline_s=1.6, notice_s=0.4, stop_s=0.2, batch=20, every_s=0.02, retry_after_s=(3, 9))
BIG = b"x" * 262144

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do what the path says, and print how it ended."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        record: dict[str, Any] = {"path": scope["path"]}
        try:
            await HANDLERS[scope["path"]](scope["asgi_ws_guard.connection"], receive, send)
            record["end"] = "returned"
        except asyncio.CancelledError:
            record["end"] = "cancelled"
            raise
        finally:
            _tell(record)


def _tell(record: dict[str, Any]) -> None:
    """Write a line in one go: two workers share the output."""
    print(json.dumps({"probe": record}) + "\n", end="", flush=True)


async def _live(receive: Any, send: Any) -> None:
    message: dict[str, Any] = {"type": ""}
    while message["type"] != "lifespan.shutdown":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
    _tell({"path": "lifespan", "end": "shutdown"})


async def _opened(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def echo(connection: Any, receive: Any, send: Any) -> None:
    """Receive until the disconnect."""
    await _opened(receive, send)
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def polite(connection: Any, receive: Any, send: Any) -> None:
    """Finish by itself when it is told."""
    await _opened(receive, send)
    await connection.wait_draining()
    await send({"type": "websocket.send", "text": "saved"})
    await send({"type": "websocket.close", "code": 4001, "reason": "mine"})


async def parked(connection: Any, receive: Any, send: Any) -> None:
    """Wait for something else, and hear of nothing."""
    await _opened(receive, send)
    await asyncio.sleep(3600)


async def stubborn(connection: Any, receive: Any, send: Any) -> None:
    """Swallow the first cancellation."""
    await _opened(receive, send)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)


async def push(connection: Any, receive: Any, send: Any) -> None:
    """Send to somebody who does not read."""
    await _opened(receive, send)
    while connection.is_open:
        await send({"type": "websocket.send", "bytes": BIG})
        await asyncio.sleep(0.01)  # daphne's sends never wait: without it nobody else's turn comes


class Never:
    """A policy that never answers."""

    async def admit(self, handshake: Handshake) -> Allow:
        """Say that it was asked, and wait for something else."""
        _tell({"path": handshake.path, "end": "asked"})
        await asyncio.sleep(3600)
        return Allow()


HANDLERS = {"/echo": echo, "/polite": polite, "/parked": parked, "/stubborn": stubborn, "/push": push}
# A handler that swallows its cancellation is cancelled again every `linger_s`.
guarded = WebSocketGuardMiddleware(app, observers=(), drain=DRAIN, linger_s=1.0)
asking = WebSocketGuardMiddleware(app, observers=(), policies=(Never(),), drain=DRAIN)
