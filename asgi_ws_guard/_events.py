"""
The facts that the core reports: one frozen class each, named in the past tense.

A connection tells `Opened`, then `Accepted`, then `Ended` at the first of: the client disconnected, the application
closed, the handshake was denied, the transport failed. When its handler is done it tells exactly one terminal event,
`Rejected` (the application denied), `Abandoned` (the client left during the handshake) or `Closed` (after `Accepted`),
and nothing of the connection follows. Two are no part of that story: `Leaked` accuses an application that still sends
to a connection whose story is over, `ObserverFailed` an observer of any event, the terminal one included.

No event holds a payload. What must not reach a log (query string, headers) is hidden from `repr`.
Times are seconds of the event loop's clock, for differences only. Every module but the vocabulary may
import this one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ._close import CloseStatus, Initiator, _Word


class DropReason(_Word):
    """Why a message was dropped: what ended the connection before, or the last three, which drop before the end."""

    CLIENT_DISCONNECTED = "client_disconnected"
    APP_CLOSED = "app_closed"
    DENIED = "denied"
    HANDLER_DONE = "handler_done"
    TRANSPORT_LOST = "transport_lost"
    GUARD_CLOSED = "guard_closed"
    POLICY = "policy"
    OUTBOX_FULL = "outbox_full"
    SUPERSEDED = "superseded"


EARLY_DROPS = frozenset({DropReason.POLICY.value, DropReason.OUTBOX_FULL.value, DropReason.SUPERSEDED.value})
"""The reasons for which a message is dropped although the connection is open."""


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Who is behind a connection, as a policy found out.

    Attributes:
        subject: What names a user or a service, hashable and the same for all of its connections; hidden from `repr`.
        expires_unix_s: Seconds since 1970 at which the connection is closed unless it was renewed; None: never.
        label: What logs, spans and pages may show of it; empty: nothing.
    """

    subject: Hashable = field(repr=False)
    expires_unix_s: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    What the client asked for: the scope of the opening handshake, frozen.

    Attributes:
        path: Decoded path, may hold control characters.
        query_string: Raw query string, often with tokens in it; hidden from `repr`.
        headers: Pairs of lower-case name and value; hidden from `repr`.
        client: Address and port of the peer, None when the server does not tell.
        server: Address and port that was connected to, None when the server does not tell.
        scheme: ``"ws"`` or ``"wss"``.
        http_version: ``"1.1"`` or ``"2"``.
        subprotocols: What the client offered, in its order; tokens travel there too, hidden from `repr`.
        can_deny: Whether the server offers the denial response extension.
        connection_id: 16 hexadecimal digits, the same as in every event; empty in a handshake made by hand.
        identity: Who it is, as an earlier policy found out; None: unknown, as always in `Opened`.
    """

    path: str
    query_string: bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str
    http_version: str
    subprotocols: tuple[str, ...] = field(repr=False)
    can_deny: bool
    connection_id: str = ""
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Books:
    """
    What became of every message (G13).

    `attempted` counts all calls of the application's `send`; the other four are its only outcomes.

    Attributes:
        received: Messages (`websocket.receive`) that the server delivered.
        sent: Messages (`websocket.send`) that the server took; a part of `forwarded`.
        forwarded: Messages of any type that the server took.
        failed: Messages at which the server raised a real error, or whose send was cancelled or timed out.
        refused: Messages that were a `ProtocolError`.
        dropped: dict: `DropReason` value -> number of messages.
        received_texts: Text messages among `received`. This and the next five are counted only for an observer with
            a true attribute ``wants_sizes``, and else 0.
        received_binaries: Binary messages among `received`.
        received_bytes: Bytes of the payloads of `received`, of UTF-8 for text.
        sent_texts: Text messages among `sent`.
        sent_binaries: Binary messages among `sent`.
        sent_bytes: Bytes of the payloads of `sent`, of UTF-8 for text.
    """

    received: int = 0
    sent: int = 0
    forwarded: int = 0
    failed: int = 0
    refused: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    received_texts: int = 0
    received_binaries: int = 0
    received_bytes: int = 0
    sent_texts: int = 0
    sent_binaries: int = 0
    sent_bytes: int = 0

    @property
    def dropped_total(self) -> int:
        """Number of messages that were dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def attempted(self) -> int:
        """Number of messages that the application gave to `send`."""
        return self.forwarded + self.failed + self.refused + self.dropped_total

    def __add__(self, other: Books) -> Books:
        reasons = {**self.dropped, **other.dropped}
        return Books(
            received=self.received + other.received,
            sent=self.sent + other.sent,
            forwarded=self.forwarded + other.forwarded,
            failed=self.failed + other.failed,
            refused=self.refused + other.refused,
            dropped={reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons},
            received_texts=self.received_texts + other.received_texts,
            received_binaries=self.received_binaries + other.received_binaries,
            received_bytes=self.received_bytes + other.received_bytes,
            sent_texts=self.sent_texts + other.sent_texts,
            sent_binaries=self.sent_binaries + other.sent_binaries,
            sent_bytes=self.sent_bytes + other.sent_bytes,
        )


