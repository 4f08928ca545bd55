"""
The sending side of one guarded connection: what becomes of the application's messages (G1, G2, G4, G6, G11, G12).

The order of work for one message: policies answer; the state step commits and its events go out at once; the server is
awaited; only then the message counts as forwarded. Nothing is sent to the server after a close.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ._connection import Verdict
from ._events import Books, CloseAdjusted, DropReason
from ._handle import _current
from ._loops import AsyncioLoop, Flag, Timer
from ._path import gone
from ._policing import passes
from ._send_lanes import tracked
from ._servers import hypercorn_of, peer_lost, private_code, refuses_code
from ._types import Message, Send
from ._waking import Waker

if TYPE_CHECKING:
    from ._session import Session

STOP_S = 1.0
"""Seconds to wait for a server's cancelled `send`."""
CLOSE_S = 60.0
"""Seconds for which nobody hears of the end while a close is stuck at the server. The slowest that is known to finish,
uvicorn's with websockets, takes 40 s at most: four times its `close_timeout`."""


class Sending:
    """The sending side of one connection."""

    __slots__ = (
        "_closing",
        "_is_busy",
        "_session",
        "_task",
        "_timer",
        "_waker",
        "in_flight",
        "timeout_s",
        "write",
    )

    def __init__(self, session: Session, write: Send) -> None:
        """
        Make the sending side of a connection.

        Args:
            session: The connection's session.
            write: The server's `send`.
        """
        self._session = session
        self.timeout_s = math.inf
        self.in_flight: dict[Awaitable[None], Sending] | None = None
        self.write = write
        self._waker: Waker | None = None
        self._closing: Flag | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._is_busy = False

    async def send(self, message: Message) -> None:
        """
        Send what the path may not.

        Args:
            message: The application's message.

        Raises:
            ProtocolError: The message is not allowed.
            ConnectionClosed: The connection has ended and the time for late sends is over.
        """
        session = self._session
        self._see_sender()
        if session.entrance is not None and session.is_held and not _is_close(message):
            await session.entrance.wait()
        session.bookkeeping.find_route()
        if session.terms.subprotocol is not None:
            message = _answering(message, session.terms.subprotocol)
        step = session.connection.send(message, session.loop.time())
        session.see_accept()
        session.tell(step.events)
        if step.error is not None:
            session.bookkeeping.count_late(Books(refused=1))
            raise step.error
        if step.verdict is Verdict.DROP:
            await session.late.send(message["type"])
        elif message["type"] != "websocket.send" or await passes(session, step.message):
            await self._forward(step.message)
        else:
            session.bookkeeping.drop(DropReason.POLICY)
            await session.loop.turn()  # nobody else does: a loop without any sleep would starve all others

    def send_failed(self, message: Message, error: BaseException, started_s: float | None = None) -> None:
        """
        Take what the server's `send` raised.

        Args:
            message: The message that was not, or not known to be, taken.
            error: The server's exception, a cancellation, or the deadline's.
            started_s: When the server was given it; None when nobody wants to know.

        Raises:
            BaseException: The error, unless it says no more than that the peer is gone.
            ConnectionClosed: In its place, when late sends are to raise.
        """
        session = self._session
        if peer_lost(error):
            session.transport_lost()
            reason = session.late.drop(message["type"])
            self._tell_lost(message, started_s, error, reason)
        else:
            session.connection.failed += 1
            session.bookkeeping.count_late(Books(failed=1))
            self._tell_lost(message, started_s, error, None)
            if not isinstance(error, Exception):  # cancelled, or thrown away by who began it by hand
                self._look_for_end()
            if self._waker is None or not self._waker.woke(error):
                try:
                    raise error
                finally:
                    del error  # its traceback leads here
        if session.options.late_sends == "raise":
            raise session.late.refusal() from error

    def keep_deadline(self, timeout_s: float, in_flight: dict[Awaitable[None], Sending]) -> None:
        """
        Let the watch see which sends the server has not finished; the shortest deadline counts.

        A deadline armed for each send costs several times what a pass-through does, so one timer looks at all of them.

        Args:
            timeout_s: Seconds that the peer may take for one message.
            in_flight: Those of all connections of the watch.
        """
        self.timeout_s = min(self.timeout_s, timeout_s)
        if self.in_flight is None:
            self.in_flight = in_flight
            self.write = tracked(self, self.write, in_flight)

    def timed_out(self, pending: list[Awaitable[None]]) -> None:
        """
        End the connection: a send has been pending for too long; the watch calls it.

        The futures are cancelled on which the server waits, not the tasks, so that the cancellation of somebody else is
        never mistaken for it.

        Args:
            pending: All sends of this connection that the server has not finished.
        """
        self._session.send_timed_out(self.timeout_s)
        self._waker = self._waker or Waker()
        for one in pending:
            self._waker.wake(one)

    async def granted(self, message: Message) -> None:
        """
        Count what went, and let the loop go round if it did not since the last time: no send may have suspended.

        Args:
            message: The message that was forwarded.
        """
        session = self._session
        if session.connection.finished:
            session.connection.sent += 1
            one = session.path.measure(message)
            session.bookkeeping.count_late(one.as_sent())
            return
        session.path.grant(beside=1)
        if self._is_busy:
            await session.loop.turn()
            return
        self._is_busy = session.loop.soon(self._turned)
        if not self._is_busy:
            await session.loop.turn()

    def close(self, code: int, reason: str, *, keep_errors: bool, translate: bool = True) -> Coroutine[Any, Any, None]:
        """
        Make a close of the guard's own, after the connection's end was committed.

        Args:
            code: Close code that may be sent.
            reason: Close reason, at most 123 bytes of UTF-8.
            keep_errors: False where nobody could hear of an exception, or another one is on its way.
            translate: False when an exception goes on to the server: daphne then closes with 1011 by itself, which it
                would not send for us.

        Returns:
            What sends it, to be awaited, also when the handler is done meanwhile. It raises what the server raised,
            unless that says that the peer is gone.
        """
        message: Message = {"type": "websocket.close", "code": code, "reason": reason}
        return self._close(self.write, message, keep_errors=keep_errors, translate=translate)

    def close_soon(self, code: int, reason: str) -> None:
        """
        Send a close in a task of the guard's, after the connection's end was committed; nobody hears of that before.

        Args:
            code: Close code that may be sent.
            reason: Close reason, at most 123 bytes of UTF-8.
        """
        session = self._session
        loop = session.loop
        assert isinstance(loop, AsyncioLoop)  # noqa: S101 - others close in the task of whoever asked
        self.hold_back()
        self._task = loop.start(self.close(code, reason, keep_errors=True), session.receiving.context)
        self._task.add_done_callback(self._closed_soon, context=Context())

    async def finish_close(self, *, keep_errors: bool) -> None:
        """
        Wait until the close that a policy asked for is out, or is known to be stuck.

        Args:
            keep_errors: False when another exception is on its way.

        Raises:
            Exception: What the server raised, unless that says that the peer is gone.
        """
        task, end = self._task, self._session.connection.ended
        if task is not None and end is not None:
            await finished(task, end.at_s + CLOSE_S - self._session.loop.time())
            error = None if task.cancelled() or not task.done() else task.exception()
            self._task = task = None
            if error is not None and keep_errors:
                try:
                    raise error
                finally:
                    del error  # its traceback leads here: granian ends who nothing leads to

    def give_up_close(self) -> None:
        """Wait no longer for the server to take that close."""
        if self._task is not None:
            self._task.cancel()

    def _closed_soon(self, task: asyncio.Task[None]) -> None:
        """Let everybody know of the end also when the task was cancelled before it began."""
        if self._closing is not None:
            self.let_know()
        if not task.cancelled():
            task.exception()  # asyncio need not tell of it: the end of the handler does, if somebody waits for that

    def finish(self) -> None:
        """Let go of the server: nothing is sent any more but a close that is on its way, and whom that holds back."""
        self.write = gone
        session, end = self._session, self._session.connection.ended
        if self.holds_back and end is not None:  # another task's, and the watch looks here no more
            self._timer = session.loop.later(max(0.0, end.at_s + CLOSE_S - session.loop.time()), self._hold_no_more)
        self._task = None  # what it was cancelled by leads to the server

    @property
    def is_closing(self) -> bool:
        """Whether a close is on its way to the server."""
        return self._closing is not None

    @property
    def holds_back(self) -> bool:
        """Whether nobody may hear of the end yet, as a close is on its way; for `CLOSE_S` at most."""
        return self._closing is not None and not self._closing.is_set()

    def hold_back(self) -> None:
        """Let nobody hear of the end before the last message is out, and nothing else pass; for `CLOSE_S` at most."""
        self._closing = self._closing or self._session.loop.flag()
        self._session.shut_path()

    def let_know(self) -> None:
        """Let everybody hear of the end: the last message is out, or will never be."""
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.set()
        if self._timer is not None:
            self._timer.cancel()
        self._session.has_ended()

    async def close_gone_out(self) -> None:
        """
        Wait while a close is on its way: waking a reader now could cancel the sender halfway (Quart 0.22).

        Not for longer than `CLOSE_S`: a `receive` never hangs. Under trio, without timers, for as long as it takes.
        """
        if self._closing is not None:
            await self._closing.wait()

    def look(self) -> None:
        """Let everybody know of the end although a close is stuck at the server."""
        end = self._session.connection.ended
        if end is not None and self._session.loop.time() - end.at_s >= CLOSE_S:
            self._hold_no_more()

    def _hold_no_more(self) -> None:
        if self._closing is not None and not self._closing.is_set():
            self._closing.set()
            self._session.has_ended()

    async def _forward(self, message: Message) -> None:
        session = self._session
        is_end = session.connection.ended is not None
        started_s = session.loop.time()
        try:
            await (self._write_close(self.write, message, translate=True) if is_end else self.write(message))
        except BaseException as error:  # noqa: BLE001 - it is raised again, or known to say "gone"
            try:
                self.send_failed(message, error, started_s)
            finally:
                if message["type"] == "websocket.accept" and session.entrance is not None:
                    session.entrance.fail()
            return
        session.bookkeeping.forwarded(message)
        if message["type"] == "websocket.send" and session.telling is not None:
            session.telling.sent(message, started_s)
        session.open_path()
        if message["type"] == "websocket.accept" and session.entrance is not None:
            await session.entrance.pass_through()
        if message["type"] == "websocket.send" and session.path.spend():
            await self.granted(message)

    async def _close(self, write: Send, message: Message, *, keep_errors: bool, translate: bool) -> None:
        try:
            await self._write_close(write, message, translate=translate)
        except asyncio.CancelledError as error:
            if self._waker is None or not self._waker.woke(error):
                raise
        except Exception as error:
            if keep_errors and not peer_lost(error):
                raise

    async def _write_close(self, write: Send, message: Message, *, translate: bool) -> None:
        """Send the last message, with no read pending where that deadlocks; nobody is woken before it is out."""
        session = self._session
        self.hold_back()
        try:
            if session.receiving.stop_before_close:
                await session.receiving.stop()
            try:
                await write(message)
            except Exception as error:
                if not (translate and refuses_code(error)):
                    raise
                await self._write_private_close(write, message)
        finally:
            self.let_know()

    async def _write_private_close(self, write: Send, message: Message) -> None:
        session = self._session
        asked = int(message["code"])
        code = private_code(asked)
        adjusted = CloseAdjusted(session.connection_id, session.loop.time(), asked, code, reason_cut=False)
        session.tell((adjusted,))
        await write({**message, "code": code})

    def _look_for_end(self) -> None:
        """End the connection if the send that was given up is all that would have told of its end (hypercorn)."""
        hypercorn = None if self._session.connection.ended else hypercorn_of(self._session.task)
        if hypercorn is not None and hypercorn.has_closed:
            self._session.transport_lost()

    def _tell_lost(
        self, message: Message, started_s: float | None, error: BaseException, reason: DropReason | None
    ) -> None:
        telling = self._session.telling
        if telling is not None and started_s is not None and message["type"] == "websocket.send":
            telling.lost(message, started_s, error, reason)

    def _see_sender(self) -> None:
        """Report the running task while it is looked at who sends."""
        senders = self._session.watch.senders
        if senders.looking:
            handle = _current.get()
            senders.seen(self._session.connection_id, None if handle is None else handle.connection_id)

    def _turned(self) -> None:
        self._is_busy = False


async def finished(task: asyncio.Task[None], within_s: float) -> None:
    """
    Wait for a close of the guard's, and give it up when the time is over or the caller is cancelled.

    Args:
        task: What sends it.
        within_s: Seconds.
    """
    try:
        await asyncio.wait({task}, timeout=max(0.0, within_s))
    finally:
        task.cancel()
    await asyncio.wait({task}, timeout=STOP_S)


def _is_close(message: Message) -> bool:
    return isinstance(message, Mapping) and message.get("type") == "websocket.close"


def _answering(message: Message, subprotocol: str) -> Message:
    """Answer the client's offer in an accept that does not: a browser fails a handshake whose offer gets no answer."""
    if not isinstance(message, Mapping) or message.get("type") != "websocket.accept" or message.get("subprotocol"):
        return message
    headers = message.get("headers") or ()
    is_answered = isinstance(headers, Iterable) and any(_is_answer(pair) for pair in headers)
    return message if is_answered else {**message, "subprotocol": subprotocol}


def _is_answer(pair: object) -> bool:
    name = pair[0] if isinstance(pair, list | tuple) and pair else None
    return isinstance(name, bytes) and name.lower() == b"sec-websocket-protocol"
