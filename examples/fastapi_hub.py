"""
The chat of ``examples/fastapi_chat.py``, on the hub: the same rooms, users, personal messages and broadcasts.

The ``ConnectionManager`` is gone, and with it the faults: nobody is removed by hand, nobody waits for the slowest, and
no send needs a ``try``. Run it, open http://127.0.0.1:8000/ twice, and refresh::

    uvicorn examples.fastapi_hub:app

``CHAT_INTERVAL_S`` is the time between two broadcasts in seconds, ``CHAT_DATABASE_S`` what a call to the database
takes. With ``CHAT_REDIS=redis://127.0.0.1:6379/0`` any number of processes are one chat.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.hub import Hub
from asgi_ws_guard.hub.redis import RedisBackend

INTERVAL_S = float(os.environ.get("CHAT_INTERVAL_S", "0.05"))
DATABASE_S = float(os.environ.get("CHAT_DATABASE_S", "0.08"))
HISTORY_MESSAGES = 20
GLOBAL_MONITOR = "global_monitor"

REDIS = os.environ.get("CHAT_REDIS")
hub = Hub(backend=RedisBackend(REDIS) if REDIS else None)
history: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=HISTORY_MESSAGES))


async def report_to_monitor() -> None:
    """Tell the global monitor, every INTERVAL_S seconds, how many are where."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        counts = {room: len(hub.members(room)) for room in hub.rooms()}
        await hub.send_to_room(GLOBAL_MONITOR, {"type": "stats", "rooms": counts})


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the background task for as long as the server runs."""
    task = asyncio.create_task(report_to_monitor())
    async with hub:
        yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


app = FastAPI(lifespan=lifespan)
app.add_middleware(WebSocketGuardMiddleware)


async def handle_text(websocket: WebSocket, room: str, user: str, text: str) -> None:
    """Store one message, pass it on, and acknowledge it."""
    message = {"type": "message", "room": room, "user": user, "text": text}
    await asyncio.sleep(DATABASE_S)
    history[room].append(message)
    if text.startswith("@"):
        await hub.send_to_user(text[1:].partition(" ")[0] or user, message)
    elif text.startswith("!"):
        await hub.broadcast(message)
    elif room != GLOBAL_MONITOR:  # those who monitor only listen
        await hub.send_to_room(room, message)
    await hub.send(websocket, {"type": "ack", "text": text})


@app.websocket("/ws/{room}/{user}")
async def chat(websocket: WebSocket, room: str, user: str) -> None:
    """Serve one page: everything it says goes to its room, ``@user`` to one user, ``!`` to all."""
    await websocket.accept()
    await asyncio.sleep(DATABASE_S)
    await websocket.send_json({"type": "history", "room": room, "messages": list(history[room])})
    hub.join(websocket, room)
    hub.bind_user(websocket, user)
    await hub.ready()
    async for text in websocket.iter_text():
        await handle_text(websocket, room, user, text)


PAGE = """<!doctype html><title>chat</title><pre id="log"></pre><script>
const socket = new WebSocket(`ws://${location.host}/ws/global_monitor/user-1`);
socket.onmessage = (event) => { document.getElementById("log").textContent = event.data; };
setInterval(() => socket.send("seen"), 100);
</script>"""


@app.get("/")
async def page() -> HTMLResponse:
    """Show the global monitor; the page confirms now and then what it has seen, as pages do."""
    return HTMLResponse(PAGE)
