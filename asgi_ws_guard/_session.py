"""
One guarded connection: what its two sides share, and what all must hear of when it ends.

It owns the core's `Connection` and all that belongs to one connection; nothing of it is shared. It awaits nothing of
the server: what is received is `_receiving.py`'s, what is sent `_sending.py`'s; how a connection begins is
`_opening.py`'s, and what is left to do when its handler is done `_ending.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._admission import release
from ._bookkeeping import Bookkeeping
from ._close import CloseCode, CloseStatus
from ._connection import Connection, End
from ._events import (
    Draining,
    DropReason,
    Ended,
    Event,
    Identified,
    Identity,
    Leaked,
    SendTimedOut,
    Terminal,
)
from ._handle import ConnectionHandle
from ._lateness import Lateness
from ._loops import cancel_requests
from ._scope import can_deny
from ._state import State
from ._telling import Telling
from ._terms import NO_TERMS, Terms, shown
from ._timing import Passed, Timing
from ._types import Message, Receive, Scope

if TYPE_CHECKING:
    from ._entrance import Entrance
    from ._loops import Flag
    from ._options import Options
    from ._path import Path
    from ._plugin import Policy
    from ._receiving import Receiving
    from ._sending import Sending
    from ._watch import Watch


_NOBODY: frozenset[int] = frozenset()
_log = logging.getLogger("asgi_ws_guard")


class Session:
    """
    One guarded connection.

    Attributes:
        absorbed: What left the application and says no more than that the connection is gone; else None.
        admitted: Policies that let it in, and have not heard of its end; None as long as nobody was asked.
        bookkeeping: Counts what became of its messages.
        connection: Its state.
        entrance: Waits for its first message, None when the terms ask for none.
        handle: What the application may know of it.
        is_asking: Whether the policies are being asked whether it may come in.
        is_zombie: Whether the handler goes on long after the end, and nothing will stop it.
        loop: The event loop that it lives on.
        options: The guard's options.
        outer: The handle that was current before its own: of a guard around this one, or None.
        path: The receive and send that the application gets.
        receiving: The receiving side.
        sending: The sending side.
        task: The task that runs the handler, None when it is done.
        telling: Tells of single messages, None when nobody wants to hear of them.
        terms: On what terms the policies let it in; its identity is replaced when it becomes known or is renewed.
        timing: Its deadlines, None as long as it had none.
        watch: What it shares with the other connections of this guard on its event loop.
    """

    __slots__ = (
        "_end_calls",
        "_end_flag",
        "_is_end_told",
        "_late",
        "_reported",
        "_requests",
        "_runner",
        "absorbed",
        "admitted",
        "bookkeeping",
        "connection",
        "entrance",
        "handle",
        "is_asking",
        "is_zombie",
        "loop",
        "options",
        "outer",
        "path",
        "receiving",
        "sending",
        "task",
        "telling",
        "terms",
        "timing",
        "watch",
    )

    path: Path
    receiving: Receiving
    sending: Sending

    def __init__(self, connection_id: str, scope: Scope, options: Options, watch: Watch) -> None:
        self.options = options
        loop = self.loop = watch.loop
        self.connection = Connection(connection_id, at_s=loop.time(), can_deny=can_deny(scope))
        self.handle = ConnectionHandle(self)
        self.task: object | None = loop.current_task()
        self._runner = self.task
        self.is_asking = False
        self.watch = watch
        self.bookkeeping = Bookkeeping(self, scope)
        self.telling = Telling(self) if watch.dispatch.asks_for("wants_messages") else None
        self.admitted: list[Policy] | None = None
        self.terms: Terms = NO_TERMS
        self.entrance: Entrance | None = None
        self.timing: Timing | None = None
        self._late: Lateness | None = None
        self.outer: ConnectionHandle | None = None
        self.absorbed: BaseException | None = None
        self._reported = _NOBODY
        self._requests: int | None = None
        self._end_calls: list[Callable[[ConnectionHandle], object]] | None = None
        self._end_flag: Flag | None = None
        self._is_end_told = False
        self.is_zombie = False

    def identify(self, identity: Identity) -> None:
        """
        Know from now on who is behind the connection, and when that is over.

        The deadline of the identity before is gone.

        Args:
            identity: In which there is no fault.
        """
        before, self.terms = self.terms.identity, self.terms.knowing(identity)
        if identity.label and (before is None or before is identity or before.label != identity.label):
            self.tell((Identified(self.connection_id, self.loop.time(), shown(identity.label)),))
        if self.connection.ended is None:
            self.keep_time().identify()

    def keep_time(self) -> Timing:
        """Give its deadlines, made when they are first needed: most connections have none."""
        if self.timing is None:
            self.timing = Timing(self, self.watch.wheel)
        return self.timing

    def release(self) -> None:
        """Tell the policies that let the connection in that it is over, once."""
        if self.admitted is not None:
            release(self.admitted, self.connection_id)

    @property
    def connection_id(self) -> str:
        """16 hexadecimal digits."""
        return self.connection.connection_id

    @property
    def receive(self) -> Receive:
        """The receive that the application gets."""
        return self.path.receive if self.telling is None else self.telling.receive

    @property
    def late(self) -> Lateness:
        """Calls that come after the end, which has been; made with the first of them."""
        if self._late is None:
            self._late = Lateness(self)
        return self._late

    @property
    def is_held(self) -> bool:
        """Whether nothing passes in either direction, for the first message has not been answered."""
        return self.entrance is not None and not self.entrance.is_open and self.connection.accepted

    @property
    def asks_about_messages(self) -> bool:
        """Whether a policy or an observer wants every message."""
        return bool(self.options.message_policies) or self.telling is not None

    def take_in(self, message: Message) -> None:
        """
        Take a message that the server delivered beside the path.

        Args:
            message: The server's message.

        Raises:
            ProtocolError: The server may not deliver it now.
        """
        self.tell(self.connection.receive(message, self.loop.time()))
        if message["type"] == "websocket.receive":
            one = self.path.measure_received(message)
            if self.connection.finished:
                self.bookkeeping.count_late(one.as_received())

    def see_accept(self) -> None:
        """Begin what begins with the accept, once."""
        if self.bookkeeping.account is None and self.connection.accepted:
            self.bookkeeping.count_accepted()
            if self.timing is not None:
                self.timing.accepted()

    def tell(self, events: tuple[Event, ...]) -> None:
        """
        Tell the observers; once the terminal event was told, of nothing but a leak.

        Args:
            events: What happened, in order.
        """
        if self.connection.finished:
            events = tuple(event for event in events if isinstance(event, Terminal | Leaked))
        if self._end_calls is not None and any(isinstance(event, Ended) for event in events):
            calls, self._end_calls = self._end_calls, None
            for call in calls:
                self._call_at_end(call)
        dispatch = self.watch.dispatch
        if events and dispatch.observers:
            self._reported = dispatch.tell(events, self._reported)

    def on_end(self, call: Callable[[ConnectionHandle], object]) -> None:
        """
        Call somebody when the end is committed, before anybody else hears of it; at once when it has been.

        Args:
            call: Is given the handle. What it raises is logged.
        """
        if self.connection.ended is not None:
            self._call_at_end(call)
        elif self._end_calls is None:
            self._end_calls = [call]
        else:
            self._end_calls.append(call)

    def open_path(self) -> None:
        """Let ordinary messages pass without a question, as far as nobody has one."""
        if self.connection.state is State.OPEN and not self.asks_about_messages and not self.is_held:
            self.path.open()
            if self.receiving.is_wanted:
                self.path.ask_about_receives()
            if self.watch.senders.looking:
                self.path.ask_about_sends()

    def shut_path(self) -> None:
        """Ask about every message, and start no read at the server."""
        self.path.ask_about_sends()
        self.path.block_reads()
        self.watch.add_ending(self)

    def look(self) -> None:
        """
        See whether anybody receives, and how far the end is; the watch calls it where nobody does, or at the end.

        After the end too, until the server has nothing more to say: hypercorn 0.18 lets a send that failed wait for
        room in its queue of unread messages, and every other send and close wait for that one.
        """
        self.sending.look()
        if self.connection.ended is not None:
            self._look_at_handler(self.connection.ended)
        is_over = self.receiving.is_over or not self.connection.accepted
        if self.options.watch and not is_over and not (self.sending.is_closing and self.receiving.stop_before_close):
            self.receiving.look()

    def end(self, because: DropReason, status: CloseStatus, code: int | None, reason: str = "") -> None:
        """
        End the connection, unless it has ended.

        Args:
            because: What ends it.
            status: The class of the end.
            code: Close code, None when there is none.
            reason: Close reason.
        """
        now = self.loop.time()
        self.tell(self.connection.end(now, because=because, status=status, code=code, reason=reason))

    def transport_lost(self) -> None:
        """End the connection: the server says that the peer is gone. Its word for the cause may already be there."""
        code = CloseCode.ABNORMAL_CLOSURE.value
        self.end(DropReason.TRANSPORT_LOST, CloseStatus.TRANSPORT_ERROR, code)
        self.receiving.poll()
        self.has_ended()

    def send_timed_out(self, timeout_s: float) -> None:
        """
        End the connection: the peer did not take a message in time.

        Args:
            timeout_s: The time.
        """
        if self.connection.ended is None:
            self.tell((SendTimedOut(self.connection_id, self.loop.time(), timeout_s),))
        self.end(DropReason.GUARD_CLOSED, CloseStatus.SLOW_CONSUMER, CloseCode.ABNORMAL_CLOSURE.value)
        self.has_ended()

    def has_ended(self) -> None:
        """Let everybody know of the end, once; not before a close is out (G11)."""
        if self._is_end_told or self.sending.holds_back:
            return
        self._is_end_told = True
        self.shut_path()
        if self._end_flag is not None:
            self._end_flag.set()
        self.receiving.ended()
        cancel_after_s = self.options.cancel_after_s
        if cancel_after_s is not None and self.task is not None:
            self.late.cancel_handler_in(cancel_after_s)
        if self.entrance is not None:
            self.entrance.ended()

    def tell_draining(self, deadline_s: float) -> None:
        """
        Tell the observers that the connection will be closed soon.

        Args:
            deadline_s: Seconds until its handler is stopped.
        """
        if self.connection.ended is None:
            self.tell((Draining(self.connection_id, self.loop.time(), deadline_s),))

    def leave(self, farewell: Passed) -> None:
        """
        Close the connection, or deny its handshake, in a task of the guard's; who is being asked about is denied later.

        Args:
            farewell: Why, and with which close.
        """
        if self.connection.ended is None and not self.is_asking:
            self.keep_time().leave(farewell)

    def give_up_close(self) -> None:
        """Let the handler hear of the end although the server has not taken the close."""
        if self.timing is not None:
            self.timing.give_up()
        if self.entrance is not None:
            self.entrance.give_up()
        self.sending.give_up_close()

    def handler_done(self) -> bool:
        """
        Take note that the handler is done: nobody stops it any more.

        Returns:
            Whether the guard cancelled it, and nobody else did.
        """
        is_cancelled = self._late is not None and self._late.handler_done()
        self.task = None
        return is_cancelled

    def stop_handler(self) -> None:
        """Cancel the handler, or what the guard still does for one that is done, or a policy that has no answer."""
        if self.is_asking:
            self.tell(self.connection.deny(self.loop.time(), status=CloseStatus.SHUTDOWN, response_status=503))
        self.end(DropReason.GUARD_CLOSED, CloseStatus.SHUTDOWN, CloseCode.ABNORMAL_CLOSURE.value)
        self.has_ended()
        if self.task is not None:
            self.late.cancel_handler_in(0.0)
        elif isinstance(self._runner, asyncio.Task):
            self._requests = cancel_requests(self._runner)
            self._runner.cancel()

    def was_stopped(self) -> bool:
        """
        Take back the cancellation of what the guard did for a handler that is done.

        Returns:
            Whether the guard cancelled that, and nobody else did; on Python 3.10 the two cannot be told apart.
        """
        requests, self._requests = self._requests, None
        if requests is None:
            return False
        if sys.version_info >= (3, 11) and isinstance(self._runner, asyncio.Task):
            self._runner.uncancel()
        return cancel_requests(self._runner) <= requests

    async def wait_closed(self) -> None:
        """Wait for the end."""
        if not self._is_end_told:
            if self._end_flag is None:
                self._end_flag = self.loop.flag()
            await self._end_flag.wait()

    def let_go(self) -> None:
        """Hold no longer what only a live connection needs: an application may keep its handle for ever."""
        self._runner = None

    def _look_at_handler(self, end: End) -> None:
        """Tell, once, of a handler that nothing stops, because it sends nothing."""
        lingered_s = self.loop.time() - end.at_s
        if not self.is_zombie and lingered_s >= 2 * self.options.linger_s + 1.0:
            self.is_zombie = True
            self.tell(self.connection.outlive(self.loop.time(), self.bookkeeping.books()))

    def _call_at_end(self, call: Callable[[ConnectionHandle], object]) -> None:
        try:
            call(self.handle)
        except Exception as error:  # noqa: BLE001 - it is the caller's of nobody: the end goes on for all others
            _log.error("what was to be called at the end of a connection raised", exc_info=error)
