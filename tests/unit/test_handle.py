"""The handle on a connection, and `current_connection`."""

from __future__ import annotations

import asyncio

import pytest

from asgi_ws_guard import ConnectionHandle, Initiator, State, WebSocketGuardMiddleware, current_connection
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


def test_outside_of_a_connection_there_is_none() -> None:
    """`LookupError` says what is missing."""
    with pytest.raises(LookupError, match="WebSocketGuardMiddleware"):
        current_connection()


def test_it_tells_the_state_from_the_handshake_to_long_after_the_end() -> None:
    """Every property, at every stage, and it may be kept."""

    async def main() -> None:
        server, kept = ScriptedServer(), []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            handle = current_connection()
            kept.append(handle)
            assert handle is scope["asgi_ws_guard.connection"]
            assert (handle.state, handle.is_open) == (State.CONNECTING, False)
            assert (handle.close_code, handle.close_reason, handle.initiator) == (None, "", None)
            await receive()
            await send(ACCEPT)
            assert (handle.state, handle.is_open) == (State.OPEN, True)
            await send(TEXT)
            assert (handle.books.sent, handle.books.attempted) == (1, 2)
            server.disconnect(4321, "cya")
            await receive()
            assert (handle.state, handle.is_open) == (State.CLOSED, False)
            await send(TEXT)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        handle: ConnectionHandle = kept[0]
        assert (handle.close_code, handle.close_reason, handle.initiator) == (4321, "cya", Initiator.CLIENT)
        assert handle.books.dropped == {"client_disconnected": 1}
        assert len(handle.connection_id) == 16
        assert repr(handle) == f"<ConnectionHandle {handle.connection_id} CLOSED>"
        await handle.wait_closed()

    run(main)


def test_each_connection_and_its_tasks_have_their_own() -> None:
    """Handlers side by side, and the tasks they create, see their own connection; a background task sees none."""

    async def main() -> None:
        handles: dict[str, set[ConnectionHandle]] = {"/a": set(), "/b": set()}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def child() -> None:
                handles[scope["path"]].add(current_connection())

            await receive()
            handles[scope["path"]].add(current_connection())
            await asyncio.gather(child(), child())

        async def background() -> None:
            with pytest.raises(LookupError):
                current_connection()

        guard = WebSocketGuardMiddleware(app, observers=())
        servers = [ScriptedServer(path) for path in handles]
        for server in servers:
            server.connect()
        await asyncio.gather(*(server.call(guard) for server in servers), background())
        assert [len(one) for one in handles.values()] == [1, 1]
        assert handles["/a"].isdisjoint(handles["/b"])

    run(main)


def test_wait_closed_wakes_everybody_and_a_cancelled_waiter_harms_nobody() -> None:
    """Any number of tasks may wait, inside and outside of the handler, and one may give up."""

    async def main() -> None:
        server, kept = ScriptedServer(), asyncio.Queue[ConnectionHandle]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            kept.put_nowait(current_connection())
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(current_connection().wait_closed(), 1)
            await current_connection().wait_closed()

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        handle = await kept.get()
        waiting = [asyncio.create_task(handle.wait_closed()) for _ in range(3)]
        await asyncio.sleep(5)
        waiting[0].cancel()
        server.disconnect()
        await asyncio.gather(*waiting[1:], task)
        assert waiting[0].cancelled()

    run(main)


@pytest.mark.parametrize("how", ["close", "return", "raise", "deny", "nothing"])
def test_wait_closed_returns_at_every_end(how: str) -> None:
    """Whoever waits outside of the handler is woken whatever ends the connection."""

    async def main() -> None:
        server, kept = ScriptedServer(), asyncio.Queue[ConnectionHandle]()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            kept.put_nowait(current_connection())
            await asyncio.sleep(1)
            if how == "nothing":
                return
            if how == "deny":
                await send({"type": "websocket.close"})
                return
            await send(ACCEPT)
            if how == "close":
                await send(CLOSE)
                await asyncio.sleep(100)
            if how == "raise":
                raise ValueError

        server.connect()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        handle = await kept.get()
        await asyncio.wait_for(handle.wait_closed(), 2)
        await asyncio.wait({task})
        assert isinstance(task.exception(), ValueError) == (how == "raise")

    run(main)


def test_the_end_calls_whoever_asked_for_it_once() -> None:
    """In the middle of it, before any other task runs; at once when it is over; a failure harms nobody else."""
    called: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handle = current_connection()
        handle.on_end(lambda one: called.append(("first", one is handle, one.close_code)))
        handle.on_end(lambda _: 1 / 0)
        handle.on_end(lambda _: called.append("third"))
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001})
        handle.on_end(lambda _: called.append("late"))

    async def main() -> None:
        server = ScriptedServer()
        task = server.call(WebSocketGuardMiddleware(app, observers=()))
        await task

    run(main)
    assert called == [("first", True, 4001), "third", "late"]