@dataclass(frozen=True, slots=True)
class CallSite:
    """A line of the application: file, line, function."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Event:
    """
    A fact about one connection.

    Attributes:
        connection_id: 16 hexadecimal digits, unique among live connections.
        at_s: When, in seconds of the event loop's clock.
    """

    connection_id: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The server handed a connection over; the opening handshake has begun."""

    handshake: Handshake


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """
    The application accepted the handshake.

    Attributes:
        subprotocol: What the application chose; hidden from `repr`, for some answer with a token.
        route: Route template of the framework such as ``"/rooms/{room}"``, None when it gives none.
        handshake_s: Seconds since `Opened`.
    """

    subprotocol: str | None = field(repr=False)
    route: str | None
    handshake_s: float


@dataclass(frozen=True, slots=True)
class Identified(Event):
    """
    It is known who is behind the connection, at its handshake or later; told when there is something to show.

    Attributes:
        label: As in `Identity`, made printable and short; never empty, and other than the one that was told before.
    """

    label: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The connection has ended; its handler may still be running."""

    code: int | None
    reason: str = field(repr=False)
    initiator: Initiator
    status: CloseStatus


@dataclass(frozen=True, slots=True)
class LateSend(Event):
    """The first message that the application sent after the end, of each reason (G1)."""

    message_type: str
    reason: DropReason
    site: CallSite | None


@dataclass(frozen=True, slots=True)
class Violated(Event):
    """The application or the server broke the protocol; a `ProtocolError` was raised (G7)."""

    state: str
    message_type: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class CloseAdjusted(Event):
    """A close that could not go out as the application asked was made legal (G12)."""

    asked_code: int
    code: int
    reason_cut: bool


@dataclass(frozen=True, slots=True)
class SendTimedOut(Event):
    """The peer did not take a message in time; the guard ended the connection."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class ReadAheadFull(Event):
    """The application reads nothing and the bound is reached: the guard is blind beyond it (G5)."""

    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """
    The process is about to end: the connection will be closed soon, and its handler stopped at the deadline.

    Attributes:
        deadline_s: Seconds from now until the handler is cancelled.
    """

    deadline_s: float


@dataclass(frozen=True, slots=True)
class HandlerStopped(Event):
    """A handler that went on after the end was stopped (G4)."""

    how: Literal["raised", "cancelled"]


@dataclass(frozen=True, slots=True)
class HandlerOutlived(Event):
    """
    The handler is still running although its connection ended long ago: it sends nothing, so nothing stops it.

    A zombie, from now on. Told once, when twice ``linger_s`` and a second are over; the terminal event follows when the
    handler is done, if ever.

    Attributes:
        route: As in `Terminal`.
        code: As in `Terminal`.
        reason: As in `Terminal`; hidden from `repr`.
        initiator: As in `Terminal`.
        status: As in `Terminal`.
        accepted: Whether the handshake was accepted.
        duration_s: As in `Terminal`.
        lingered_s: Seconds since the end.
        books: What became of every message so far.
    """

    route: str | None
    code: int | None
    reason: str = field(repr=False)
    initiator: Initiator
    status: CloseStatus
    accepted: bool
    duration_s: float
    lingered_s: float
    books: Books


