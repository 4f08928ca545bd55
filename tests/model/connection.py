"""One connection of the model: what its application saw, and what must hold of it at any moment and at its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgi_ws_guard import ConnectionClosed, ConnectionHandle, HandlerStopped
from asgi_ws_guard._events import Abandoned, Accepted, Closed, Event, Leaked, Opened, PolicyApplied, Rejected
from asgi_ws_guard._types import Message, Receive, Send

from .actors import TELLS_APART, Actor, Call
from .facts import Seen
from .server import Bug, Server

if TYPE_CHECKING:
    from .world import World


class Watcher:
    """Hears the events of one connection and minds their order (the observers' contract)."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self.events: list[Event] = []
        self.terminals = 0
        self.stopped_s: float | None = None

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        kinds = [type(one).__name__ for one in self.events]
        world = self._conn.world
        if (not kinds) != isinstance(event, Opened):
            world.broken(f"{type(event).__name__} after {kinds}: Opened comes first, once")
        if self.terminals and not isinstance(event, Leaked):
            world.broken(f"{type(event).__name__} after the terminal event")
        if isinstance(event, Closed | Rejected | Abandoned):
            self._conn.seen.ended()
            self.terminals += 1
            if isinstance(event, Closed) != ("Accepted" in kinds):
                world.broken(f"{type(event).__name__} after {kinds}")
        if isinstance(event, Accepted) and "Ended" in kinds:
            world.broken("accepted after the end")
        if isinstance(event, HandlerStopped) and event.how == "cancelled":
            self._cancelled()
        if isinstance(event, PolicyApplied):
            self._conn.seen.heard(event)
        if isinstance(event, Opened):
            self._conn.opened_s = event.at_s
        if isinstance(event, Accepted):
            self._conn.accepted_s = event.at_s
        self.events.append(event)

    def _cancelled(self) -> None:
        conn, options = self._conn, self._conn.world.options
        now = self.stopped_s = conn.world.loop.time()
        is_asked = options["cancel_after_s"] is not None and now >= conn.ended_s + options["cancel_after_s"]
        lingers = 1 if conn.late_sends == "raise" else 2  # until the first raise, and from there on
        is_asked = is_asked or conn.world.is_draining
        if not is_asked and now < conn.ended_s + lingers * conn.linger_s - 1e-6:
            conn.world.broken("G4: a handler was cancelled too early")


class Conn:
    """
    One connection of the model.

    Attributes:
        ended_s: When its state was first seen to be CLOSED; infinite before.
        read_s: When the application was given a message last.
        first: The first disconnect that the application was given.
        got: How many of the server's messages it was given.
        calls: Sends that were begun.
        returned: Sends that are over.
        misused: Those of them that were misuse.
        left_open: Whether the handler was done while the connection was open, and nothing ended it meanwhile.
    """

    def __init__(self, world: World, number: int, server: Server) -> None:
        self.world, self.number, self.server = world, number, server
        self.watcher = Watcher(self)
        self.actor = Actor(world, self, is_handler=True)
        self.late_sends, self.linger_s = world.options["late_sends"], world.options["linger_s"]
        self.handle: ConnectionHandle = None  # type: ignore[assignment]  # from the handler's scope, before all else
        self.receive: Receive = None  # type: ignore[assignment]
        self.send: Send = None  # type: ignore[assignment]
        self.ended_s = float("inf")
        self.read_s = self.opened_s = 0.0
        self.accepted_s = float("inf")
        self.seen = Seen(self)
        self.first: Message | None = None
        self.got = self.calls = self.returned = self.misused = self.uncounted = 0
        self.left_open = self.cancelled_in_settle = self.was_over = False
        self.raised: BaseException | None = None
        self.state_at_return = ""
        self.accepted_at_return = False
        self.end_in_inbox = False

    @property
    def state(self) -> str:
        """Where it stands; the first look that finds it ended, always in the step that ended it, notes when."""
        state = self.handle.state.value
        if state == "CLOSED" and self.ended_s == float("inf"):
            self.ended_s = self.world.loop.time()
        return state

    @property
    def has_begun(self) -> bool:
        """Whether the application was called."""
        return self.handle is not None

    @property
    def is_closing(self) -> bool:
        """Whether a close is on its way to the server, and not stuck there for good."""
        return self.server.closing_s is not None and self.world.loop.time() < self.ended_s + 60.0

    async def serve(self, guard: Any, scope: dict[str, Any]) -> None:
        """Be the server's task."""
        await guard(scope, self.server.receive, self.server.send)

    async def application(self, scope: Any, receive: Receive, send: Send) -> None:
        """Be the guarded application."""
        self.handle, self.receive, self.send = scope["asgi_ws_guard.connection"], receive, send
        try:
            await self.actor.run()
        except BaseException as error:
            self.raised = error
            raise
        finally:
            self.state_at_return, self.end_in_inbox = self.state, self.server.holds_end
            self.accepted_at_return = self.server.accepted
            self.left_open = self.state == "OPEN" and self.server.accepted and not self.end_in_inbox

    def received(self, message: Message) -> None:
        """Mind what the application was given (G3, G5)."""
        server = self.server
        if message["type"] != "websocket.disconnect":
            self.seen.delivered(message)
            expected = self.next_handed()
            if self.first is not None:
                self.world.broken(f"G3: {message} after the disconnect")
            elif message is not expected:
                self.world.broken(f"G5: {message} was given, {expected} was next")
            self.got += 1
            self.read_s = self.world.loop.time()
            return
        if self.state != "CLOSED":
            self.world.broken("G3: a disconnect before the end")
        if self.is_closing:
            self.world.broken("G11: a reader was woken while a close was on its way")
        if self.first is None:
            self.first = message
            missing = self._missing(len(server.handed))
            if missing:
                self.world.broken(f"G5: the disconnect came before {missing}")
            self._judge_cause(message)
        elif message != self.first:
            self.world.broken(f"G3: {message} after {self.first}")

    def _judge_cause(self, message: Message) -> None:
        initiator, told = self.handle.initiator, self.server.disconnect
        if initiator == "client" and (told is None or message != told):
            self.world.broken(f"G3: the server said {told}, the application was given {message}")
        if initiator == "application" and message["code"] != (self.handle.close_code or 1006):
            self.world.broken(f"G3: the application closed with {self.handle.close_code}, and was given {message}")

    def receive_raised(self, call: Call, error: BaseException) -> None:
        """Mind what came out of a `receive`."""
        server = self.server
        if isinstance(error, ConnectionClosed):
            if self.first is None or call.actor.owner is not self:
                self.world.broken(f"G3: receive raised {error!r} in {call.actor.name}")
            elif self.world.loop.time() < self.ended_s + self.linger_s:
                self.world.broken("G4: receive raised within the linger")
            return
        at = next((index for index, one in enumerate(server.handed) if one is error), -1)
        if at < 0 or (self.first is None and (at < self.got or self._missing(at))):
            self.world.broken(f"G8: receive raised {error!r}, {self.next_handed()!r} was next")
        self.got = max(self.got, at) + 1

    def _missing(self, to: int) -> list[object]:
        """Give what should have been given before: not what a policy withholds, or came after an end by the guard."""
        ended_s = self.ended_s if self.handle.initiator == "guard" else float("inf")
        some = slice(self.got, to)
        left = zip(self.server.handed[some], self.server.handed_s[some], strict=True)
        return [one for one, at_s in left if at_s < ended_s and not self.seen.is_withheld(one)]

    def next_handed(self) -> object:
        """Give what the application has to be given next, of what the server has handed over; None: nothing."""
        handed = self.server.handed
        while self.got < len(handed) and self.seen.is_withheld(handed[self.got]):
            self.got += 1
        return handed[self.got] if self.got < len(handed) else None

    def check(self) -> None:
        """Check what holds at any moment."""
        self.seen.check()
        if self.actor.task is not None and self.actor.task.done() and not self.was_over:
            self.was_over = True
            self._judge_end(self.actor.task)
        if self.watcher.events and self.watcher.terminals != int(self.was_over):
            self.world.broken(f"{self.watcher.terminals} terminal events, is over: {self.was_over}")
        if not self.has_begun:
            return
        server, books = self.server, self.handle.books
        if self.state != "CLOSED" and self.ended_s != float("inf"):
            self.world.broken("an ended connection came back")
        if not self.returned - self.uncounted <= books.attempted <= self.calls:
            self.world.broken(f"G13: {self.returned} of {self.calls} sends are over, the books say {books}")
        forwarded = sum("tag" in message for message in server.taken)
        received = sum(isinstance(one, dict) and one["type"] == "websocket.receive" for one in server.handed)
        if books.forwarded != forwarded or books.received != received or books.refused != self.misused:
            self.world.broken(f"G13: {forwarded} forwarded, {received} received, {self.misused} refused, but {books}")
        if books.failed != server.cancelled + sum(tag is not None for tag in server.raised):
            is_stopped_before = server.loses_messages and books.failed > server.cancelled
            if not is_stopped_before:
                self.world.broken(f"G13: {server.cancelled} cancelled, raised {server.raised}, but {books}")

    def _judge_end(self, task: asyncio.Task[Any]) -> None:
        """Check what left the guard, and what it left behind (G6, G8)."""
        raised: BaseException | None
        try:
            raised = task.exception()
        except asyncio.CancelledError as error:
            raised = error
        self.seen.over()
        if not self.has_begun:
            self._judge_denied(raised)
            return
        codes = [one for one in self.server.begun if one["type"] == "websocket.close" and "tag" not in one]
        if not self._is_right(raised):
            self.world.broken(f"G8: {self.raised!r} left the handler in {self.state_at_return}, {raised!r} the guard")
        if self.left_open and not self.cancelled_in_settle and not isinstance(self.raised, asyncio.CancelledError):
            name = "close_on_return" if self.raised is None else "close_on_error"
            code = self.world.options[name]
            if self.seen.close is not None and self.handle.close_code == self.seen.close:
                code = self.seen.close  # for a message that had arrived, and that nobody had asked about
            if code is not None and [one["code"] for one in codes][:1] != [code]:
                self.world.broken(f"G6: the handler was done, and the server saw {codes}, not {code}")
        elif codes and self.handle.initiator == "guard" and self.seen.is_rightful(self.handle.close_code):
            pass
        elif codes and not (self.state_at_return == "OPEN" and self.accepted_at_return):
            self.world.broken(f"G6: the guard closed for a connection that was {self.state_at_return}")

    def _judge_denied(self, raised: BaseException | None) -> None:
        """Check what left the guard when the application was not called."""
        is_cancelled = isinstance(raised, asyncio.CancelledError)
        if TELLS_APART and not self.world.is_draining and is_cancelled != self.actor.was_asked:
            self.world.broken(f"G8: {raised!r} left the guard for a client that was denied")
        if not is_cancelled and raised is not self.server.raised.get(None):
            self.world.broken(f"G8: {raised!r} left the guard for a client that was denied")

    def _is_right(self, raised: BaseException | None) -> bool:
        handler = self.raised
        if self.world.is_draining and isinstance(raised, asyncio.CancelledError):
            return True  # it cancels what is left at its deadline, also what the guard does for a handler that is done
        if self.cancelled_in_settle:
            return isinstance(raised, asyncio.CancelledError)
        if self.seen.close is not None and raised is not None and raised is self.server.raised.get(None):
            return not isinstance(handler, Bug)  # what the server raised when a policy closed
        if isinstance(handler, asyncio.CancelledError):
            if not TELLS_APART:
                return raised is None or isinstance(raised, asyncio.CancelledError)
            if not self.actor.last_by_guard:
                return isinstance(raised, asyncio.CancelledError)
            return raised is None or (self.actor.was_asked and isinstance(raised, asyncio.CancelledError))
        if handler is None:
            return raised is None or raised is self.server.raised.get(None)
        ended = self.state_at_return == "CLOSED" or self.seen.close is not None
        if isinstance(handler, ConnectionClosed):
            return (raised is None and (ended or self.end_in_inbox)) or (raised is handler and not ended)
        inner = getattr(handler, "exceptions", None)
        if inner is not None and ended:
            left = getattr(raised, "exceptions", ())
            return list(left) == [one for one in inner if isinstance(one, Bug)]
        return raised is handler or (inner is not None and self.end_in_inbox)
