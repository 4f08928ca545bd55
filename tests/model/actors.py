"""
Those who act on a connection: handlers, tasks that handlers create, and foreign tasks. Each does what it is told.

An actor checks what becomes of each of its calls, against what it saw at the start of the call and what the server did.
The checks are the contract's sentences, one each; nothing here knows how the guard keeps them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asgi_ws_guard import ConnectionClosed, ProtocolError
from asgi_ws_guard._types import Message

from .server import Bug

if TYPE_CHECKING:
    from .connection import Conn
    from .world import World

ALLOWED = {
    "CONNECTING": ("websocket.accept", "websocket.close", "websocket.http.response.start"),
    "OPEN": ("websocket.send", "websocket.close"),
    "REJECTING": ("websocket.http.response.body",),
    "CLOSED": (),
}
KNOWN = {kind for kinds in ALLOWED.values() for kind in kinds}
TELLS_APART = sys.version_info >= (3, 11)
"""Whether the interpreter counts who has asked to cancel a task."""


@dataclass(eq=False)
class Call:
    """One call of a guarded `receive`, `send` or `wait_closed`, and how things stood when it began."""

    kind: str
    conn: Conn
    actor: Actor
    began_s: float
    state: str
    message: Message = field(default_factory=dict)
    was_held: bool = False

    @property
    def tag(self) -> int:
        """Number of its message."""
        return int(self.message["tag"])

    @property
    def is_misuse(self) -> bool:
        """Whether the message is none that is allowed, nor one that is late."""
        kind = self.message.get("type")
        if kind not in KNOWN:
            return True
        if self.state == "CLOSED":
            return False
        has_both = self.message.get("text") is not None and self.message.get("bytes") is not None
        return kind not in ALLOWED[self.state] or has_both


class Actor:
    """
    A task that does what it is told.

    Attributes:
        world: Where it lives.
        owner: The connection whose handler it is, or was created by; None for foreign ones.
        is_handler: Whether it is a handler.
        task: Its task.
        busy: What it does now.
        asked: Whether somebody has cancelled it, and it does not know yet.
        obeys: Whether a cancellation ends it.
        lets_out: Whether an exception of a call ends it.
        late_since: Whether it has sent late to its owner.
        serves_others: Whether it has sent to another connection, open then, since it first sent late.
        done: Whether it is over; for a handler the guard's end is not.
        excused: What the guard raised in it because its own connection has ended: nobody needs to retrieve that.
        last_by_guard: Whether its last cancellation was the guard's.
    """

    def __init__(self, world: World, owner: Conn | None, *, is_handler: bool = False) -> None:
        self.world, self.owner, self.is_handler = world, owner, is_handler
        self.task: asyncio.Task[Any] | None = None
        self.busy: Call | None = None
        self.excused: list[BaseException] = []
        self.asked = self.was_asked = self.last_by_guard = False
        self.obeys, self.lets_out = True, False
        self.late_since = self.serves_others = self.done = False
        self._order: asyncio.Future[Callable[[], Awaitable[None]] | None] | None = None

    @property
    def is_free(self) -> bool:
        """Whether it waits for an order."""
        return self._order is not None and not self._order.done()

    @property
    def is_woken(self) -> bool:
        """Whether what it waited for is there, and it has not run since: the worst moment to be cancelled."""
        waiter = getattr(self.task, "_fut_waiter", None)
        return self.busy is not None and (waiter is None or bool(waiter.done()))

    @property
    def name(self) -> str:
        """What it is called in a report."""
        kind = "handler" if self.is_handler else ("child" if self.owner else "foreign")
        return f"{kind} of {self.owner.number}" if self.owner else kind

    def order(self, what: Callable[[], Awaitable[None]] | None) -> None:
        """Tell it what to do; None: to be over."""
        assert self._order is not None
        self._order.set_result(what)

    async def run(self) -> None:
        """Do what is ordered, until something ends it."""
        try:
            while True:
                self._order = asyncio.get_running_loop().create_future()
                try:
                    what = await self._order
                except asyncio.CancelledError:
                    self._cancelled()
                    if self.obeys:
                        raise
                    continue
                if what is None:
                    return
                await what()
        except Exception as error:
            self.world.let_out.append((self, error))
            raise
        finally:
            self.done = True

    def cancel(self, *, obeys: bool) -> None:
        """Cancel it from outside."""
        assert self.task is not None
        if self.task.done():
            return
        self.obeys = obeys or not TELLS_APART
        self.task.cancel()
        if self.is_handler and self.done and self.owner is not None:
            self.owner.cancelled_in_settle = True
        else:
            self.asked = self.was_asked = True

    async def receive(self, conn: Conn) -> None:
        """Receive once."""
        call = self._begin("receive", conn)
        try:
            message = await conn.receive()
        except BaseException as error:
            self._end(call)
            if not self._is_cancellation(error):
                conn.receive_raised(call, error)
            await self._go_on(error)
        else:
            self._end(call)
            conn.received(message)

    async def listen(self, conn: Conn, times: int) -> None:
        """Receive some times, as long as there is no end."""
        for _ in range(times):
            await self.receive(conn)
            if conn.state == "CLOSED":
                return

    async def send(self, conn: Conn, message: Message) -> None:
        """Send once."""
        call = self._begin("send", conn, message)
        conn.calls += 1
        steps, begun, now = self.world.loop.steps, len(conn.server.begun), self.world.loop.time()
        is_late_own = self.owner is conn and call.state == "CLOSED"
        if self.owner is not conn and self.late_since and call.state == "OPEN":
            self.serves_others = True
        self.late_since = self.late_since or is_late_own
        raised: BaseException | None = None
        try:
            await conn.send(message)
        except BaseException as error:
            raised = error
        conn.returned += 1
        self._end(call)
        if call.was_held:
            self._judge_held(call, raised)
        elif call.is_misuse:
            conn.misused += 1
            is_at_once = steps == self.world.loop.steps and begun == len(conn.server.begun)
            if not isinstance(raised, ProtocolError) or not is_at_once or conn.state != call.state:
                self._broken(f"G7: misuse {message} in {call.state} gave {raised!r}", call)
        elif raised is None or not self._is_cancellation(raised):
            self._judge(call, raised, now)
        if raised is not None:
            await self._go_on(raised, conn)

    async def wait_closed(self, conn: Conn) -> None:
        """Wait for the end."""
        call = self._begin("wait_closed", conn)
        try:
            await conn.handle.wait_closed()
        except BaseException as error:
            self._end(call)
            if not self._is_cancellation(error):
                self._broken(f"wait_closed raised {error!r}", call)
            await self._go_on(error)
        else:
            self._end(call)
            if conn.state != "CLOSED":
                self._broken("wait_closed returned before the end", call)
            if conn.is_closing:
                self._broken("G11: who waits for the end heard of it while a close was on its way", call)

    async def push(self, conns: Sequence[Conn], make: Callable[[], Message], rounds: int, pause_s: float) -> None:
        """Send to several connections again and again, as those do who push."""
        for _ in range(rounds):
            for conn in conns:
                if conn.state in ("OPEN", "CLOSED"):
                    await self.send(conn, make())
            try:
                await asyncio.sleep(pause_s)
            except asyncio.CancelledError as error:
                self._cancelled()
                await self._go_on(error)

    async def fail(self, error: BaseException) -> None:
        """Raise."""
        raise error

    def _judge_held(self, call: Call, raised: BaseException | None) -> None:
        """Judge what became of a message that waited for the first one of the client, and for the answer to it."""
        conn = call.conn
        if isinstance(raised, ProtocolError):
            conn.misused += 1
        elif raised is not None and self._is_cancellation(raised):
            conn.uncounted += 1  # it may have waited still
        elif not isinstance(raised, ConnectionClosed | None) and raised is not conn.server.raised.get(call.tag):
            self._broken(f"G2: a send gave {raised!r}", call)

    def _judge(self, call: Call, raised: BaseException | None, began_s: float) -> None:
        """Judge what became of a message that was allowed, or late."""
        conn, server = call.conn, call.conn.server
        if call.tag in server.raised:
            if raised is not server.raised[call.tag]:
                self._broken(f"G8: the server raised {server.raised[call.tag]!r}, the call gave {raised!r}", call)
            return
        if call.state == "CLOSED" and any(one.get("tag") == call.tag for one in server.begun):
            self._broken("G1: a late message was forwarded", call)
        if raised is None:
            self._judge_quiet(call, began_s)
        elif not isinstance(raised, ConnectionClosed):
            self._broken(f"G2: a send gave {raised!r}", call)
        elif conn.state != "CLOSED":
            self._broken("G4: ConnectionClosed before the end", call)
        elif conn.late_sends == "drop":
            self._judge_stopped(call)

    def _judge_quiet(self, call: Call, began_s: float) -> None:
        conn = call.conn
        if call.state != "CLOSED":
            return
        if conn.late_sends == "raise":
            self._broken("G4: a late send was quiet although it was to raise", call)
        elif self.is_handler and self.owner is conn and not self.done and began_s >= conn.ended_s + conn.linger_s:
            self._broken("G4: the handler's late send was quiet after the linger", call)

    def _judge_stopped(self, call: Call) -> None:
        conn = call.conn
        if self.owner is not conn:
            self._broken("G4: a foreign task was stopped", call)
        elif self.world.loop.time() < conn.ended_s + conn.linger_s:
            self._broken("G4: stopped within the linger", call)
        elif self.serves_others and not self.is_handler:
            self._broken("G4: a task that serves others was stopped", call)
        elif call.state != "CLOSED":
            self._broken("G4: a send that was not late was stopped", call)

    def _begin(self, kind: str, conn: Conn, message: Message | None = None) -> Call:
        call = Call(kind, conn, self, self.world.loop.time(), conn.state, message or {}, conn.seen.is_held)
        self.busy = call
        self.world.pending[call] = None
        return call

    def _end(self, call: Call) -> None:
        self.busy = None
        del self.world.pending[call]

    def _is_cancellation(self, error: BaseException) -> bool:
        """Tell whether somebody may have cancelled this task; the asker's cancellation is delivered with it."""
        if isinstance(error, asyncio.CancelledError):
            self._cancelled()
            return True
        return False

    def _cancelled(self) -> None:
        conn = self.owner
        if self.asked:
            self.asked, self.last_by_guard = False, False
        elif self.is_handler and conn is not None and conn.watcher.stopped_s is not None:
            self.last_by_guard = True
        else:
            self._broken("a task was cancelled by nobody", self.busy)

    async def _go_on(self, error: BaseException, conn: Conn | None = None) -> None:
        if isinstance(error, ConnectionClosed) and conn is self.owner:
            self.excused.append(error)
        if isinstance(error, asyncio.CancelledError):
            if self.obeys:
                raise error
        elif not isinstance(error, Exception) or self.lets_out:
            raise error

    def missed_cancellation(self) -> bool:
        """Tell whether it went on although it was cancelled."""
        return self.asked and TELLS_APART

    def _broken(self, text: str, call: Call | None) -> None:
        about = "" if call is None else f" ({call.kind} on connection {call.conn.number}, begun in {call.state})"
        self.world.broken(f"{text}: {self.name}{about}")


__all__ = ["Actor", "Bug", "Call"]
