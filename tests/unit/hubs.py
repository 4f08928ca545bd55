"""
Connections for the tests of the hub: real guards on scripted servers, in virtual time.

Nothing here asserts anything.
"""

from __future__ import annotations

import asyncio
from typing import Any

from asgi_ws_guard import ConnectionHandle, WebSocketGuardMiddleware, current_connection
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.hub import Hub
from asgi_ws_guard.testing import Recorder, ScriptedServer


class Peer:
    """
    One guarded connection whose handler only receives, and what its server was given.

    Attributes:
        handle: The guard's handle.
        guard: The guard.
        server: The scripted server.
        recorder: Hears all events.
        task: Runs the application.
    """

    def __init__(self, **options: Any) -> None:
        self.recorder = Recorder()
        self.server = ScriptedServer()
        self.guard = WebSocketGuardMiddleware(self._app, observers=[self.recorder], **options)
        self.scope: Scope = {}
        self.handle: ConnectionHandle
        self.task: asyncio.Task[None]
        self.send: Send

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.handle, self.send = scope, current_connection(), send
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    @property
    def id(self) -> str:
        """The connection's id."""
        return self.handle.connection_id

    @property
    def got(self) -> list[str | bytes]:
        """Payloads that the server took, in order."""
        sent = [one for one in self.server.sent if one["type"] == "websocket.send"]
        return [one["text"] if "text" in one else one["bytes"] for one in sent]

    async def leave(self) -> None:
        """Let the client go, and the handler end."""
        self.server.disconnect()
        await self.task


async def peer(hub: Hub | None = None, *rooms: str, user: str | None = None, **options: Any) -> Peer:
    """
    Make an open connection.

    Args:
        hub: Where it joins; None: nowhere.
        rooms: What it joins.
        user: Whom it belongs to.
        options: Of its guard.
    """
    made = Peer(**options)
    made.server.connect()
    made.task = made.server.call(made.guard)
    await turns()
    if hub is not None:
        for room in rooms:
            hub.join(made.scope, room)
        if user is not None:
            hub.bind_user(made.handle, user)
    return made


async def turns(number: int = 10) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)
