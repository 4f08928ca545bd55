"""
The first message of a connection, which tells who the client is: nothing passes in either direction before.

It stands between the accept, which the server has taken, and the application, which has not heard so. It starts to read
where nobody does, asks the policies about the first message, and lets the application go on, or closes. It judges
nothing by itself but the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._admission import LATE, welcome
from ._close import CloseStatus, legal_code, legal_reason
from ._events import DropReason, Identity
from ._loops import AsyncioLoop, Flag
from ._plugin import Close
from ._sending import CLOSE_S, finished
from ._types import Message

if TYPE_CHECKING:
    from ._session import Session


class Entrance:
    """
    Waits for the first message of one connection.

    Attributes:
        is_open: Whether the first message has been answered, or the connection has ended: nobody waits any more.
    """

    __slots__ = (
        "_changed",
        "_is_late",
        "_is_refused",
        "_is_taken",
        "_message",
        "_opened",
        "_session",
        "_task",
        "is_open",
    )

    def __init__(self, session: Session) -> None:
        """
        Make it before the accept.

        Args:
            session: The connection's session, whose terms ask for a first message.
        """
        self._session = session
        self._changed: Flag = session.loop.flag()
        self._opened: Flag = session.loop.flag()
        self._message: Message | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_late = self._is_taken = self._is_refused = False
        self.is_open = False

    def take(self, message: Message) -> bool:
        """
        Take the first message.

        Args:
            message: A `websocket.receive` that policies let pass.

        Returns:
            Whether the application is not to see it: it is the first, or comes from somebody who was not let in.
        """
        if self._is_taken or self.is_open:
            return self._is_refused
        self._is_taken, self._message = True, message
        self.look_again()
        return True

    def look_again(self) -> None:
        """Let the work see what has changed: the connection has ended, somebody has stopped to read."""
        self._changed.set()

    async def wait(self) -> None:
        """Wait until the client is known or the connection has ended."""
        await self._opened.wait()

    async def pass_through(self) -> None:
        """
        Wait for the first message and its answer; the sending side calls it when the server has taken the accept.

        The work is a task of the guard's, so that an application that cancels its accept can let nobody in. Under trio
        it is the caller's, and there is no deadline.
        """
        session = self._session
        if self.is_open:
            return
        if isinstance(session.loop, AsyncioLoop):
            self._task = session.loop.start(self._run(), session.receiving.context)
            await self.wait()
        else:
            await self._run()

    def fail(self) -> None:
        """Let nobody in, for the work was not done: the server's accept failed, or somebody cancelled it."""
        session = self._session
        if not self.is_open and session.connection.ended is None:
            session.end(DropReason.GUARD_CLOSED, CloseStatus.UNAUTHORIZED, None)
            session.has_ended()

    def ended(self) -> None:
        """Let everybody go on, to whom all is late now; what came behind an unanswered first message is nobody's."""
        session, task = self._session, self._task
        if not self.is_open:
            self._is_refused = True
            session.receiving.forget()
        self._open()
        if task is not None and task is not session.loop.current_task() and not session.sending.is_closing:
            task.cancel()

    async def stop(self) -> None:
        """Make sure that no work is left when the handler is done: a close that is on its way goes out."""
        task, session = self._task, self._session
        if task is None or task.done():
            return
        end, left_s = session.connection.ended, 0.0
        if end is not None and session.sending.is_closing:
            left_s = end.at_s + CLOSE_S - session.loop.time()
        await finished(task, left_s)

    def give_up(self) -> None:
        """Wait no longer for the server to take the close of a client that was not let in."""
        if self._task is not None and self._session.sending.is_closing:
            self._task.cancel()

    def let_go(self) -> None:
        """Hold no task: what it was cancelled by leads to the server."""
        self._task = None

    def _open(self) -> None:
        self.is_open, self._message = True, None
        self._opened.set()
        self.look_again()

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            self.fail()

    async def _work(self) -> None:
        session = self._session
        until_s = session.loop.time() + min(first.timeout_s for _, first in session.terms.first_messages)
        payload = await self._first(until_s)
        policy = session.terms.first_messages[0][0]
        answer: Identity | Close | None = LATE
        if payload is not None:
            policy, answer = await welcome(session.terms.first_messages, payload, session.loop, until_s)
        if session.connection.ended is not None:
            return
        if isinstance(answer, Close):
            await self._close(policy, answer)
            return
        if answer is not None:
            session.identify(answer)
        self._open()
        session.open_path()

    async def _close(self, policy: str, close: Close) -> None:
        session = self._session
        code, reason = legal_code(close.code), legal_reason(close.reason)
        session.bookkeeping.decided(policy, "close", close.reason)
        session.end(DropReason.GUARD_CLOSED, CloseStatus.UNAUTHORIZED, code, reason)
        await session.sending.close(code, reason, keep_errors=False)

    async def _first(self, until_s: float) -> str | bytes | None:
        """Wait for the first message; give its payload, None when the connection has ended or the time is over."""
        session = self._session
        timer = session.loop.later(until_s - session.loop.time(), self._time_out)
        try:
            while not (self._is_taken or self.is_open or self._is_late):
                self._changed = session.loop.flag()
                await session.receiving.read_for_guard(self._changed)
        finally:
            if timer is not None:
                timer.cancel()
        message = self._message
        if message is None:
            return None
        text = message.get("text")
        return text if isinstance(text, str) else bytes(message.get("bytes") or b"")

    def _time_out(self) -> None:
        self._is_late = True
        self.look_again()
