"""
One WebSocket connection, sans-IO: ASGI messages in, events out; it counts, and knows who ended it.

The only module that commits a state. It awaits nothing, reads no clock and logs nothing: the caller passes
the time in and hands the events on. `Session` is the only caller.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ._close import CloseCode, CloseStatus, Initiator, legal_code, legal_reason, peer_status, tells_cause
from ._events import (
    Abandoned,
    Accepted,
    Books,
    CloseAdjusted,
    Closed,
    DropReason,
    Ended,
    Event,
    HandlerOutlived,
    Rejected,
    Violated,
)
from ._exceptions import ProtocolError
from ._state import ON_RECEIVE, SENDABLE, State, after_send, allowed_now, payload_fault
from ._types import Message

_INITIATORS = {
    DropReason.CLIENT_DISCONNECTED: Initiator.CLIENT,
    DropReason.APP_CLOSED: Initiator.APPLICATION,
    DropReason.DENIED: Initiator.APPLICATION,
    DropReason.HANDLER_DONE: Initiator.APPLICATION,
    DropReason.TRANSPORT_LOST: Initiator.TRANSPORT,
    DropReason.GUARD_CLOSED: Initiator.GUARD,
}
_LEFT = (DropReason.CLIENT_DISCONNECTED, DropReason.TRANSPORT_LOST)


class Verdict(enum.Enum):
    """What is to be done with a message of the application."""

    FORWARD = "forward"
    DROP = "drop"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Step:
    """
    The answer to one message of the application.

    Attributes:
        verdict: What is to be done with it.
        message: The message to forward, made legal where it was not.
        events: What there is to tell, before the message is forwarded.
        error: What to raise, for `Verdict.REFUSE`.
    """

    verdict: Verdict
    message: Message
    events: tuple[Event, ...] = ()
    error: ProtocolError | None = None


@dataclass(frozen=True, slots=True)
class End:
    """
    How and when a connection ended.

    Attributes:
        at_s: Time of the end, in seconds.
        because: What ended it, and so why a late message is dropped.
        status: The class of the end.
        code: Close code, None when none is known or was sent.
        reason: Close reason, may be empty.
    """

    at_s: float
    because: DropReason
    status: CloseStatus
    code: int | None
    reason: str

    @property
    def initiator(self) -> Initiator:
        """Who ended the connection."""
        return _INITIATORS[self.because]


class Connection:
    """
    The lifecycle and the books of one connection.

    Attributes:
        connection_id: 16 hexadecimal digits.
        state: Where the connection stands.
        ended: The end, None before it.
        disconnect_read: Whether the server's own `websocket.disconnect` was read, or its `receive` said as much.
        finished: Whether the terminal event was told.
        received: `websocket.receive` messages that the server delivered.
        sent: `websocket.send` messages that the server took.
        answers: Messages of any other type that the server took.
        failed: Messages that the server did not, or not surely, take.
        refused: Messages that were a `ProtocolError`.
        dropped: dict: `DropReason` value -> number of messages; None as long as there are none.
        route: Route template of the framework, None as long as none is known; the caller sets it.
    """

    __slots__ = (
        "_accepted_at_s",
        "_answered_at_s",
        "_response_status",
        "answers",
        "can_deny",
        "connection_id",
        "disconnect_read",
        "dropped",
        "ended",
        "failed",
        "finished",
        "opened_at_s",
        "received",
        "refused",
        "route",
        "sent",
        "state",
    )

    def __init__(self, connection_id: str, *, at_s: float, can_deny: bool) -> None:
        self.connection_id = connection_id
        self.state = State.CONNECTING
        self.ended: End | None = None
        self.disconnect_read = False
        self.finished = False
        self.received = 0
        self.sent = 0
        self.failed = 0
        self.refused = 0
        self.answers = 0
        self.route: str | None = None
        self.dropped: dict[str, int] | None = None
        self.can_deny = can_deny
        self.opened_at_s = at_s
        self._answered_at_s: float | None = None
        self._accepted_at_s: float | None = None
        self._response_status: int | None = None

    @property
    def books(self) -> Books:
        """A frozen copy of what became of every message so far."""
        return Books(
            received=self.received,
            sent=self.sent,
            forwarded=self.sent + self.answers,
            failed=self.failed,
            refused=self.refused,
            dropped=dict(self.dropped or {}),
        )

    @property
    def accepted(self) -> bool:
        """Whether the application accepted the handshake."""
        return self._accepted_at_s is not None

    @property
    def accepted_at_s(self) -> float:
        """When the application accepted, in seconds; infinite before."""
        return math.inf if self._accepted_at_s is None else self._accepted_at_s

    def receive(self, message: Message, at_s: float) -> tuple[Event, ...]:
        """
        Take a message that the server delivered.

        Args:
            message: The server's message, possibly malformed.
            at_s: Now, in seconds.

        Returns:
            The events to tell, in order.

        Raises:
            ProtocolError: The server may not deliver this message now; nothing changed.
        """
        message_type = _type_of(message)
        if message_type is None or message_type not in ON_RECEIVE[self.state]:
            raise ProtocolError(
                f"the server delivered {message_type or 'a message without a type'}",
                state=self.state.value,
                message_type=message_type,
                allowed=tuple(sorted(ON_RECEIVE[self.state])),
            )
        if message_type == "websocket.receive":
            self.received += 1
        elif message_type == "websocket.disconnect":
            return self._disconnected(message, at_s)
        return ()

    def send(self, message: Message, at_s: float) -> Step:
        """
        Take a message of the application, commit the state and say what to do with it.

        Args:
            message: The application's message, possibly malformed.
            at_s: Now, in seconds.

        Returns:
            The verdict. The caller counts the outcome of a message that it forwards.
        """
        message_type = _type_of(message)
        if message_type is None or message_type not in SENDABLE:
            named = "a message without a type" if message_type is None else repr(message_type)
            return self._refuse(message, message_type, f"the application sent {named}", at_s)
        if self.state is State.CLOSED:
            return Step(Verdict.DROP, message)
        following = after_send(self.state, message, can_deny=self.can_deny)
        if following is None:
            problem = f"the application sent {message_type}"
            return self._refuse(message, message_type, problem, at_s)
        fault = payload_fault(message)
        if fault is not None:
            return self._refuse(message, message_type, f"the application sent {fault}", at_s)
        return self._commit(message, message_type, following, at_s)

    def drop(self, reason: DropReason) -> None:
        """
        Count a message that is not forwarded.

        Args:
            reason: Why.
        """
        if self.dropped is None:
            self.dropped = {}
        self.dropped[reason.value] = self.dropped.get(reason.value, 0) + 1

    def end(
        self,
        at_s: float,
        *,
        because: DropReason,
        status: CloseStatus,
        code: int | None,
        reason: str = "",
    ) -> tuple[Event, ...]:
        """
        End the connection, unless it has ended.

        Args:
            at_s: Now, in seconds.
            because: What ends it; any reason that is not in `EARLY_DROPS`.
            status: The class of the end.
            code: Close code, None when none is known or sent.
            reason: Close reason.

        Returns:
            `Ended`, or nothing when the connection had ended before.
        """
        if self.ended is not None:
            return ()
        self.state = State.CLOSED
        self.ended = End(at_s, because, status, code, reason)
        return (Ended(self.connection_id, at_s, code, reason, self.ended.initiator, status),)

    def deny(self, at_s: float, *, status: CloseStatus, response_status: int) -> tuple[Event, ...]:
        """
        End a connection whose handshake the guard itself denies.

        Args:
            at_s: Now, in seconds.
            status: The class of the end.
            response_status: HTTP status of the answer.

        Returns:
            `Ended`, or nothing when the connection had ended before.
        """
        if self.ended is None:
            self._response_status = response_status
        code = CloseCode.ABNORMAL_CLOSURE.value
        return self.end(at_s, because=DropReason.GUARD_CLOSED, status=status, code=code)

    def outlive(self, at_s: float, books: Books) -> tuple[Event, ...]:
        """
        Tell that the handler of an ended connection is still running.

        Args:
            at_s: Now, in seconds.
            books: What became of every message so far.

        Returns:
            `HandlerOutlived`; nothing before the end and after the terminal event.
        """
        end = self.ended
        if self.finished or end is None:
            return ()
        return (
            HandlerOutlived(
                self.connection_id,
                at_s,
                self.route,
                end.code,
                end.reason,
                end.initiator,
                end.status,
                self.accepted,
                end.at_s - self._started_at_s(end),
                at_s - end.at_s,
                books,
            ),
        )

    def finish(
        self,
        at_s: float,
        *,
        path: str,
        error_type: str | None,
        absorbed_type: str | None,
        books: Books | None = None,
        decisions: Mapping[tuple[str, str, str], int] | None = None,
    ) -> tuple[Event, ...]:
        """
        Tell the terminal event of an ended connection, once.

        Args:
            at_s: Now, in seconds.
            path: Decoded path of the handshake.
            error_type: Qualified name of the exception that leaves the guard, None when none does.
            absorbed_type: Qualified name of the exception that ended at the guard, None when none did.
            books: What became of every message, when some were counted beside this object; None: `books`.
            decisions: How often policies decided what; None: never.

        Returns:
            `Rejected`, `Abandoned` or `Closed`; nothing when it was told before.
        """
        end = self.ended
        if self.finished or end is None:
            return ()
        self.finished = True
        answered = end.at_s if self._answered_at_s is None else self._answered_at_s
        facts = (
            self.connection_id,
            at_s,
            path,
            self.route,
            end.code,
            end.reason,
            end.initiator,
            end.status,
            answered - self.opened_at_s,
            end.at_s - self._started_at_s(end),
            at_s - end.at_s,
            error_type,
            absorbed_type,
            self.books if books is None else books,
        )
        told = dict(decisions or {})
        if self.accepted:
            return (Closed(*facts, decisions=told),)
        if end.because in _LEFT:
            return (Abandoned(*facts, decisions=told),)
        return (Rejected(*facts, self._response_status, decisions=told),)

    def _started_at_s(self, end: End) -> float:
        return end.at_s if self._accepted_at_s is None else self._accepted_at_s

    def _commit(self, message: Message, message_type: str, following: State, at_s: float) -> Step:
        events: tuple[Event, ...] = ()
        if message_type == "websocket.send":
            data = message.get("bytes")
            if data is not None and not isinstance(data, bytes):
                message = {**message, "bytes": bytes(data)}
        elif message_type == "websocket.accept":
            self._accepted_at_s = self._answered_at_s = at_s
            handshake_s = at_s - self.opened_at_s
            events = (Accepted(self.connection_id, at_s, message.get("subprotocol"), self.route, handshake_s),)
        elif message_type == "websocket.close":
            message, events = self._close(message, at_s)
        elif message_type == "websocket.http.response.start":
            self._response_status = message.get("status")
            self._answered_at_s = at_s
        elif following is State.CLOSED:
            events = self._deny(at_s)
        self.state = following
        return Step(Verdict.FORWARD, message, events)

    def _close(self, message: Message, at_s: float) -> tuple[Message, tuple[Event, ...]]:
        if self.state is State.CONNECTING:
            self._response_status = 403
            return message, self._deny(at_s)
        asked, why = message.get("code"), message.get("reason") or ""
        asked = CloseCode.NORMAL_CLOSURE.value if asked is None else int(asked)
        code, reason = legal_code(asked), legal_reason(why)
        events = self.end(
            at_s,
            because=DropReason.APP_CLOSED,
            status=CloseStatus.APP_CLOSE,
            code=code,
            reason=reason,
        )
        if (code, reason) == (asked, why):
            return message, events
        adjusted = CloseAdjusted(self.connection_id, at_s, asked, code, reason_cut=reason != why)
        return {**message, "code": code, "reason": reason}, (adjusted, *events)

    def _deny(self, at_s: float) -> tuple[Event, ...]:
        code = CloseCode.ABNORMAL_CLOSURE.value
        return self.end(at_s, because=DropReason.DENIED, status=CloseStatus.DENIED, code=code)

    def _disconnected(self, message: Message, at_s: float) -> tuple[Event, ...]:
        code, reason = message.get("code"), message.get("reason")
        if not isinstance(code, int) or isinstance(code, bool):
            code = CloseCode.NO_STATUS_RECEIVED
        code = int(code)
        if not isinstance(reason, str):
            reason = ""
        because = DropReason.CLIENT_DISCONNECTED
        if code == CloseCode.SERVICE_RESTART:
            because = DropReason.TRANSPORT_LOST
        end, first = self.ended, not self.disconnect_read
        self.disconnect_read = True
        if end is not None and end.because is DropReason.TRANSPORT_LOST and first:
            self.ended = _refined(end, code, reason, because)
        return self.end(at_s, because=because, status=peer_status(code), code=code, reason=reason)

    def _refuse(self, message: Message, message_type: str | None, problem: str, at_s: float) -> Step:
        self.refused += 1
        state = self.state.value
        error = ProtocolError(
            problem,
            state=state,
            message_type=message_type,
            allowed=allowed_now(self.state, can_deny=self.can_deny),
        )
        violated = Violated(self.connection_id, at_s, state, message_type, problem)
        return Step(Verdict.REFUSE, message, () if self.finished else (violated,), error)


def _refined(end: End, code: int, reason: str, because: DropReason) -> End:
    """Give the end once the server says what had happened, after a send failed because of it."""
    if tells_cause(code):
        return End(end.at_s, because, peer_status(code), code, reason)
    return End(end.at_s, end.because, end.status, code, reason)


def _type_of(message: object) -> str | None:
    message_type = message.get("type") if isinstance(message, Mapping) else None
    return message_type if isinstance(message_type, str) else None
