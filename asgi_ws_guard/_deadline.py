"""
A deadline for one send, armed only when the send really suspends.

`asyncio.timeout` around every send costs twenty times what a pass-through does. Most sends never suspend: the first
step of the server's coroutine is made by hand, and only one that suspends there gets a timer. When the time is over
the future on which the server waits is cancelled, not the task, so that no cancellation of anybody else can be
mistaken for the deadline. asyncio only.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from typing import Any

from ._loops import Timer, cancelled_from_outside
from ._types import Message, Send


class SendTimedOutError(Exception):
    """The peer did not take a message in time. It never leaves the guard."""


def with_deadline(send: Send, timeout_s: float, later: Callable[[float, Callable[[], object]], Timer | None]) -> Send:
    """
    Give every send a deadline.

    Args:
        send: The server's `send`, a coroutine function.
        timeout_s: Seconds that one send may be suspended.
        later: Makes a timer.

    Returns:
        A send that raises `SendTimedOutError` when the time is over.
    """

    async def timed(message: Message) -> None:
        steps = send(message).__await__()
        try:
            yielded = next(steps)
        except StopIteration:
            return
        await _Suspended(steps, yielded, timeout_s, later).finish()

    return timed


class _Suspended:
    """A send that did not finish at once."""

    __slots__ = ("_expired", "_later", "_steps", "_timeout_s", "_yielded")

    def __init__(
        self,
        steps: Generator[Any, Any, None],
        yielded: Any,
        timeout_s: float,
        later: Callable[[float, Callable[[], object]], Timer | None],
    ) -> None:
        self._steps = steps
        self._yielded = yielded
        self._timeout_s = timeout_s
        self._later = later
        self._expired = False

    async def finish(self) -> None:
        timer = self._later(self._timeout_s, self._expire)
        try:
            await self._drive()
        except BaseException as error:
            if self._expired and not cancelled_from_outside():
                raise SendTimedOutError from error
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        """Wake the send, unless it is about to go on by itself."""
        cancel = getattr(self._yielded, "cancel", None)
        self._expired = bool(cancel is not None and cancel())

    @types.coroutine
    def _drive(self) -> Generator[Any, Any, None]:
        steps = self._steps
        try:
            while True:
                try:
                    value = yield self._yielded
                except BaseException as error:  # noqa: BLE001 - it is the server's to handle
                    self._yielded = steps.throw(error)
                else:
                    self._yielded = next(steps) if value is None else steps.send(value)
        except StopIteration:
            return
