"""python-socketio: `emit` and `disconnect` name a session; a refused handshake is an answer of its own protocol."""

from __future__ import annotations

from typing import Any

import socketio

from ..scenarios import HOOK, TOLD
from ..stage import PAUSE_S, case, say

sio: Any = socketio.AsyncServer(async_mode="asgi")


@sio.event  # type: ignore[untyped-decorator, unused-ignore]
async def connect(sid: str, environ: Any) -> bool:
    """Serve one session."""
    return case.get()[0] != "denial"


@sio.event  # type: ignore[untyped-decorator, unused-ignore]
async def ready(sid: str) -> None:
    """Play: the client has connected, and would miss nothing now."""
    scenario = case.get()[0]
    while scenario in ("push_close", "push_reset", "cleanup") and sio.manager.is_connected(sid, "/"):
        await sio.emit("tick", {}, to=sid)
        await sio.sleep(PAUSE_S)
    if scenario in ("close_send", "double_close"):
        await sio.disconnect(sid)
        await (sio.disconnect(sid) if scenario == "double_close" else sio.emit("late", {}, to=sid))
        say(TOLD)


@sio.event  # type: ignore[untyped-decorator, unused-ignore]
async def disconnect(sid: str, reason: str) -> None:
    """Say goodbye behind the end."""
    await sio.emit("bye", {}, to=sid)
    await sio.disconnect(sid)
    say(HOOK)


app: Any = socketio.ASGIApp(sio, socketio_path="/socketio")
