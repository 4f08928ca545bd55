"""
The receiving side of one guarded connection: what the application's `receive` gives (G3, G5, G11).

While the connection is open and the application reads, the path reads from the server directly. This module takes
over for everything else: a second reader, reading ahead, the disconnect that every further `receive` gives again, and
the reader that must be woken although its server never will.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from ._close import CloseCode, Initiator
from ._events import ReadAheadFull
from ._handle import _current
from ._holding import Holding
from ._loops import Flag
from ._path import gone
from ._plugin import Allow, Close, Delay, Drop
from ._policing import close_for, close_soon, gate_judged, judged
from ._reader import MAX_MESSAGES, Reader
from ._servers import peer_lost
from ._types import Message, Receive
from ._waking import Waker, step
from ._watch import TICK_S

if TYPE_CHECKING:
    from ._session import Session

DRAIN_S = 1.0
"""Seconds after the end in which the server may still deliver what had arrived, and its own disconnect. uvicorn and
granian do so at once, hypercorn and daphne when the peer answers the close, or never."""
IDLE_S = 0.5
"""Seconds without a pending `receive` after which reading ahead starts: two looks of the watch."""


class Receiving:
    """The receiving side of one connection."""

    __slots__ = (
        "_context",
        "_disconnect",
        "_given",
        "_holding",
        "_idle_since_s",
        "_looks",
        "_never_direct",
        "_reader",
        "_seen",
        "_session",
        "_waker",
        "read",
    )

    def __init__(self, session: Session, read: Receive, *, never_direct: bool) -> None:
        """
        Make the receiving side of a connection.

        Args:
            session: The connection's session.
            read: The server's `receive`.
            never_direct: Never let the application's own task wait in the server's `receive`.
        """
        self._session = session
        self.read = read
        self._never_direct = never_direct
        self._context: Context | None = copy_context()
        if _current.get() is not None:
            self._context.run(_current.set, None)
        self._reader: Reader | None = None
        self._disconnect: Message | None = None
        self._given = False
        self._waker: Waker | None = None
        self._holding: Holding | None = None
        self._idle_since_s = session.connection.opened_at_s
        self._looks = session.watch.looks
        self._seen = 0

    @property
    def reader(self) -> Reader:
        """The reader, made when it is first needed: most connections never do."""
        if self._reader is None:
            self._reader = Reader(self, self._session.loop, self.read, never_direct=self._never_direct)
        return self._reader

    @property
    def context(self) -> Context:
        """
        The context that the guard was called in, where the guard's own reads belong.

        What stands around the guard may wrap `receive` and rely on its own variables there: a span that
        opentelemetry-instrumentation-asgi makes for a message would have no parent in an empty one. The handler's
        context it may not be, or the read would count as that of a child of the handler.
        """
        return self._context or Context()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the task that reads from the server directly."""
        return self._reader is not None and self._reader.wanted

    @property
    def is_over(self) -> bool:
        """
        Whether the server has nothing more to say.

        granian 2.8.7 is not asked after a denial: when nobody has read ``websocket.connect`` by then it panics, and its
        whole worker ends.
        """
        connection = self._session.connection
        if self._never_direct and connection.ended is not None and not connection.accepted:
            return True
        return connection.disconnect_read or connection.finished

    @property
    def received(self) -> int:
        """Number of messages that arrived."""
        return self._session.connection.received + self._session.path.received_messages

    @property
    def is_held(self) -> bool:
        """Whether a message waits because a gate said so: nobody reads meanwhile."""
        return self._holding is not None and self._holding.is_held

    async def connect(self) -> None:
        """
        Read ``websocket.connect`` before the application can answer it, on a server that must not be read directly.

        granian 2.8.7 panics, and its whole worker ends, when it is asked for the first message behind the accept of a
        client that has left. A handler may accept without a `receive`, or in the same turn (Quart).
        """
        if not self._never_direct:
            return
        try:
            await self._read_one()
        except Exception as error:  # noqa: BLE001 - it is raised in the application's next receive
            self.pump_failed(error)

    async def receive(self) -> Message:
        """Give the next message while the path may not read."""
        while True:
            session = self._session
            if session.entrance is not None and session.is_held:
                await session.entrance.wait()
            waiting = None if self._given else self.reader.take()
            if waiting is not None:
                return waiting
            if session.connection.ended is not None:
                return await self._after_end()
            if session.path.reading is not None:
                session.path.ask_about_receives()
            elif not self.is_held and not self.reader.running and not (self._never_direct and self.reader.start()):
                session.path.unblock_reads()
                return await session.path.receive()
            await self.reader.wait()

    async def read_for_guard(self, flag: Flag) -> None:
        """
        Read while the application may not; a read of its own that is pending goes on.

        Args:
            flag: What the caller waits for; where the guard has no tasks, a message that was read is enough.
        """
        session = self._session
        if session.path.reading is None and session.connection.ended is None:
            session.path.block_reads()
            if session.loop.has_tasks:
                self.reader.start()
            else:
                try:
                    await self._read_one()
                except Exception as error:
                    if not peer_lost(error):
                        raise
                    self._lost()
                return
        await flag.wait()

    async def arrived(self, message: Message) -> Message | None:
        """
        Take a message that the application's own task read, and that is special.

        Args:
            message: The server's message.

        Returns:
            What the application receives; None: it has to ask again.

        Raises:
            ProtocolError: The server's message is malformed.
        """
        self._read_done()
        taken = await self.pumped(message)
        if taken is not None and not self._given:
            self._session.open_path()
            return taken
        return None

    async def judged(self, message: Message, answer: object) -> Message | None:
        """
        Take a plain message that the application's own task read, and that a gate did not simply allow.

        Args:
            message: The server's message.
            answer: What the gate answered or raised.

        Returns:
            What the application receives; None: it has to ask again.
        """
        self._read_done()
        self._session.take_in(message)
        return await self._carried_out(message, gate_judged(self._session, answer))

    async def pumped(self, message: Message) -> Message | None:
        """
        Take in a message of the server.

        Args:
            message: The server's message.

        Returns:
            The message for the application; None for a disconnect, which `receive` gives, for a dropped one, and for
            one that comes after the application was given the disconnect.

        Raises:
            ProtocolError: The server's message is malformed.
        """
        session = self._session
        session.take_in(message)
        if message["type"] == "websocket.disconnect":
            self._disconnected(message)
            return None
        if message["type"] != "websocket.receive":
            return message
        if self._given or self._is_done:
            return None
        decision = judged(session, message)
        if isinstance(decision, Allow | Delay) and self._is_taken(message):
            return None
        return await self._carried_out(message, decision)

    def pump_failed(self, error: Exception) -> None:
        """
        Take what the server's `receive` raised while the guard was reading.

        Args:
            error: The server's exception, or the `ProtocolError` about its message.
        """
        if peer_lost(error):
            self._lost()
        else:
            self.reader.put(error)

    async def read_failed(self, error: BaseException) -> Message:
        """
        Take what the server's `receive` raised in the application's own task.

        Args:
            error: The exception, or the cancellation by which the guard woke the task.

        Returns:
            The disconnect, when the error says no more than that.

        Raises:
            BaseException: The error, in all other cases.
        """
        self._read_done()
        if self._waker is not None and self._waker.woke(error):
            return self._give()
        if peer_lost(error):
            self._lost()
            await self._session.sending.close_gone_out()
            return self._give()
        try:
            raise error
        finally:
            del error  # its traceback leads here

    def ahead_full(self, messages: int, size: int) -> None:
        """
        Take note that reading ahead has reached its bound.

        Args:
            messages: Messages that wait.
            size: Their payloads, in bytes or characters.
        """
        session = self._session
        session.tell((ReadAheadFull(session.connection_id, session.loop.time(), messages, size),))

    def poll(self) -> None:
        """Take in what the server has ready, without waiting: a disconnect may be among it."""
        session = self._session
        is_read = session.path.reading is not None or self.is_held or self._running()
        if not session.loop.has_tasks or self._never_direct or is_read:
            return
        for _ in range(MAX_MESSAGES):
            if self.is_over:
                return
            try:
                done, message = step(self.read())
                if not done:
                    return
                session.take_in(message)
            except Exception as error:  # noqa: BLE001 - it is raised in the application's next receive
                self.pump_failed(error)
                return
            if message["type"] == "websocket.disconnect":
                self._disconnected(message)
            elif message["type"] != "websocket.receive":
                self._put_polled(message)
            elif self._polled(message):
                return

    def _polled(self, message: Message) -> bool:
        """Do what is decided about a message that was polled; tell whether the next one is not to be."""
        if self._given or self._is_done:
            return False
        decision = judged(self._session, message)
        if isinstance(decision, Allow | Delay) and self._is_taken(message):
            return False
        decision = self._at_the_end(decision)
        if isinstance(decision, Close):
            close_soon(self._session, decision)
        elif isinstance(decision, Allow) or (isinstance(decision, Delay) and not self._hold(message, decision)):
            self._put_polled(message)
        return isinstance(decision, Close) or self.is_held

    def _put_polled(self, message: Message) -> None:
        """Let a message wait; who receives, before the connection is ended too, is to find it before the next one."""
        self.reader.put(message)
        self._session.path.block_reads()

    def look(self) -> None:
        """Start to read ahead when nobody has received for a while; the watch calls it where nobody receives."""
        session = self._session
        now, seen, looks = session.loop.time(), self.received, session.watch.looks
        if looks - self._looks > 1 or seen != self._seen:
            self._idle_since_s = now - TICK_S if seen == self._seen else now
            self._seen = seen
        self._looks = looks
        if session.path.reading is not None or self.is_held or self._running():
            self._idle_since_s = now
        elif now - self._idle_since_s >= IDLE_S:
            session.path.block_reads()
            self.reader.start()

    def pumping(self, is_pumping: bool) -> None:
        """
        Take note of whether the guard reads.

        Args:
            is_pumping: Whether it does.
        """
        self._session.path.pumped(is_pumping)
        if not is_pumping and self._session.entrance is not None:
            self._session.entrance.look_again()

    def forget(self) -> None:
        """Throw away the messages that wait for the application: they come from somebody who was not let in."""
        if self._reader is not None:
            self._reader.forget()

    def ended(self) -> None:
        """Wake those who receive; one who waits in the server's own `receive` gets a moment to be woken by it."""
        if self._holding is not None:
            self._holding.release()
        self._wake()
        if self._session.path.reading is not None:
            turns = self._session.watch.turns
            self._session.loop.later(self._drain_s(), lambda: turns.call(self._interrupt))

    async def stop(self) -> None:
        """Make sure that no read of the guard is pending at the server."""
        if self._reader is not None:
            await self._reader.stop()

    def finish(self) -> None:
        """
        Let go of what only an open connection needs: an application may keep its handle for as long as it likes.

        Another task's `receive`, or the watch, may have started the pump again while `stop` waited for it.
        """
        self.read = gone
        if self._reader is not None:
            self._reader.cancel()
            self._reader.receive = gone
        self._context = None
        if self._holding is not None:
            self._holding.cancel()

    @property
    def stop_before_close(self) -> bool:
        """Whether a close deadlocks at the server while a read is pending there."""
        return self._never_direct

    async def _read_one(self) -> None:
        taken = await self.pumped(await self.read())
        if taken is not None:
            self.reader.put(taken)

    def _lost(self) -> None:
        """Take note that the server's `receive` says that the peer is gone: it has nothing more to say."""
        self._session.connection.disconnect_read = True
        self._session.transport_lost()

    def _disconnected(self, message: Message) -> None:
        end = self._session.connection.ended
        if self._disconnect is None and end and end.initiator is not Initiator.APPLICATION:
            self._disconnect = message
        self._session.has_ended()

    async def _after_end(self) -> Message:
        """Give what had arrived before the end, then the disconnect."""
        session = self._session
        await session.sending.close_gone_out()
        while not self._given:
            waiting = self.reader.take()
            if waiting is not None:
                return waiting
            if self.is_over or not session.loop.has_tasks:
                break
            end = session.connection.ended
            left = 0.0 if end is None else end.at_s + self._drain_s() - session.loop.time()
            if left <= 0 or (session.path.reading is None and not self.reader.start()):
                break
            timer = session.loop.later(left, self.reader.wake_all)
            try:
                await self.reader.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        if self._given:
            await session.late.receive()
        return self._give()

    async def _carried_out(self, message: Message, decision: Allow | Drop | Delay | Close) -> Message | None:
        """Do what was decided about a message; give it when it is to be delivered now."""
        decision = self._at_the_end(decision)
        if isinstance(decision, Close):
            await close_for(self._session, decision)
        elif isinstance(decision, Drop):
            await self._session.loop.turn()  # nobody else may: a client that floods would starve all others
        elif isinstance(decision, Allow) or not self._hold(message, decision):
            return message
        return None

    def _at_the_end(self, decision: Allow | Drop | Delay | Close) -> Allow | Drop | Delay | Close:
        """Ask at once, behind the end, what was to be asked later: what had arrived is delivered, and never waits."""
        if isinstance(decision, Delay) and decision.then is not None and self._session.connection.ended is not None:
            return decision.then()
        return decision

    def _hold(self, message: Message, delay: Delay) -> bool:
        if self._holding is None:
            self._holding = Holding(self._session)
        return self._holding.hold(message, delay)

    def _drain_s(self) -> float:
        """Give the seconds for what may still arrive."""
        return 0.0 if self._is_done else DRAIN_S

    @property
    def _is_done(self) -> bool:
        """Whether the guard has ended the connection: nothing that arrives later is wanted."""
        end = self._session.connection.ended
        return end is not None and end.initiator is Initiator.GUARD

    def _give(self) -> Message:
        """Give the disconnect, the same every time."""
        if not self._given:
            self._given = True
            self._disconnect = self._disconnect or self._made_up()
        return dict(self._disconnect or {})

    def _made_up(self) -> Message:
        """Make a disconnect of the code of who closed before the server said anything."""
        connection = self._session.connection
        end = connection.ended
        code = CloseCode.ABNORMAL_CLOSURE.value if end is None or end.code is None else end.code
        if end is None or not connection.accepted:
            return {"type": "websocket.disconnect", "code": code}
        return {"type": "websocket.disconnect", "code": code, "reason": end.reason}

    def _interrupt(self) -> None:
        """Wake the task that still waits in the server's `receive` although the connection has ended."""
        reading = self._session.path.reading
        if reading is not None:
            self._waker = self._waker or Waker()
            self._waker.wake(reading)

    def _read_done(self) -> None:
        """Take note that the application's own task has read; nobody may again after the end."""
        session = self._session
        if session.connection.ended is not None or session.is_held:
            session.path.block_reads()
        if session.entrance is not None:
            session.entrance.look_again()
        self._wake()

    def _is_taken(self, message: Message) -> bool:
        entrance = self._session.entrance
        return entrance is not None and entrance.take(message)

    def _running(self) -> bool:
        return self._reader is not None and self._reader.running

    def _wake(self) -> None:
        if self._reader is not None:
            self._reader.wake_all()
