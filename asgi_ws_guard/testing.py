"""
What the tests of this package use, for those who test applications and plugins behind the guard.

A server that does what a test says, a clock that jumps instead of waiting, and an observer that remembers. Nothing here
replaces a part of the guard, and nothing in the package imports this module.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ._events import Event
from ._types import ASGIApp, Message, Scope

T = TypeVar("T")
E = TypeVar("E", bound=Event)


class ScriptedServer:
    """
    The server's side of one connection, on asyncio.

    What is delivered waits until the application receives it; when nothing is left `receive` waits for ever, as
    hypercorn and daphne do after a disconnect.

    Attributes:
        scope: The scope that the application is called with; to be changed before `call`.
        sent: Messages that the application's side sent and the server took, in order.
        receives: Number of `receive` calls that wait now.
    """

    def __init__(self, path: str = "/ws", **scope: object) -> None:
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.sent: list[Message] = []
        self.receives = 0
        self._inbox: asyncio.Queue[Message | BaseException] = asyncio.Queue()
        self._error: Callable[[Message], BaseException | None] = lambda message: None
        self._writable = asyncio.Event()
        self._writable.set()

    def deliver(self, *messages: Message | BaseException) -> None:
        """
        Let messages arrive; an exception is raised in `receive` in their place.

        Args:
            messages: In the order in which they arrive.
        """
        for message in messages:
            self._inbox.put_nowait(message)

    def connect(self) -> None:
        """Let ``websocket.connect`` arrive."""
        self.deliver({"type": "websocket.connect"})

    def text(self, *texts: str) -> None:
        """Let text messages arrive."""
        self.deliver(*({"type": "websocket.receive", "text": text} for text in texts))

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Let ``websocket.disconnect`` arrive."""
        self.deliver({"type": "websocket.disconnect", "code": code, "reason": reason})

    def fail_sends(self, error: BaseException | Callable[[Message], BaseException | None] | None) -> None:
        """
        Raise in `send` from now on.

        Args:
            error: What to raise, or a function that gives it for a message; None: raise no more.
        """
        self._error = error if callable(error) else lambda message: error

    def stall_sends(self) -> None:
        """Let every `send` wait from now on, as for a peer that does not read."""
        self._writable.clear()

    def resume_sends(self) -> None:
        """Let waiting sends go on."""
        self._writable.set()

    async def receive(self) -> Message:
        """Give the next message that was delivered."""
        self.receives += 1
        try:
            message = await self._inbox.get()
        finally:
            self.receives -= 1
        if isinstance(message, BaseException):
            raise message
        return message

    async def send(self, message: Message) -> None:
        """Take a message."""
        await self._writable.wait()
        error = self._error(message)
        if error is not None:
            raise error
        self.sent.append(message)

    def types(self) -> list[str]:
        """Give the types of the messages that were taken, in order."""
        return [message["type"] for message in self.sent]

    def call(self, app: ASGIApp) -> asyncio.Task[None]:
        """
        Call an application in a task of its own, as servers do.

        Args:
            app: An ASGI application.

        Returns:
            The task.
        """

        async def serve() -> None:
            await app(self.scope, self.receive, self.send)

        return asyncio.create_task(serve())


class Recorder:
    """
    An observer that remembers every event.

    Attributes:
        events: All events, in order.
        wants_messages: Whether to hear of every message too.
    """

    def __init__(self, *, wants_messages: bool = False) -> None:
        self.events: list[Event] = []
        self.wants_messages = wants_messages

    def __call__(self, event: Event, /) -> None:
        """Remember one event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """
        Give the events of one class.

        Args:
            kind: The class, subclasses included.
        """
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """
        Give the only event of a class.

        Raises:
            LookupError: There is none, or more than one.
        """
        found = self.of(kind)
        if len(found) != 1:
            raise LookupError(f"{len(found)} events of {kind.__name__}: {self.names()}")
        return found[0]

    def names(self) -> list[str]:
        """Give the class names of all events, in order."""
        return [type(event).__name__ for event in self.events]


MAX_TURNS = 200_000
"""Turns of a `VirtualTimeLoop` at one moment of its time."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits no time: where a loop would sleep, its clock jumps."""

    loop: VirtualTimeLoop

    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            self.turns += 1
            if self.turns > MAX_TURNS:
                self.turns = 0
                raise RuntimeError("a task spins without sleeping: the clock stands still")
            return ready
        self.turns = 0
        if timeout is None:
            raise RuntimeError("every task waits for something that nobody will do")
        self.loop.advance(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time stands still while it works and jumps to the next timer when it has nothing to do."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now_s = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Give the virtual time in seconds, from 0."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let the clock jump."""
        self._now_s += max(seconds, 0.0)


def run(main: Callable[[], Coroutine[Any, Any, T]], *, at_most_s: float = 3600.0) -> T:
    """
    Run a coroutine function on a `VirtualTimeLoop`; sleeping costs no time.

    Args:
        main: An asynchronous test, without arguments.
        at_most_s: Virtual seconds after which `TimeoutError` is raised.

    Returns:
        What it returned.

    Raises:
        RuntimeError: Every task waits for something that nobody will do, or one spins without sleeping.
    """
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main(), at_most_s))
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        waiting: Awaitable[Any] = asyncio.gather(*tasks, return_exceptions=True)
        loop.run_until_complete(waiting)
