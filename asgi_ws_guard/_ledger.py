"""
The sums of one guard, by route: over its connections that are over, and over those that live (G13).

Plain integers. A connection that is over was added once; the live ones keep their own books and are read when somebody
asks, in whatever thread: every number of theirs only ever grows, and one lock makes them pass from the live to the
others at once. `asgi_ws_guard._plugin.Statistics` is its face.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakSet

from ._events import Books
from ._plugin import OVERFLOW, Tally

if TYPE_CHECKING:
    from ._dispatch import Dispatch
    from ._session import Session
    from ._watch import Watch

MAX_ROUTES = 100
"""Routes and schemes that are told apart. More is not an application's routing table but its paths, and a metric with
ten label sets for each stays within the 2,000 that the SDK of OpenTelemetry allows by default."""


class Account:
    """
    The sums of one route and scheme.

    Attributes:
        accepted, denied, aborted: Opening handshakes, by result.
        active, zombies: Live connections, when it is a sum over those.
        received, received_texts, received_binaries, received_bytes: Messages of the client, and their bytes.
        sent, sent_texts, sent_binaries, sent_bytes: Messages that the server took, and their bytes.
        received_untyped, sent_untyped: Messages of connections that nobody measured.
        forwarded, failed, refused: Outcomes of what the application sent.
        dropped: dict: reason -> number.
    """

    __slots__ = (
        "aborted",
        "accepted",
        "active",
        "denied",
        "dropped",
        "failed",
        "forwarded",
        "received",
        "received_binaries",
        "received_bytes",
        "received_texts",
        "received_untyped",
        "refused",
        "sent",
        "sent_binaries",
        "sent_bytes",
        "sent_texts",
        "sent_untyped",
        "zombies",
    )

    def __init__(self) -> None:
        self.accepted = self.denied = self.aborted = 0
        self.active = self.zombies = 0
        self.received_untyped = self.sent_untyped = 0
        self.received = self.received_texts = self.received_binaries = self.received_bytes = 0
        self.sent = self.sent_texts = self.sent_binaries = self.sent_bytes = 0
        self.forwarded = self.failed = self.refused = 0
        self.dropped: dict[str, int] = {}

    def copy(self) -> Account:
        """Give a copy that nobody else changes."""
        twin = Account()
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.dropped = dict(self.dropped)
        return twin

    def add(self, books: Books) -> None:
        """
        Add the books of a connection that is over, or the outcome of one late message.

        Args:
            books: What became of its messages.
        """
        self.received += books.received
        self.received_texts += books.received_texts
        self.received_binaries += books.received_binaries
        self.received_bytes += books.received_bytes
        self.sent += books.sent
        self.sent_texts += books.sent_texts
        self.sent_binaries += books.sent_binaries
        self.sent_bytes += books.sent_bytes
        self.received_untyped += books.received - books.received_texts - books.received_binaries
        self.sent_untyped += books.sent - books.sent_texts - books.sent_binaries
        self.forwarded += books.forwarded
        self.failed += books.failed
        self.refused += books.refused
        for reason, number in books.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def add_live(self, session: Session) -> None:
        """
        Add a live connection: the same as `add`, without an object in between, for there may be ten thousand.

        It may be over meanwhile in its own thread. What comes later than its end is the ledger's alone: a number that
        was read here would be missing where the ledger is read next, before it has counted it too.

        Args:
            session: A connection that was accepted, and live a moment ago.
        """
        connection, path = session.connection, session.path
        is_active, is_zombie = connection.ended is None, session.is_zombie
        was_received, was_sent = connection.received, connection.sent
        received, received_texts, received_binaries, received_bytes = path.received
        sent, sent_texts, sent_binaries, sent_bytes = path.sent
        answers, failed, refused = connection.answers, connection.failed, connection.refused
        dropped = connection.dropped.copy() if connection.dropped else None
        if session.over is not None:
            self.add(session.over)
            return
        received += was_received
        sent += was_sent
        if not path.is_measured:
            self.received_untyped += received
            self.sent_untyped += sent
        self.active += is_active
        self.zombies += is_zombie
        self.received += received
        self.received_texts += received_texts
        self.received_binaries += received_binaries
        self.received_bytes += received_bytes
        self.sent += sent
        self.sent_texts += sent_texts
        self.sent_binaries += sent_binaries
        self.sent_bytes += sent_bytes
        self.forwarded += sent + answers
        self.failed += failed
        self.refused += refused
        if dropped:
            for reason, number in dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + number

    @property
    def books(self) -> Books:
        """A frozen copy of what became of every message."""
        return Books(
            received=self.received,
            sent=self.sent,
            forwarded=self.forwarded,
            failed=self.failed,
            refused=self.refused,
            dropped=dict(self.dropped),
            received_texts=self.received_texts,
            received_binaries=self.received_binaries,
            received_bytes=self.received_bytes,
            sent_texts=self.sent_texts,
            sent_binaries=self.sent_binaries,
            sent_bytes=self.sent_bytes,
        )


class Ledger:
    """
    What the connections of one guard have done, and how many there are.

    Attributes:
        lock: Held while a connection passes from the live to those that are over.
    """

    __slots__ = ("__weakref__", "_accounts", "_dispatch", "_watches", "lock")

    def __init__(self, dispatch: Dispatch) -> None:
        """
        Begin with nothing.

        Args:
            dispatch: The guard's observers, for their failures.
        """
        self.lock = RLock()
        self._dispatch = dispatch
        self._accounts: dict[tuple[str | None, str], Account] = {}
        self._watches: WeakSet[Watch] = WeakSet()

    def add_watch(self, watch: Watch) -> None:
        """
        Take the connections of one more event loop into account.

        Args:
            watch: Watches them.
        """
        with self.lock:
            self._watches.add(watch)

    def account(self, route: str | None, scheme: str) -> Account:
        """
        Give the sums of a route; beyond `MAX_ROUTES` those of `OVERFLOW`.

        Args:
            route: Route template, None when none is known.
            scheme: Scheme of the scope; anything but ``"wss"`` counts as ``"ws"``.
        """
        scheme = "wss" if scheme == "wss" else "ws"
        account = self._accounts.get((route, scheme))
        if account is None:
            with self.lock:
                if len(self._accounts) >= MAX_ROUTES:
                    route = OVERFLOW
                account = self._accounts.setdefault((route, scheme), Account())
        return account

    def live(self) -> list[Session]:
        """List the connections whose handler is running."""
        with self.lock:
            return [session for watch in self._watches for session in tuple(watch.sessions)]

    def tallies(self) -> list[Tally]:
        """Sum up by route; see `Statistics`."""
        with self.lock:
            live = [(session, session.account) for session in self.live()]
            labels = {account: label for label, account in self._accounts.items()}
            sums = {account: account.copy() for account in labels}
        for session, account in live:
            if account is not None:
                sums[account].add_live(session)
        return [
            Tally(
                route=route,
                scheme=scheme,
                accepted=one.accepted,
                denied=one.denied,
                aborted=one.aborted,
                active=one.active,
                zombies=one.zombies,
                received_untyped=one.received_untyped,
                sent_untyped=one.sent_untyped,
                books=one.books,
            )
            for (route, scheme), one in zip(labels.values(), sums.values(), strict=True)
        ]

    def books(self) -> dict[str, Books]:
        """Give the books of every live connection; see `Statistics`."""
        return {session.connection_id: session.books() for session in self.live()}

    def observer_failures(self) -> dict[str, int]:
        """Give the contained exceptions of observers; see `Statistics`."""
        return dict(self._dispatch.failures)

    def totals(self) -> Books:
        """Sum up what became of every message, those of handshakes without an answer included."""
        with self.lock:
            live = self.live()
            over = sum((account.books for account in self._accounts.values()), Books())
        for session in live:
            books = session.books()
            over += books if session.over is None else session.over
        return over
