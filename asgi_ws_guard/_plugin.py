"""
The seam: all that a plugin may know of the guard.

An observer hears: it is called with every event and cannot change anything. A policy is asked: it answers with a
decision, and the session acts on it. Plugins import this module, the events and the vocabulary, and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeGuard, runtime_checkable

from ._close import CloseCode, CloseStatus
from ._events import Books, Event, Handshake, Identity


@runtime_checkable
class Observer(Protocol):
    """
    Hears every event, in order, on the event loop's thread.

    Any callable will do. `Opened` and the terminal event are told in the task that runs the handler: a context variable
    that is set at the one and reset at the other is seen by the handler and by the tasks that it creates. Observers
    hear in the order in which they are given, and of a terminal event in the reverse order, as settings are undone.

    Attributes that an observer may have; the first two are looked at once per connection:
        wants_messages: True: hear `MessageReceived`, `MessageHandled`, `MessageSent` and `MessageLost` too, which costs
            every message a slower path.
        wants_sizes: True: let text messages and bytes be counted in the books.
        attach: A method that is given the guard's `Statistics`, once, when the guard is built.
        flush: A method without arguments, called when the application's lifespan is over: what was held back is to go
            out now, for a server may end the process without another word (uvicorn 0.54 does on SIGTERM).
    """

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        An exception is contained, counted and reported once per observer and connection. The call must not block.

        Args:
            event: Any event; unknown classes are to be ignored, new ones may come.
        """


@dataclass(frozen=True, slots=True)
class Tally:
    """
    The sums of one route of one guard, since the guard was built.

    Attributes:
        route: Route template, None for connections of which none is known, `OVERFLOW` for those beyond the bound.
        scheme: ``"ws"`` or ``"wss"``.
        accepted: Opening handshakes that the application accepted.
        denied: Opening handshakes that were denied, or left without an answer.
        aborted: Opening handshakes during which the client left.
        active: Connections that are open now.
        zombies: Handlers that are running now although `HandlerOutlived` was told of them.
        books: What became of every message.
        received_untyped: Messages that were received while nobody measured: neither text nor binary in the books.
        sent_untyped: Messages that were sent while nobody measured.
    """

    route: str | None
    scheme: str
    accepted: int
    denied: int
    aborted: int
    active: int
    zombies: int
    books: Books
    received_untyped: int = 0
    sent_untyped: int = 0


OVERFLOW = "asgi_ws_guard.overflow"
"""Stands in for every route beyond the bound: a label set must stay finite."""


