"""Handlers behind deadlines and gates, one for each path; what one saw is a line of JSON on the standard output."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from asgi_ws_guard import ALLOW, Allow, Close, Deadlines, Delay, Drop, Handshake, Identity, WebSocketGuardMiddleware

DEADLINE_S = 0.5
SEND_S = 1.0
DELAY_S = 0.6
BIG = b"x" * 262144

DEADLINES = {
    "/handshake": Deadlines(handshake_s=DEADLINE_S),
    "/idle": Deadlines(idle_s=DEADLINE_S, idle_code=4000),
    "/parked": Deadlines(idle_s=DEADLINE_S, idle_code=4000),
    "/age": Deadlines(max_age_s=DEADLINE_S),
    "/stalled": Deadlines(max_age_s=DEADLINE_S, send_s=SEND_S),
}
ANSWERS: dict[int, Allow | Drop | Delay | Close] = {
    4: Drop("asked"),
    5: Delay(DELAY_S, "asked"),
    6: Close(4009, "asked"),
}


class Terms:
    """A policy whose terms are those of the path; the gate goes by the size of the word."""

    def admit(self, handshake: Handshake) -> Allow:
        """Let everybody in."""
        identity = Identity("user", time.time() + DEADLINE_S) if handshake.path == "/expired" else None
        gate = by_size if handshake.path == "/gate" else None
        return Allow(identity=identity, gate=gate, deadlines=DEADLINES.get(handshake.path))


def by_size(size: int) -> Allow | Drop | Delay | Close:
    """Answer "drop", "wait!" and "close!" as they say, and let all else pass."""
    return ANSWERS.get(size, ALLOW)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Do what the path says, and print what came."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    if scope["type"] != "websocket":
        return
    started_s, path, got = time.monotonic(), scope["path"], []
    connection = scope["asgi_ws_guard.connection"]
    await receive()
    if path != "/handshake":
        await send({"type": "websocket.accept"})
    if path == "/parked":
        await connection.wait_closed()
    while path == "/stalled" and connection.is_open:
        await send({"type": "websocket.send", "bytes": BIG})
        await asyncio.sleep(0.005)  # daphne's sends never wait: without it nobody else's turn comes
    while (message := await receive())["type"] != "websocket.disconnect":
        got.append(message.get("text"))
        await send({"type": "websocket.send", "text": f"echo {message.get('text')}"})
    record = {"path": path, "got": got, "code": message["code"], "took_s": time.monotonic() - started_s}
    print(json.dumps({"probe": record}), flush=True)


guarded = WebSocketGuardMiddleware(app, policies=(Terms(),))
