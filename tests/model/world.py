"""
One story: a guard, up to three connections on servers of every kind, those who act on them, and what happens to them.

Everything that is decided is decided by `draw`: a seeded generator, or hypothesis, which makes a found story short.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from asgi_ws_guard import Books, ConnectionClosed, Drain, Handshake, WebSocketGuardMiddleware
from asgi_ws_guard._events import Event, Opened
from asgi_ws_guard.testing import ScriptedServer

from . import patience, policies, rules
from .actors import Actor, Call
from .connection import Conn
from .facts import Seen
from .loop import ChosenLoop
from .server import Server
from .spying import Spy
from .stage import Stage

T = TypeVar("T")
Draw = Callable[[int], int]
MAX_CONNECTIONS = 3
SPIN = 20_000
"""Steps at one moment after which somebody spins."""


class Broken(AssertionError):
    """The guard broke its contract, or left something behind."""


class World:
    """
    One story.

    Attributes:
        draw: Gives a number below its argument.
        options: Those of the guard.
        loop: The scheduler.
        conns: The connections, in the order in which they came.
        tasks: Created and foreign tasks.
        pending: Calls that are not over.
        by_id: The connections by the guard's name for them.
        let_out: Exceptions that ended an actor.
        jumped_s: How far the clock moved while something was ready.
    """

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.loop = ChosenLoop(lambda count: 0, self._after)
        self.loop.set_exception_handler(self._unhandled)
        self.options: dict[str, Any] = {
            "late_sends": self.pick(("drop", "drop", "drop", "raise")),
            "linger_s": self.pick((0.0, 0.4, 2.0)),
            "cancel_after_s": self.pick((None, None, 0.0, 1.0)),
            "watch": self.pick((True, True, True, False)),
            "send_timeout_s": self.pick((None, 0.3, 1.0)),
            "close_on_return": self.pick((1000, 1000, 3001, None)),
            "close_on_error": self.pick((1011, 1011, None)),
        }
        self._measures = self.pick((False, True))
        self.is_draining = False
        self.policies = [Spy(self, one) for one in policies.drawn(self)]
        if self.policies:
            self.options["policies"] = tuple(self.policies)
        self.guard = WebSocketGuardMiddleware(self._application, observers=(self._hear(),), adapters=(), **self.options)
        self.conns: list[Conn] = []
        self.tasks: list[Actor] = []
        self.pending: dict[Call, None] = {}
        self.by_id: dict[str, Conn] = {}
        self.jumped_s = 0.0
        self._moment = 0.0, 0
        self.tags = 0
        self.let_out: list[tuple[Actor, Exception]] = []
        self._faults: list[str] = []
        self._is_lossy = self.pick((False, False, True))
        self._stage = Stage(self.loop.time, self.draw(1000), is_lossy=self._is_lossy)

    def pick(self, things: Sequence[T]) -> T:
        """Draw one of them."""
        return things[self.draw(len(things))]

    def broken(self, text: str) -> None:
        """Note that the contract is broken; the step that is running ends first."""
        self._faults.append(text)

    def tag(self) -> int:
        """Give the next message its number."""
        self.tags += 1
        return self.tags

    def connect(self) -> None:
        """Let a client come."""
        if len(self.conns) >= MAX_CONNECTIONS:
            return
        server = Server(self.loop.time, self.broken, loses=self._is_lossy, refuses=self.draw(6) == 0)
        server.afterwards = self.pick(rules.AFTERWARDS)
        conn = Conn(self, len(self.conns), server)
        self.conns.append(conn)
        scope = dict(ScriptedServer(f"/{conn.number}").scope, number=conn.number)
        conn.actor.task = self.loop.create_task(conn.serve(self.guard, scope))
        server.deliver({"type": "websocket.connect"})

    def seen(self, handshake: Handshake) -> Seen:
        """Give what policies said about a connection."""
        return self.by_id[handshake.connection_id].seen

    def drain(self) -> None:
        """Bring all connections to their end, once."""
        if not self.is_draining and self.policies:
            deadline_s, notice_s = self.pick((0.8, 4.0)), self.pick((0.0, 0.2))
            drain = Drain(deadline_s=deadline_s, notice_s=notice_s, stop_s=0.5, batch=1, every_s=self.pick((0.0, 0.1)))
            self.is_draining = True
            self._drain = self.loop.create_task(self.guard.drain(drain))

    def start(self, owner: Conn | None) -> None:
        """Start a foreign task, or note one that a handler starts now."""
        actor = Actor(self, owner)
        actor.task = self.loop.create_task(actor.run())
        self.tasks.append(actor)

    def act(self) -> None:
        """Let one thing happen."""
        rules.one(self)

    def turns(self, choose: Draw, at_most: int) -> None:
        """Run ready handles, and check after each."""
        self.loop.choose = choose
        self.loop.turns(at_most)
        self._raise()

    def wait(self, choose: Draw, at_most_s: float) -> None:
        """Let time pass until the next timer, or a moment while something is still ready."""
        if not self.loop.is_idle:
            self.jumped_s += 0.01
            self.loop.advance(0.01)
            return
        patience.check(self)
        self._raise()
        due_s = self.loop.next_s
        left_s = at_most_s if due_s is None else min(at_most_s, due_s - self.loop.time())
        self.loop.advance(left_s)
        self.turns(choose, self.draw(6))

    def outwait(self, choose: Draw) -> None:
        """Let a minute pass where a close, or a denial, is stuck: who waits for it is to wait no longer."""
        until_s = self.loop.time() + patience.CLOSE_S + 2.0
        while any(conn.server.closing_s is not None for conn in self.conns) and self.loop.time() < until_s:
            self.turns(choose, 200)
            self.wait(choose, 3.0)

    def end(self, choose: Draw) -> None:
        """Let everybody leave, and check that nothing stays."""
        self.draw = lambda count: count - 1  # nothing is decided any more but the order of handles
        for conn in self.conns:
            conn.server.set_mode("take")
            if conn.server.arrived_s is None:
                conn.server.deliver({"type": "websocket.disconnect", "code": 1001})
        until_s = self.loop.time() + 300.0
        while (self.loop.time() < until_s and self._busy()) or not self.loop.is_idle or self.loop.next_s is not None:
            if self.loop.time() > until_s + 300.0:
                self.broken(f"somebody never ends: {self._never_end()}")
                break
            self.turns(choose, 200)
            if self.loop.is_idle:
                self._dismiss(with_waiters=self.loop.time() > until_s - 200.0)
                if not self._busy():
                    self._check_timers()
            if self.loop.is_idle:
                self.wait(choose, 1.0)
        self._raise()
        self._check_end()

    def close(self) -> None:
        """Put everything back."""
        self._faults.clear()
        self.loop.after = lambda: None
        self.loop.set_exception_handler(lambda loop, context: None)
        for _ in range(10):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.turns(1000)
        self.loop.close()
        self._stage.clear()

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        await self.conns[scope["number"]].application(scope, receive, send)

    def _hear(self) -> Any:
        def hear(event: Event) -> None:
            if isinstance(event, Opened):
                self.by_id[event.connection_id] = self.conns[int(event.handshake.path[1:])]
            self.by_id[event.connection_id].watcher(event)

        hear.wants_sizes = self._measures  # type: ignore[attr-defined]
        return hear

    def _after(self) -> None:
        if self.loop.time() != self._moment[0]:
            self._moment = self.loop.time(), self.loop.steps
        if self.loop.steps - self._moment[1] > SPIN:
            self.broken(f"somebody spins: {SPIN} steps at {self.loop.time()}")
        for conn in self.conns:
            conn.check()
        for actor in (*self.tasks, *(conn.actor for conn in self.conns)):
            if actor.missed_cancellation() and (actor.is_free or actor.done):
                self.broken(f"G8: a cancellation of the {actor.name} was lost")
        self._raise()

    def _raise(self) -> None:
        if self._faults:
            raise Broken("; ".join(self._faults))

    def _unhandled(self, loop: object, context: dict[str, Any]) -> None:
        """Hear what nobody retrieved: the exceptions of our own tasks are ours, but for those that the guard made."""
        error = context.get("exception")
        for actor, one in self.let_out:
            if one is error and not (isinstance(error, ConnectionClosed) and error in actor.excused):
                return
        self.broken(f"asyncio heard of {context.get('message')}: {context.get('exception')!r}")

    def _busy(self) -> bool:
        return any(one.task is not None and not one.task.done() for one in self.everybody())

    def everybody(self) -> list[Actor]:
        """Give all who act."""
        return [*self.tasks, *(conn.actor for conn in self.conns)]

    def _never_end(self) -> list[str]:
        calls = [f"{call.kind} of the {call.actor.name} on {call.conn.number}" for call in self.pending]
        return calls + [repr(one) for one in asyncio.all_tasks(self.loop)]

    def _dismiss(self, *, with_waiters: bool) -> None:
        """Let those go who are free, and those who wait for an end that nobody may know of: none was received."""
        for actor in self.everybody():
            if actor.is_free and not actor.done:
                actor.order(None)
            elif with_waiters and actor.busy and actor.busy.kind == "wait_closed" and actor.busy.conn.state != "CLOSED":
                actor.cancel(obeys=True)

    def _check_timers(self) -> None:
        """Nobody is left: the guard may look once more for who receives, and has no other timer."""
        for timer in self.loop.timers():
            if timer > self.loop.time() + patience.DRAIN_S + patience.MARGIN_S:
                self.broken(f"a timer is left for {timer}")

    def _check_end(self) -> None:
        for call in self.pending:
            self.broken(f"{call.kind} of the {call.actor.name} hangs on connection {call.conn.number}")
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        if left:
            self.broken(f"left running: {left}")
        for policy in self.policies:
            if getattr(policy.inner, "live", 0):
                self.broken(f"policies: {policy.inner.live} are live with {policy}")
        if self.guard.connections:
            self.broken(f"{self.guard.connections} connections stay with the guard")
        begun = [conn for conn in self.conns if conn.has_begun]
        books = sum((conn.handle.books for conn in begun), Books())
        if self.guard.totals() != books:
            self.broken(f"G13: {self.guard.totals()} in total, {books} of all connections")
        for conn in begun:
            if not conn.calls - conn.uncounted <= conn.handle.books.attempted <= conn.calls:
                self.broken(f"G13: {conn.calls} sends, {conn.handle.books}")
        for actor in self.everybody():
            actor.task = None
        self.pending.clear()
        gc.collect(0)
        self._raise()
