"""
One of several processes whose hubs share a Redis, as a raw ASGI application, for the tests with real servers.

A websocket at ``/`` is a client of docs/protocol.md, who may be in every stream; at ``/plain/{room}`` it joins
and only receives. ``{"to": target, "data": ...}`` is sent on, and answered with the report. ``/state`` tells what the
hub holds, ``/presence/{user}`` who is there. ``HUB_REDIS`` is the address of Redis.
"""

from __future__ import annotations

import asyncio
import json
import os

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.hub import Hub
from asgi_ws_guard.hub.redis import RedisBackend

SECRET = "the secret of the tests"
REDELIVER_S = 0.5

backend = RedisBackend(os.environ["HUB_REDIS"], presence_ttl_s=2.0, timeout_s=2.0, max_backoff_s=0.5)
hub = Hub(backend=backend, position_secret=SECRET, outbox_messages=64, send_timeout_s=2.0)
hub.stream_rooms("stream", history_messages=100_000)
hub.stream_users(redeliver_s=REDELIVER_S)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the life of the process, a client, or a page."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        await _answer(send, await _page(scope["path"]))
    else:
        await _serve(scope, receive, send)


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"].startswith("/plain/"):
        hub.join(scope, scope["path"].rpartition("/")[2])
        await hub.ready()
        await send({"type": "websocket.send", "text": "ready"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if not await hub.handle(scope, message.get("text"), allow=lambda _: True):
            wanted = json.loads(message["text"])
            kind, _, name = wanted["to"].partition(":")
            to = hub.send_to_room if kind == "room" else hub.send_to_user
            report = await to(name, wanted["data"])
            await send(
                {"type": "websocket.send", "text": json.dumps({"data": wanted["data"], "remote": report.remote})}
            )


async def _page(path: str) -> object:
    if path.startswith("/presence/"):
        presence = await hub.presence(path.rpartition("/")[2])
        return {"online": presence.is_online, "number": len(presence.local | presence.remote)}
    state = {"connections": hub.connections, "rooms": hub.rooms(), "users": hub.users(), "work": len(hub._work)}
    return {**state, "health": hub.health().state, "ready": await hub.ready(), "tasks": len(asyncio.all_tasks())}


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    async with hub:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _answer(send: Send, answer: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


app = WebSocketGuardMiddleware(application, linger_s=0.5)
