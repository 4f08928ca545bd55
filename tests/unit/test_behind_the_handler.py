"""What the guard reads for a server's sake: granian's first message before an answer, hypercorn's rest at the end."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest

from asgi_ws_guard import Allow, Handshake, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}


class _Noting(ScriptedServer):
    """A server that notes in which order it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def receive(self) -> Message:
        self.calls.append("receive")
        return await super().receive()

    async def send(self, message: Message) -> None:
        self.calls.append(message["type"])
        await super().send(message)


@pytest.mark.parametrize("answer", [ACCEPT, {"type": "websocket.close"}], ids=lambda one: str(one["type"]))
@pytest.mark.parametrize("granian", [True, False])
def test_granian_is_asked_for_the_connect_before_it_is_answered(
    answer: Message, monkeypatch: pytest.MonkeyPatch, *, granian: bool
) -> None:
    """Granian 2.8.7 ends its worker when it is asked after the answer; the handler still gets its own connect."""
    got: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(answer)
        got.append((await receive())["type"])

    async def main() -> list[str]:
        server = _Noting()
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        return server.calls

    if granian:
        monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))
    calls = run(main)
    assert calls[0] == ("receive" if granian else answer["type"])
    assert got == ["websocket.connect"]


def test_what_the_connect_raises_is_raised_in_the_handlers_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the server's first receive goes where it would have gone."""
    monkeypatch.setitem(sys.modules, "granian._granian", types.ModuleType("granian._granian"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="of the server"):
            await receive()

    async def main() -> None:
        server = ScriptedServer()
        server.deliver(ValueError("of the server"))
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


def _served_by(module: str, app: Any, server: ScriptedServer) -> asyncio.Task[None]:
    """Call an application in a task that runs code of a module, as a server's own does."""

    async def serve(app: Any, server: Any) -> None:
        await app(server.scope, server.receive, server.send)

    code = types.FunctionType(serve.__code__, {"__name__": module, "__builtins__": __builtins__})
    return asyncio.create_task(code(app, server))


@pytest.mark.parametrize(("module", "read"), [("hypercorn.asyncio.task_group", 40), ("uvicorn.protocols", 0)])
def test_what_a_handler_left_unread_is_read_on_hypercorn_alone(module: str, read: int) -> None:
    """Also what comes only later and behind the disconnect; then nobody reads any more, and the books have it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)

    async def main() -> tuple[int, int]:
        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=())
        await _served_by(module, guard, server)
        server.text(*("x" * 20))
        server.disconnect()
        await asyncio.sleep(0.5)
        server.text(*("x" * 20))
        await asyncio.sleep(0.9)
        assert server.receives == (1 if read else 0)
        await asyncio.sleep(0.2)
        return guard.totals().received, server.receives

    assert run(main) == (read, 0)


def test_a_guard_inside_a_guard_does_not_read_its_disconnect_for_ever() -> None:
    """On hypercorn both are served by its task, and the outer one repeats the disconnect; no task is left."""

    class Everybody:
        def admit(self, handshake: Handshake) -> Allow:
            return Allow()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()

    async def main() -> None:
        server, before = ScriptedServer(), len(asyncio.all_tasks())
        server.connect()
        server.disconnect()
        inner = WebSocketGuardMiddleware(app, observers=(), policies=[Everybody()])
        await _served_by("hypercorn.asyncio.task_group", WebSocketGuardMiddleware(inner, observers=()), server)
        await asyncio.sleep(5)
        assert len(asyncio.all_tasks()) == before

    run(main)
