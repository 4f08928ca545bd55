"""What becomes of a connection when somebody cancels the task that reads ahead, before it has begun."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, run


def test_a_receiver_is_woken_when_the_pump_is_cancelled_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cancels all tasks meets it; reading starts again, on a server that is read by the guard alone too."""
    monkeypatch.setattr("asgi_ws_guard._opening.cancel_loses_messages", lambda: True)  # as on granian

    async def main() -> None:
        server = ScriptedServer()

        def cancel() -> None:
            (pump,) = (task for task in asyncio.all_tasks() if "Reader._pump" in repr(task.get_coro()))
            pump.cancel()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            receiving = asyncio.ensure_future(receive())
            asyncio.get_running_loop().call_soon(cancel)
            asyncio.get_running_loop().call_later(2, server.disconnect)
            assert (await asyncio.wait_for(receiving, 10))["type"] == "websocket.disconnect"

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)
