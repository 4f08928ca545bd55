"""
What a registry gives: frozen records and sums.

`Summary` and all that it holds is for any reader: words from finite sets, route templates and numbers. A
`ConnectionRecord` is personal. Neither holds a query string, a header, a payload or a close reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..._events import EARLY_DROPS, Books
from ..._plugin import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord:
    """
    One connection whose handler is running.

    Attributes:
        number: Its place in the order of opening, from 1; given once and never again by the same registry.
        connection_id: 16 hexadecimal digits.
        path: Decoded path of the handshake, its first 200 characters; may hold identifiers.
        route: Route template, None before the accept or when the framework gives none.
        scheme: ``"ws"`` or ``"wss"``.
        client: Address and port of the peer, None when the server does not tell.
        identity: What may be shown of who it is, the first 200 characters; None when nobody knows.
        state: ``"connecting"`` until the accept, ``"open"``, or ``"ended"``: the handler runs on after the end.
        is_accepted: Whether the application accepted the handshake.
        is_zombie: Whether `HandlerOutlived` was told of it.
        opened_s: Seconds since the opening handshake began.
        duration_s: Seconds from the accept to the end or to now; 0 when it was not accepted.
        lingered_s: Seconds since the end; 0 before it.
        code: Close code of the end, None before it or when there was none.
        initiator: Who ended it, None before the end.
        status: The class of the end, None before it.
        books: What became of its messages so far; None when no guard knows (it is over at this moment).
    """

    number: int
    connection_id: str
    path: str
    route: str | None
    scheme: str
    client: tuple[str, int | None] | None
    identity: str | None
    state: Literal["connecting", "open", "ended"]
    is_accepted: bool
    is_zombie: bool
    opened_s: float
    duration_s: float
    lingered_s: float
    code: int | None
    initiator: str | None
    status: str | None
    books: Books | None

    @property
    def late_sends(self) -> int:
        """Number of messages that were dropped because the connection had ended."""
        dropped = {} if self.books is None else self.books.dropped
        return sum(number for reason, number in dropped.items() if reason not in EARLY_DROPS)

    def as_dict(self) -> dict[str, object]:
        """Give everything as words and numbers, ready for JSON."""
        return {
            "number": self.number,
            "connection_id": self.connection_id,
            "path": self.path,
            "route": self.route,
            "scheme": self.scheme,
            "client": None if self.client is None else list(self.client),
            "identity": self.identity,
            "state": self.state,
            "accepted": self.is_accepted,
            "zombie": self.is_zombie,
            "opened_s": round(self.opened_s, 3),
            "duration_s": round(self.duration_s, 3),
            "lingered_s": round(self.lingered_s, 3),
            "code": self.code,
            "initiator": self.initiator,
            "status": self.status,
            "late_sends": self.late_sends,
            "books": None if self.books is None else _sends(self.books),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """
    What happened lately.

    Attributes:
        window_s: Length of the sliding window in which ends are counted, in seconds.
        ends_by_status: Dict: class of the end -> number of ends in the window.
        sends_over_s: Seconds that the next three are about: the window, or longer when nobody has read the registry
            for as long, or shorter when it is young.
        attempted: Messages that applications gave to `send`.
        forwarded: Those of them that the server took.
        observer_failures: Exceptions of observers that were contained.
    """

    window_s: float
    ends_by_status: Mapping[str, int]
    sends_over_s: float
    attempted: int
    forwarded: int
    observer_failures: int

    @property
    def success_rate(self) -> float | None:
        """Share of the messages that the server took, 0 to 1; None without any."""
        return _rate(self.forwarded, self.attempted)

    def as_dict(self) -> dict[str, object]:
        """Give everything as words and numbers, ready for JSON."""
        per_minute = {status: round(ends * 60 / self.window_s, 3) for status, ends in self.ends_by_status.items()}
        return {
            "window_s": self.window_s,
            "ends_by_status": dict(self.ends_by_status),
            "ends_per_minute": per_minute,
            "sends_over_s": round(self.sends_over_s, 3),
            "attempted": self.attempted,
            "forwarded": self.forwarded,
            "success_rate": self.success_rate,
            "observer_failures": self.observer_failures,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    The numbers of all guards that share a registry, since it was built.

    ``opened = connecting + open + lingering + denied + aborted + closed`` holds at any time.

    Attributes:
        connecting: Opening handshakes without an answer, now.
        open: Connections that are open now.
        lingering: Handlers that are running now although their connection has ended.
        zombies: Those of them that `HandlerOutlived` was told of.
        oldest_s: Seconds since the accept of the oldest open connection, None without any.
        opened: Opening handshakes in all.
        accepted: Those that the application accepted.
        denied: Those that were denied or left without an answer.
        aborted: Those during which the client left.
        closed: Accepted connections that are over.
        books: What became of all messages, those of live connections from their accept on too.
        ends_by_status: Dict: class of the end -> number of connections that have ended.
        ends_by_initiator: Dict: who ended it -> number of connections that have ended.
        close_codes: Dict: close code -> number of accepted connections; ``"other"`` for private codes beyond 32,
            ``"none"`` for ends without a code.
        observer_failures: Exceptions of observers that were contained.
        routes: The sums of each route and guard.
        recent: What happened lately.
    """

    connecting: int
    open: int
    lingering: int
    zombies: int
    oldest_s: float | None
    opened: int
    accepted: int
    denied: int
    aborted: int
    closed: int
    books: Books
    ends_by_status: Mapping[str, int]
    ends_by_initiator: Mapping[str, int]
    close_codes: Mapping[str, int]
    observer_failures: int
    routes: tuple[Tally, ...] = field(repr=False)
    recent: Recent

    @property
    def success_rate(self) -> float | None:
        """Share of all messages that the server took, 0 to 1; None without any."""
        return _rate(self.books.forwarded, self.books.attempted)

    def as_dict(self) -> dict[str, object]:
        """Give everything as words and numbers, ready for JSON."""
        counted = ("connecting", "open", "lingering", "zombies", "opened", "accepted", "denied", "aborted", "closed")
        oldest_s = None if self.oldest_s is None else round(self.oldest_s, 3)
        return {
            "connections": {**{name: getattr(self, name) for name in counted}, "oldest_s": oldest_s},
            "messages": {**_sends(self.books), "success_rate": self.success_rate},
            "ends_by_status": dict(self.ends_by_status),
            "ends_by_initiator": dict(self.ends_by_initiator),
            "close_codes": dict(self.close_codes),
            "observer_failures": self.observer_failures,
            "routes": [_route(tally) for tally in self.routes],
            "recent": self.recent.as_dict(),
        }


def _rate(forwarded: int, attempted: int) -> float | None:
    return forwarded / attempted if attempted else None


def _sends(books: Books) -> dict[str, object]:
    return {
        "received": books.received,
        "sent": books.sent,
        "attempted": books.attempted,
        "forwarded": books.forwarded,
        "failed": books.failed,
        "refused": books.refused,
        "dropped": dict(books.dropped),
    }


def _route(tally: Tally) -> dict[str, object]:
    return {
        "route": tally.route,
        "scheme": tally.scheme,
        "accepted": tally.accepted,
        "denied": tally.denied,
        "aborted": tally.aborted,
        "open": tally.active,
        "zombies": tally.zombies,
        **_sends(tally.books),
        "success_rate": _rate(tally.books.forwarded, tally.books.attempted),
    }