@dataclass(frozen=True, slots=True)
class PolicyApplied(Event):
    """
    A policy answered with anything but `Allow`: the first time for this connection that it decided so, for this reason.

    A flood must not cost an event for each message; how often it was is in `Terminal.decisions` and in `Statistics`.

    Attributes:
        policy: Name of the policy.
        decision: ``"deny"``, ``"drop"``, ``"delay"`` or ``"close"``.
        reason: The policy's word for it.
    """

    policy: str
    decision: str
    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """A message was delivered to the application. Only for observers that ask for messages."""

    kind: Literal["text", "binary"]
    size: int


@dataclass(frozen=True, slots=True)
class MessageHandled(Event):
    """
    The application asked for the next message, was given it in another task, or its handler is done.

    Told once for each message that was received, and only to observers that ask for messages.

    Attributes:
        kind: What the message was that the application received before.
        size: Its payload in bytes, of UTF-8 for text.
        took_s: Seconds since it was delivered.
    """

    kind: Literal["text", "binary"]
    size: int
    took_s: float


@dataclass(frozen=True, slots=True)
class MessageSent(Event):
    """
    The server took a message. Only for observers that ask for messages.

    Attributes:
        kind: ``"text"`` or ``"binary"``.
        size: Its payload in bytes, of UTF-8 for text.
        took_s: Seconds that the server's `send` took.
    """

    kind: Literal["text", "binary"]
    size: int
    took_s: float


@dataclass(frozen=True, slots=True)
class MessageLost(Event):
    """
    The server was given a message and did not take it. Only for observers that ask for messages.

    Attributes:
        kind: ``"text"`` or ``"binary"``.
        size: Its payload in bytes, of UTF-8 for text.
        took_s: Seconds until the server's `send` raised, was cancelled or timed out.
        reason: Why it counts as dropped, None when it counts as failed.
        error_type: Qualified name of the exception, None when it was dropped.
    """

    kind: Literal["text", "binary"]
    size: int
    took_s: float
    reason: DropReason | None
    error_type: str | None


@dataclass(frozen=True, slots=True)
class Terminal(Event):
    """
    The last fact about a connection: its handler is done.

    Attributes:
        path: Decoded path of the handshake, may hold control characters.
        route: Route template of the framework such as ``"/rooms/{room}"``, None when it gives none.
        code: Close code of the end; None when there was none.
        reason: Close reason of the end, foreign text; hidden from `repr`.
        initiator: Who ended the connection.
        status: The class of the end.
        handshake_s: Seconds from `Opened` to the answer, or to the end when there was no answer.
        duration_s: Seconds from `Accepted` to the end; 0 when it was not accepted.
        lingered_s: Seconds that the handler went on after the end.
        error_type: Qualified name of the exception that left the handler and the guard, None when none did.
        absorbed_type: Qualified name of the disconnect error that left the handler and ended at the guard.
        books: What became of every message.
        decisions: dict: name of a policy, decision, reason -> how often it was; empty when all were `Allow`.
    """

    path: str
    route: str | None
    code: int | None
    reason: str = field(repr=False)
    initiator: Initiator
    status: CloseStatus
    handshake_s: float
    duration_s: float
    lingered_s: float
    error_type: str | None
    absorbed_type: str | None
    books: Books
    decisions: Mapping[tuple[str, str, str], int] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, slots=True)
class Rejected(Terminal):
    """The application denied the handshake, or ended without answering it."""

    response_status: int | None


@dataclass(frozen=True, slots=True)
class Abandoned(Terminal):
    """The client left during the opening handshake."""


@dataclass(frozen=True, slots=True)
class Closed(Terminal):
    """An accepted connection is over."""


@dataclass(frozen=True, slots=True)
class Leaked(Event):
    """
    The first message to a connection whose handler was already done.

    Something in the application still holds the connection: usually a room or a set from which it
    was never removed.
    """

    message_type: str
    reason: DropReason
    site: CallSite | None


@dataclass(frozen=True, slots=True)
class ObserverFailed(Event):
    """An observer raised; it was contained. Told once per observer and connection."""

    observer: str
    error_type: str
    event: str