class Statistics(Protocol):
    """What an observer may read of a guard at any time, in any thread."""

    def tallies(self) -> list[Tally]:
        """
        Sum up by route. A connection counts from its accept, or from its end when there was none.

        Returns:
            One for each route and scheme that was seen, at most a few hundred; all numbers but the two that say "now"
            only ever grow.
        """

    def books(self) -> dict[str, Books]:
        """Give the books of every live connection. Dict: connection id -> books."""

    def decisions(self) -> dict[tuple[str, str, str], int]:
        """
        Give how often policies decided anything but `Allow`, since the guard was built.

        Returns:
            dict: name of a policy, decision, reason -> number; bounded, what comes later is summed up as `OVERFLOW`.
        """

    def observer_failures(self) -> dict[str, int]:
        """Give the exceptions of observers that were contained. Dict: name of an observer -> number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """
    How long a connection may take; each is None without a limit, and the shortest of several policies counts.

    Attributes:
        handshake_s: Seconds from the handshake to the application's accept or denial; then it is denied with 503.
        idle_s: Seconds without a message from the client; then it is closed with `idle_code`.
        max_age_s: Seconds from the accept; then it is closed with `max_age_code`.
        send_s: Seconds that the peer may take for one message, as the guard's option ``send_timeout_s``.
        idle_code: Close code of an idle connection.
        max_age_code: Close code of a connection that is too old.
    """

    handshake_s: float | None = None
    idle_s: float | None = None
    max_age_s: float | None = None
    send_s: float | None = None
    idle_code: int = int(CloseCode.NORMAL_CLOSURE)
    max_age_code: int = int(CloseCode.SERVICE_RESTART)


class Gate(Protocol):
    """Answers for every message that one connection receives; made by a policy for that connection alone."""

    def __call__(self, size: int, /) -> Allow | Drop | Delay | Close:
        """
        Answer one message before it is delivered, at once.

        Args:
            size: Length of the payload, in bytes of UTF-8 for text.
        """


class CreditingGate(Gate, Protocol):
    """
    A gate that lets messages pass unasked, as many as it can spare: to be asked is what costs a message most.

    Its credit counts while it is the only gate of a connection. What it gave it may not give to anybody else.
    """

    credit_bytes: int
    """Bytes of the largest message that passes unasked."""

    def credit(self) -> int:
        """Give the number of messages that may pass unasked from now on; called when it has answered `ALLOW`."""

    def settle(self, messages: int, size: int, /) -> None:
        """
        Hear what was used of the credit, which is over; called before it is asked again, if anything was.

        Args:
            messages: Messages that passed.
            size: Their payloads together, in bytes of UTF-8 for text.
        """


def gives_credit(gate: object) -> TypeGuard[CreditingGate]:
    """
    Tell whether a gate gives credit.

    Args:
        gate: Any gate.
    """
    return hasattr(gate, "credit") and hasattr(gate, "settle")


class FirstMessage(Protocol):
    """Answers for the first message of a connection, which tells who the client is."""

    timeout_s: float
    """Seconds from the accept in which it has to come; then the connection is closed with 4401."""

    def __call__(self, payload: str | bytes, /) -> Allow | Close | Awaitable[Allow | Close]:
        """
        Answer the first message. The application never sees it, and its accept returns only when this has allowed.

        Args:
            payload: The message.
        """


@dataclass(frozen=True, slots=True)
class Allow:
    """
    Let it pass. What a policy lays down beside that counts for an opening handshake only.

    Attributes:
        identity: Who the client is; later policies find it in their handshake, the application at its connection.
        subprotocol: What the guard answers for an application that accepts without one; None: nothing.
        hidden_subprotocols: Offers of the client that the application is not to see: tokens travel there.
        gate: Asked for every received message, but for those that it gives credit for (`CreditingGate`).
        first_message: Asked for the first received message.
        deadlines: How long the connection may take.
    """

    identity: Identity | None = None
    subprotocol: str | None = None
    hidden_subprotocols: tuple[str, ...] = field(default=(), repr=False)
    gate: Gate | None = None
    first_message: FirstMessage | None = None
    deadlines: Deadlines | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """
    Deny the opening handshake, with an HTTP answer where the server can send one, else with 403.

    Attributes:
        status: HTTP status, 400 to 599.
        body: Body of the answer; nothing secret, it goes to a stranger. None: `reason` and `status` as JSON.
        headers: Pairs of lower-case name and value, beside ``content-length`` and ``content-type``, which are added.
        end: The class of the end, for telemetry.
        reason: One word for the answer, for logs and for metrics, from a finite set.
    """

    status: int = 403
    body: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    end: CloseStatus = CloseStatus.DENIED
    reason: str = "denied"


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop one message; it is counted as dropped with the reason ``policy`` when the application sent it."""

    reason: str = "dropped"


@dataclass(frozen=True, slots=True)
class Delay:
    """
    Deliver one received message later, and read none meanwhile, so that the transport pushes back.

    Attributes:
        delay_s: Seconds, more than 0.
        reason: One word for logs and metrics, from a finite set.
        then: Asked when they are over what is to become of the message; for what nobody can tell before. When the
            connection ends first it is asked at once, and the message is dropped unless it may pass. None: deliver it.
    """

    delay_s: float
    reason: str = "delayed"
    then: Callable[[], Allow | Drop | Delay | Close] | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """
    Close the connection.

    Attributes:
        code: Close code that may be sent.
        reason: Close reason, at most 123 bytes of UTF-8 go out.
        end: The class of the end, for telemetry.
    """

    code: int = int(CloseCode.POLICY_VIOLATION)
    reason: str = ""
    end: CloseStatus = CloseStatus.RATE_LIMITED


Decision = Allow | Deny | Drop | Delay | Close


class Policy(Protocol):
    """Decides who may come in. A policy that raises denies, and is reported as denying."""

    def admit(self, handshake: Handshake) -> Allow | Deny | Awaitable[Allow | Deny]:
        """
        Answer an opening handshake, before the application hears of it.

        Args:
            handshake: What the client asked for.

        Returns:
            The decision, or an awaitable of it.
        """


@runtime_checkable
class ReleasingPolicy(Protocol):
    """A policy that wants to know when what it admitted is over: who counts live connections."""

    def release(self, connection_id: str) -> None:
        """
        Hear of the end of a connection, once for each that this policy allowed, also when a later one denied it.

        Args:
            connection_id: As in the handshake.
        """


@runtime_checkable
class MessagePolicy(Protocol):
    """A policy that is also asked for every message; it costs every message a slower path."""

    def message(self, connection_id: str, direction: Literal["received", "sent"], size: int) -> Allow | Drop | Close:
        """
        Answer one message, before it is delivered or forwarded.

        Args:
            connection_id: The connection it belongs to.
            direction: ``"received"`` from the client or ``"sent"`` by the application.
            size: Length of the payload, in bytes of UTF-8 for text.

        Returns:
            The decision, at once: a message never waits for a policy.
        """


ALLOW = Allow()
"""The one answer that most policies give most of the time."""
