"""
What the handlers of all frameworks play, and how they tell what happened: one line on stdout for each word.

It runs in the server's process. The scenario of a connection stands in its query string, and reaches the handler by a
context variable, so that no framework has to be asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .scenarios import APP_CODE, HOOK, TASK_OVER, TOLD

PAUSE_S = 0.03
GOODBYE_CODE = 1000
ON_PURPOSE = "raised by the application on purpose"

case: ContextVar[tuple[str, str]] = ContextVar("case")
"""Scenario and tag of the running connection."""
_tasks: set[asyncio.Task[None]] = set()


class OnPurposeError(Exception):
    """The exception that an application raises by itself."""


class Gone(Exception):
    """The disconnect of applications that have none of their own."""


def say(word: str) -> None:
    """Tell that something happened on the running connection."""
    sys.stdout.write(f"SAID {case.get()[1]} {word}\n")  # in one piece: a server's threads write to the same file
    sys.stdout.flush()


def boom() -> None:
    """Raise what the application raises by itself."""
    raise OnPurposeError(ON_PURPOSE)


@dataclass(frozen=True)
class Socket:
    """
    A framework's WebSocket, by what a handler calls.

    Args:
        accept: Accept the handshake.
        send: Send one text.
        receive: Receive one message; raises one of `gone` after the end.
        close: Close with a code; before the accept it denies.
        gone: The framework's own disconnect.
    """

    accept: Callable[[], Awaitable[Any]]
    send: Callable[[str], Awaitable[Any]]
    receive: Callable[[], Awaitable[Any]]
    close: Callable[[int], Awaitable[Any]]
    gone: type[BaseException] = Gone

    async def until_gone(self) -> None:
        """Receive until the framework says that the peer is gone; a cancellation is noted, and goes on."""
        with contextlib.suppress(*(() if self.gone is asyncio.CancelledError else (self.gone,))):
            while True:
                await self.receive()


async def play(socket: Socket) -> None:
    """Be the handler of a connection."""
    scenario = case.get()[0]
    if scenario == "denial":
        await socket.close(APP_CODE)
        return
    await socket.accept()
    await socket.send("hello")
    await _PARTS[scenario](socket)


async def push(socket: Socket) -> None:
    """Only send, for ever."""
    while True:
        await socket.send("tick")
        await asyncio.sleep(PAUSE_S)


async def catch_all(socket: Socket) -> None:
    """Send for ever, whatever that raises."""
    while True:
        with contextlib.suppress(Exception):
            await socket.send("tick")
        await asyncio.sleep(PAUSE_S)


async def background(socket: Socket) -> None:
    """Let a task push, and forget about it."""
    start_pushing(socket)
    await socket.until_gone()


def start_pushing(socket: Socket) -> None:
    """Start a task that pushes until it fails."""
    task = asyncio.create_task(_push_and_say(socket))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _push_and_say(socket: Socket) -> None:
    try:
        await push(socket)
    finally:
        say(TASK_OVER)


async def close_send(socket: Socket) -> None:
    """Close, then send."""
    await socket.close(APP_CODE)
    await socket.send("late")
    say(TOLD)


async def close_receive(socket: Socket) -> None:
    """Close, then receive."""
    await socket.close(APP_CODE)
    await told(socket)


async def double_close(socket: Socket) -> None:
    """Close twice."""
    await socket.close(APP_CODE)
    await socket.close(APP_CODE + 1)
    say(TOLD)


async def receive_again(socket: Socket) -> None:
    """Receive until the disconnect, and once more."""
    try:
        await socket.until_gone()
    finally:
        await told(socket)


async def told(socket: Socket) -> None:
    """Receive once more, and say so if that gives the framework's own disconnect."""
    try:
        await socket.receive()
    except socket.gone:
        say(TOLD)
        if socket.gone is asyncio.CancelledError:
            raise


async def cleanup(socket: Socket) -> None:
    """Say goodbye behind the end, then run the hook."""
    try:
        await socket.until_gone()
    finally:
        await goodbye(socket)


async def goodbye(socket: Socket) -> None:
    """Send, close, and say that all of it was done."""
    await socket.send("bye")
    await socket.close(GOODBYE_CODE)
    say(HOOK)


async def error(socket: Socket) -> None:
    """Fail."""
    boom()


async def plain_return(socket: Socket) -> None:
    """Return without a close."""


_PARTS: dict[str, Callable[[Socket], Awaitable[None]]] = {
    "push_close": push,
    "push_reset": push,
    "catch_all": catch_all,
    "background": background,
    "close_send": close_send,
    "close_receive": close_receive,
    "double_close": double_close,
    "receive_again": receive_again,
    "cleanup": cleanup,
    "error": error,
    "plain_return": plain_return,
}
