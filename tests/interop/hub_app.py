"""
A hub behind the guard, as a raw ASGI application, for the tests with real servers.

``/{room}`` is a websocket that joins and only receives. Over HTTP: ``/send/{room}/{count}/{size}`` sends numbered
messages to the room, ``/state`` tells what the hub holds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.hub import Hub

PAUSE_S = 0.002
SEND_TIMEOUT_S = 1.0
OUTBOX_BYTES = 16 * 1024 * 1024
"""More than all that a test sends: granian's threads may come to nothing on a busy machine until all is sent."""

left: list[str] = []
hub = Hub(
    outbox_messages=1000,
    outbox_bytes=OUTBOX_BYTES,
    send_timeout_s=SEND_TIMEOUT_S,
    on_leave=lambda _, room, __: left.append(room),
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a member, or one of the two pages."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        hub.join(scope, scope["path"].strip("/"))
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["type"] == "http":
        await _answer(send, await _send(*scope["path"].split("/")[2:]) if "/send/" in scope["path"] else _state())


async def _send(room: str, count: str, size: str) -> dict[str, int]:
    sums = {"sent": 0, "queued": 0, "dropped": 0}
    for number in range(int(count)):
        report = await hub.send_to_room(room, f"{number}:".ljust(int(size), "x"))
        for name in ("sent", "queued"):
            sums[name] += getattr(report, name)
        sums["dropped"] += report.dropped_total
        await asyncio.sleep(PAUSE_S)
    return sums


def _state() -> dict[str, object]:
    state = {"connections": hub.connections, "rooms": hub.rooms(), "work": len(hub._work), "left": len(left)}
    return {**state, **dataclasses.asdict(hub.sums)}


async def _answer(send: Send, answer: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = WebSocketGuardMiddleware(application, linger_s=0.5)
