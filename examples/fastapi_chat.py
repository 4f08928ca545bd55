"""
The chat server that everyone copies, with the faults that everyone copies with it.

A ``ConnectionManager`` with rooms and users, personal messages, broadcasts, and a background task
that reports to the room ``global_monitor``. It is an example of what the guard has to live with, not
of how to write a chat:

* no send looks at the state of its connection, and no send tells a disconnect from an error;
* a dead connection stays in its rooms until its own handler notices, after whatever keeps it busy;
* the history is sent outside of every ``try``.

Run it, open http://127.0.0.1:8000/ twice, and refresh::

    uvicorn examples.fastapi_chat:app        # the log fills with errors
    uvicorn examples.fastapi_chat:guarded    # the same application, one line more: none

``CHAT_INTERVAL_S`` is the time between two broadcasts in seconds, ``CHAT_DATABASE_S`` what a call to
the database takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

import structlog
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

from asgi_ws_guard import WebSocketGuardMiddleware

INTERVAL_S = float(os.environ.get("CHAT_INTERVAL_S", "0.05"))
DATABASE_S = float(os.environ.get("CHAT_DATABASE_S", "0.08"))
HISTORY_MESSAGES = 20
GLOBAL_MONITOR = "global_monitor"

logger = structlog.get_logger()


class ConnectionManager:
    """Keep who is connected, in which room, as which user, and send to them."""

    def __init__(self) -> None:
        self.rooms: dict[str, set[WebSocket]] = defaultdict(set)
        self.users: dict[str, set[WebSocket]] = defaultdict(set)
        self.history: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=HISTORY_MESSAGES))

    async def connect(self, websocket: WebSocket, room: str, user: str) -> None:
        """Accept the connection, show what was said before, and let it in."""
        await websocket.accept()
        history = await self.load_history(room)
        await websocket.send_json({"type": "history", "room": room, "messages": history})
        self.rooms[room].add(websocket)
        self.users[user].add(websocket)

    def disconnect(self, websocket: WebSocket, room: str, user: str) -> None:
        """Forget the connection, and what it leaves empty."""
        for group, name in ((self.rooms, room), (self.users, user)):
            group[name].discard(websocket)
            if not group[name]:
                del group[name]

    async def load_history(self, room: str) -> list[Any]:
        """Return the last messages of *room*, oldest first, as a database would."""
        await asyncio.sleep(DATABASE_S)
        return list(self.history[room])

    async def save(self, room: str, message: dict[str, Any]) -> None:
        """Store *message* in the history of *room*, as a database would."""
        await asyncio.sleep(DATABASE_S)
        self.history[room].append(message)

    async def send_personal_message(self, message: dict[str, Any], websocket: WebSocket) -> None:
        """Send to one connection, and log whatever goes wrong."""
        try:
            await websocket.send_json(message)
        except Exception as error:
            logger.error("Failed to send personal message", error=str(error))

    async def send_to_user(self, message: dict[str, Any], user: str) -> None:
        """Send to all connections of *user*."""
        for websocket in list(self.users.get(user, ())):
            await self.send_personal_message(message, websocket)

    async def broadcast_to_room(self, message: dict[str, Any], room: str) -> None:
        """Send to all connections in *room*."""
        for websocket in list(self.rooms.get(room, ())):
            await self.send_personal_message(message, websocket)

    async def broadcast(self, message: dict[str, Any]) -> None:
        """Send to all connections in all rooms."""
        for room in list(self.rooms):
            await self.broadcast_to_room(message, room)


manager = ConnectionManager()


async def report_to_monitor() -> None:
    """Tell the global monitor, every INTERVAL_S seconds, how many are where."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        counts = {room: len(members) for room, members in manager.rooms.items()}
        await manager.broadcast_to_room({"type": "stats", "rooms": counts}, GLOBAL_MONITOR)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the background task for as long as the server runs."""
    task = asyncio.create_task(report_to_monitor())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


app = FastAPI(lifespan=lifespan)


async def handle_text(websocket: WebSocket, room: str, user: str, text: str) -> None:
    """Store one message, pass it on, and acknowledge it."""
    message = {"type": "message", "room": room, "user": user, "text": text}
    await manager.save(room, message)
    if text.startswith("@"):
        await manager.send_to_user(message, text[1:].partition(" ")[0])
    elif text.startswith("!"):
        await manager.broadcast(message)
    elif room != GLOBAL_MONITOR:  # those who monitor only listen
        await manager.broadcast_to_room(message, room)
    await manager.send_personal_message({"type": "ack", "text": text}, websocket)


@app.websocket("/ws/{room}/{user}")
async def chat(websocket: WebSocket, room: str, user: str) -> None:
    """Serve one page: everything it says goes to its room, ``@user`` to one user, ``!`` to all."""
    await manager.connect(websocket, room, user)
    try:
        while True:
            text = await websocket.receive_text()
            await handle_text(websocket, room, user, text)
    except WebSocketDisconnect:
        logger.info("WebSocket left", room=room)
    except Exception as error:
        logger.error("WebSocket error", error=str(error), room=room)
    finally:
        manager.disconnect(websocket, room, user)


PAGE = """<!doctype html><title>chat</title><pre id="log"></pre><script>
const socket = new WebSocket(`ws://${location.host}/ws/global_monitor/user-1`);
socket.onmessage = (event) => { document.getElementById("log").textContent = event.data; };
setInterval(() => socket.send("seen"), 100);
</script>"""


@app.get("/")
async def page() -> HTMLResponse:
    """Show the global monitor; the page confirms now and then what it has seen, as pages do."""
    return HTMLResponse(PAGE)


guarded = WebSocketGuardMiddleware(app)
