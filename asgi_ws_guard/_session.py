"""
One guarded connection: what its two sides share, and what all must hear of when it ends.

It owns the core's `Connection` and all that belongs to one connection; nothing of it is shared. It awaits nothing of
the server: what is received is `_receiving.py`'s, what is sent `_sending.py`'s; how a connection begins is
`_opening.py`'s, and what is left to do when its handler is done `_ending.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._admission import release
from ._close import CloseCode, CloseStatus
from ._connection import Connection, End
from ._events import (
    Abandoned,
    Books,
    Draining,
    DropReason,
    Ended,
    Event,
    Identified,
    Identity,
    Leaked,
    PolicyApplied,
    Rejected,
    SendTimedOut,
    Terminal,
)
from ._handle import ConnectionHandle
from ._lateness import Lateness
from ._plugin import OVERFLOW
from ._route import route_of
from ._scope import can_deny
from ._state import State
from ._telling import Telling
from ._terms import NO_TERMS, Terms, shown
from ._timing import Passed, Timing
from ._types import Message, Receive, Scope

if TYPE_CHECKING:
    from ._account import Account
    from ._dispatch import Dispatch
    from ._entrance import Entrance
    from ._ledger import Ledger
    from ._loops import Flag
    from ._options import Options
    from ._path import Path
    from ._plugin import Policy
    from ._receiving import Receiving
    from ._sending import Sending
    from ._watch import Watch


_NOBODY: frozenset[int] = frozenset()
MAX_KINDS = 32
"""Kinds of decisions of one connection that are told apart, but for one more of each policy and decision."""
_log = logging.getLogger("asgi_ws_guard")


class Session:
    """
    One guarded connection.

    Attributes:
        absorbed: What left the application and says no more than that the connection is gone; else None.
        account: The sums of its route in the ledger, None before the accept.
        admitted: Policies that let it in, and have not heard of its end.
        connection: Its state and its books.
        decisions: dict: policy, decision, reason -> how often; None as long as all were `Allow`.
        dispatch: The guard's observers.
        entrance: Waits for its first message, None when the terms ask for none.
        handle: What the application may know of it.
        is_asking: Whether the policies are being asked whether it may come in.
        is_zombie: Whether the handler goes on long after the end, and nothing will stop it.
        loop: The event loop that it lives on.
        options: The guard's options.
        outer: The handle that was current before its own: of a guard around this one, or None.
        over: Its books when its handler was done, which the ledger has taken over; None before.
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
        "_ledger",
        "_reported",
        "_runner",
        "_scheme",
        "_scope",
        "_url_path",
        "absorbed",
        "account",
        "admitted",
        "connection",
        "decisions",
        "dispatch",
        "entrance",
        "handle",
        "is_asking",
        "is_zombie",
        "loop",
        "options",
        "outer",
        "over",
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

    def __init__(
        self,
        connection_id: str,
        scope: Scope,
        options: Options,
        *,
        dispatch: Dispatch,
        ledger: Ledger,
        watch: Watch,
    ) -> None:
        self.options = options
        loop = self.loop = watch.loop
        self.connection = Connection(connection_id, at_s=loop.time(), can_deny=can_deny(scope))
        self.handle = ConnectionHandle(self)
        self.task: object | None = loop.current_task()
        self._runner = self.task
        self.is_asking = False
        self.dispatch = dispatch
        self._ledger = ledger
        self.watch = watch
        self._url_path = str(scope["path"])
        self._scheme = str(scope["scheme"])
        self._scope: Scope | None = scope
        self.telling = Telling(self) if dispatch.asks_for("wants_messages") else None
        self.account: Account | None = None
        self.admitted: list[Policy] = []
        self.terms: Terms = NO_TERMS
        self.entrance: Entrance | None = None
        self.decisions: dict[tuple[str, str, str], int] | None = None
        self.timing: Timing | None = None
        self._late: Lateness | None = None
        self.over: Books | None = None
        self.outer: ConnectionHandle | None = None
        self.absorbed: BaseException | None = None
        self._reported = _NOBODY
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

    def decided(self, policy: str, decision: str, reason: str) -> None:
        """
        Count what a policy decided, and tell of the first of each kind: a flood is not to cost an event per message.

        Args:
            policy: Name of the policy.
            decision: ``"deny"``, ``"drop"``, ``"delay"`` or ``"close"``.
            reason: Its word for it.
        """
        counts = self.decisions
        if counts is None:
            counts = self.decisions = {}
        kind = (policy, decision, reason)
        number = counts.get(kind, 0)
        if not number and len(counts) >= MAX_KINDS:
            kind = (policy, decision, OVERFLOW)
            number = counts.get(kind, 0)
        counts[kind] = number + 1
        self._ledger.count_decision(kind)
        if not number:
            self.tell((PolicyApplied(self.connection_id, self.loop.time(), policy, decision, kind[2]),))

    def release(self) -> None:
        """Tell the policies that let the connection in that it is over, once."""
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
    def is_held(self) -> bool:
        """Whether nothing passes in either direction, for the first message has not been answered."""
        return self.entrance is not None and not self.entrance.is_open and self.connection.accepted

    @property
    def asks_about_messages(self) -> bool:
        """Whether a policy or an observer wants every message."""
        return bool(self.options.message_policies) or self.telling is not None

    def books(self) -> Books:
        """Freeze what became of every message so far."""
        connection, received, sent = self.connection, self.path.received, self.path.sent
        return Books(
            received=connection.received + received.messages,
            sent=connection.sent + sent.messages,
            forwarded=connection.sent + connection.answers + sent.messages,
            failed=connection.failed,
            refused=connection.refused,
            dropped=dict(connection.dropped or {}),
            received_texts=received.texts,
            received_binaries=received.binaries,
            received_bytes=received.size,
            sent_texts=sent.texts,
            sent_binaries=sent.binaries,
            sent_bytes=sent.size,
        )

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
                self.count_late(one.as_received())

    def find_route(self) -> None:
        """Ask the framework for the route, as long as the handshake has no answer."""
        if self._scope is not None and self.connection.route is None:
            self.connection.route = route_of(self._scope)

    def count_accepted(self) -> None:
        """Count the connection in the ledger from its accept on, once."""
        if self.account is None and self.connection.accepted:
            self._scope = None
            account = self._ledger.account(self.connection.route, self._scheme)
            with self._ledger.lock:
                account.accepted += 1
                self.account = account
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
        if events and self.dispatch.observers:
            self._reported = self.dispatch.tell(events, self._reported)

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

    def drop(self, reason: DropReason) -> None:
        """
        Count a message that is not forwarded.

        Args:
            reason: Why.
        """
        self.connection.drop(reason)
        self.count_late(Books(dropped={reason.value: 1}))

    def count_late(self, outcome: Books) -> None:
        """
        Count the outcome of one message in the books of the guard, if those of this connection were taken over.

        Args:
            outcome: What became of it.
        """
        if self.connection.finished and self.account is not None:
            with self._ledger.lock:
                self.account.add(outcome)

    def forwarded(self, message: Message, started_s: float) -> None:
        """
        Take note that the server took a message beside the path; a `websocket.send` is counted by the path.

        Args:
            message: The message as it was forwarded.
            started_s: When the server was given it.
        """
        if message["type"] != "websocket.send":
            self.connection.answers += 1
            self.count_late(Books(forwarded=1))
        else:
            self.path.measure_sent(message)
            if self.telling is not None:
                self.telling.sent(message, started_s)
        self.open_path()

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

    def keep_time(self) -> Timing:
        """Give its deadlines, made when they are first needed: most connections have none."""
        if self.timing is None:
            self.timing = Timing(self, self.watch.wheel)
        return self.timing

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

    @property
    def late(self) -> Lateness:
        """Calls that come after the end, which has been; made with the first of them."""
        if self._late is None:
            self._late = Lateness(self)
        return self._late

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
        """Cancel the handler, or what the guard still does for one that is done."""
        self.end(DropReason.GUARD_CLOSED, CloseStatus.SHUTDOWN, CloseCode.ABNORMAL_CLOSURE.value)
        self.has_ended()
        if self.task is not None:
            self.late.cancel_handler_in(0.0)
        elif isinstance(self._runner, asyncio.Task):
            self._runner.cancel()

    async def wait_closed(self) -> None:
        """Wait for the end."""
        if not self._is_end_told:
            if self._end_flag is None:
                self._end_flag = self.loop.flag()
            await self._end_flag.wait()

    def _call_at_end(self, call: Callable[[ConnectionHandle], object]) -> None:
        try:
            call(self.handle)
        except Exception as error:  # noqa: BLE001 - it is the caller's of nobody: the end goes on for all others
            _log.error("what was to be called at the end of a connection raised", exc_info=error)

    def let_go(self) -> None:
        """Hold no longer what only a live connection needs: an application may keep its handle for ever."""
        self._scope = self._runner = None

    def close_books(self, error: BaseException | None) -> tuple[Event, ...]:
        """
        Pass from the live connections to those that are over.

        Args:
            error: What leaves the guard.

        Returns:
            The terminal event, and what goes before it.
        """
        account = self.account
        if account is None:
            account = self._ledger.account(self.connection.route, self._scheme)
        with self._ledger.lock:
            self.watch.remove(self)
            books = self.books()
            account.add(books)
            self.account, self.over = account, books
            self.path.report_each()
            events = self.connection.finish(
                self.loop.time(),
                path=self._url_path,
                error_type=_name(error),
                absorbed_type=_name(self.absorbed),
                books=books,
                decisions=self.decisions,
            )
            account.denied += any(isinstance(event, Rejected) for event in events)
            account.aborted += any(isinstance(event, Abandoned) for event in events)
        return events

    def _look_at_handler(self, end: End) -> None:
        """Tell, once, of a handler that nothing stops, because it sends nothing."""
        lingered_s = self.loop.time() - end.at_s
        if not self.is_zombie and lingered_s >= 2 * self.options.linger_s + 1.0:
            self.is_zombie = True
            self.tell(self.connection.outlive(self.loop.time(), self.books()))

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


def _name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__qualname__
