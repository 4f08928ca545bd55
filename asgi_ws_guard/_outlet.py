"""
Sends on a connection for somebody who is not its handler, without a task as long as the server takes the message.

A message goes the application's way (`Path.send`), so policies, observers and books know of it. It runs in the context
that the guard was called in, not in the sender's: to the guard it is nobody's handler that sends, and what stands
around the guard finds its own variables. The caller keeps the order: one `begin` at a time, and none while one is
unfinished.

Both are copied where `begin` is called for ten thousand connections in a row: what such a loop costs is the memory that
it has to fetch for each of them, so one object fewer counts more than some instructions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterator
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ._close import CloseStatus, legal_reason
from ._events import DropReason
from ._types import Message, Send

if TYPE_CHECKING:
    from ._session import Session

_DONE = object()


class Outlet:
    """
    One sender's way out on one connection.

    Attributes:
        send: The application's `send`.
        context: Of this way, in which nobody is.
    """

    __slots__ = ("_session", "context", "send")

    def __init__(self, session: Session) -> None:
        """
        Make a way out.

        Args:
            session: The connection's session, on an asyncio loop.
        """
        self._session = session
        self.send: Send = session.path.send
        self.context = session.receiving.context.copy()

    @property
    def why_dropped(self) -> DropReason:
        """What ended the connection, and so why a message is dropped."""
        end = self._session.connection.ended
        return DropReason.HANDLER_DONE if end is None else end.because

    def drop(self, reason: DropReason | None = None) -> DropReason:
        """
        Count a message that is not sent.

        Args:
            reason: Why; None: because of what ended the connection.

        Returns:
            The reason.
        """
        why = reason or self.why_dropped
        self._session.bookkeeping.drop(why)
        return why

    def time_out(self, timeout_s: float) -> None:
        """
        End the connection: the peer did not take a message in time.

        Args:
            timeout_s: The time that it had.
        """
        self._session.send_timed_out(timeout_s)

    def end(self, code: int, reason: str, status: CloseStatus) -> Awaitable[None] | None:
        """
        End the connection for the guard.

        Args:
            code: Close code that may be sent.
            reason: Close reason.
            status: The class of the end.

        Returns:
            What sends the close, to be awaited in a task; None when the connection has ended before.
        """
        session = self._session
        if session.connection.ended is not None:
            return None
        reason = legal_reason(reason)
        session.end(DropReason.GUARD_CLOSED, status, code, reason)
        return session.sending.close(code, reason, keep_errors=False)


class Unfinished:
    """
    A send that the server has not finished; awaiting it goes on where it stopped.

    What it waits for was given to nobody yet, so it is given to the task that awaits this, which is the first and only
    one to see it: a future that is done meanwhile is no exception.
    """

    __slots__ = ("_context", "_first", "_iterator")

    def __init__(self, iterator: Iterator[Any], first: object, context: Context) -> None:
        """
        Keep a send.

        Args:
            iterator: Of the coroutine.
            first: What it waits for.
            context: That the coroutine was begun in.
        """
        self._iterator: Any = iterator
        self._first = first
        self._context = context

    def __await__(self) -> Generator[Any, Any, None]:
        """
        Go on, and hold nothing that was waited for.

        A future of granian 2.8 holds the task that waits for it, where no garbage collector looks: an exception whose
        traceback led to the future would stay for ever, with the connection.
        """
        waits_for, self._first = self._first, None
        argument: object = None
        run, iterator = self._context.run, self._iterator
        try:
            while True:
                step, argument = iterator.send, None
                try:
                    argument = yield waits_for
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's, a cancellation too
                    step, argument = iterator.throw, error
                waits_for = None
                try:
                    waits_for = run(step, argument)
                except StopIteration:
                    return
        finally:
            del argument


def begin(send: Send, context: Context, message: Message) -> Unfinished | None:
    """
    Send a message as far as it goes without waiting.

    The server's `send` is stepped by hand in the running task, of which it must not make itself a part: no server
    arms a timeout or asks for its task there (uvicorn 0.54, hypercorn 0.18, granian 2.8, daphne 4.2).

    Args:
        send: Of an `Outlet`.
        context: Of the same one.
        message: A `websocket.send` that nobody else has; the connection is open.

    Returns:
        None when the server has taken it, or has said that the peer is gone; else the rest, to be awaited in a task of
        its own.

    Raises:
        Exception: What the server raised, unless it says that the peer is gone; the message counts as failed.
        ConnectionClosed: The peer is gone, and the guard's option ``late_sends`` is "raise".
    """
    iterator: Any = send(message).__await__()
    first = context.run(next, iterator, _DONE)
    return None if first is _DONE else Unfinished(iterator, first, context)
