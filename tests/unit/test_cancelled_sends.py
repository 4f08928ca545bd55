"""What a cancelled send leaves behind: granian 2.8 keeps for ever what an exception leads to."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest

from asgi_ws_guard import Allow, Close, Deadlines, WebSocketGuardMiddleware
from asgi_ws_guard._outlet import Unfinished
from asgi_ws_guard._path import gone
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

TEXT: Message = {"type": "websocket.send", "text": "x"}


class _Server:
    """A server whose `receive` and `send` lead to it alone."""

    def __init__(self) -> None:
        self.scripted = ScriptedServer()
        self.scripted.connect()

    async def receive(self) -> Message:
        return await self.scripted.receive()

    async def send(self, message: Message) -> None:
        await self.scripted.send(message)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let nothing go that is held by a cycle."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("options", [{}, {"send_timeout_s": 30.0}], ids=["plain", "deadline"])
@pytest.mark.parametrize("senders", [1, 2])
@pytest.mark.parametrize("message", [TEXT, {"type": "websocket.close"}], ids=["send", "close"])
def test_the_exception_of_a_cancelled_send_leads_to_nothing_that_was_awaited(
    options: dict[str, float], senders: int, message: Message
) -> None:
    """The server's awaitables are gone although the application keeps the cancellations with their tracebacks."""
    awaited: list[weakref.ref[object]] = []
    kept: list[BaseException] = []

    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def attempt() -> None:
            try:
                await send(message)
            except asyncio.CancelledError as error:
                kept.append(error)

        await receive()
        await send({"type": "websocket.accept"})
        await send(TEXT)  # opens the path for those that follow
        tasks = [asyncio.create_task(attempt()) for _ in range(senders)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def main() -> None:
        server, is_free = ScriptedServer(), [True, True]

        def send(message: Message) -> Awaitable[None]:
            if is_free:
                is_free.pop()
                return server.send(message)
            awaitable = stuck()
            awaited.append(weakref.ref(awaitable))
            return awaitable

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(), close_on_return=None, **options)  # type: ignore[arg-type]
        with _no_collection():
            await guard(server.scope, server.receive, send)
            assert kept
            assert [ref() for ref in awaited] == [None] * len(awaited)
        assert awaited

    run(main)


def test_the_exception_of_a_cancelled_rest_leads_to_nothing_that_was_awaited() -> None:
    """The same for a send that was begun by hand, as a hub's are."""

    async def main() -> None:
        box = [asyncio.get_running_loop().create_future()]
        ref = weakref.ref(box[0])

        async def send() -> None:
            await box.pop()

        iterator = send().__await__()
        rest = Unfinished(iterator, next(iterator), copy_context())

        async def finish() -> None:
            await rest

        task = asyncio.create_task(finish())
        await asyncio.sleep(0)
        with _no_collection():
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as kept:
                await task
            assert kept.value.__traceback__ is not None
            assert ref() is None

    run(main)


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("ending", ["returns", "raises", "cancelled", "receives", "sends"])
def test_a_connection_that_is_over_leads_to_nothing_of_the_server(ending: str, measured: bool) -> None:
    """Though the application keeps its handle, receive and send: granian ends a connection that nothing leads to."""
    kept: list[object] = []

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            kept.extend((scope["asgi_ws_guard.connection"], receive, send))
            await receive()
            await send({"type": "websocket.accept"})
            if ending == "raises":
                raise ValueError(ending)
            if ending in ("cancelled", "receives", "sends"):
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_later(0.6, task.cancel)  # the guard reads ahead by then
                del task  # the task leads to what it was cancelled by, and that to this frame
                if ending == "receives":
                    await receive()
                elif ending == "sends":
                    await asyncio.sleep(0.5)
                    await send(TEXT)
                await asyncio.Event().wait()

        recorder = Recorder()
        setattr(recorder, "wants_sizes", measured)  # noqa: B010 - an observer may have the attribute
        guard = WebSocketGuardMiddleware(app, observers=(recorder,), send_timeout_s=30.0)
        server = _Server()
        ref = weakref.ref(server)
        if ending == "sends":
            asyncio.get_running_loop().call_later(0.3, server.scripted.stall_sends)
        with _no_collection():
            serving = asyncio.create_task(guard(server.scripted.scope, server.receive, server.send))
            await asyncio.wait({serving})
            assert (serving.cancelled() or serving.exception() is not None) == (ending != "returns")
            del serving, server
            await asyncio.sleep(0)
            assert ref() is None
        assert kept

    run(main)


class _First:
    """Answers the first message at once: nobody may come in."""

    timeout_s = 5.0

    def __call__(self, payload: str | bytes, /) -> Close:
        return Close(4403)


@pytest.mark.parametrize("cancels", [0, 2], ids=["given_up", "cancelled"])
@pytest.mark.parametrize(
    "terms",
    [{"gate": lambda size: Close(1008)}, {"deadlines": Deadlines(max_age_s=0.5)}, {"first_message": _First()}],
    ids=["gate", "deadline", "first_message"],
)
def test_a_close_that_was_given_up_leads_to_nothing_of_the_server(terms: dict[str, Any], cancels: int) -> None:
    """Though it was cancelled where it was stuck, and the application keeps its handle."""
    kept: list[object] = []

    class Policy:
        def admit(self, handshake: object) -> Allow:
            return Allow(**terms)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(scope["asgi_ws_guard.connection"])
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def main() -> None:
        ref = weakref.ref(server := _Server())
        guard = WebSocketGuardMiddleware(app, observers=(), policies=(Policy(),))
        with _no_collection():
            serving = asyncio.create_task(guard(server.scripted.scope, server.receive, server.send))
            await asyncio.sleep(0.1)
            server.scripted.stall_sends()
            server.scripted.text("a")
            for _ in range(cancels):
                await asyncio.sleep(1)
                serving.cancel()
            await asyncio.wait({serving})
            assert serving.cancelled() == bool(cancels)
            del serving, server
            await asyncio.sleep(1)
            assert ref() is None
        assert kept

    run(main)


def test_who_calls_the_server_after_all_is_told_that_the_peer_is_gone() -> None:
    """The stand-in for the server's own raises what ends a connection, and never hangs."""

    async def main() -> None:
        for call in (gone(), gone({"type": "websocket.send", "text": "x"})):
            with pytest.raises(ConnectionResetError):
                await call

    run(main)
