"""
The sums of one route: plain integers that only ever grow, but for the two that say "now".

The ledger keeps one for each route of the connections that are over, and makes copies to which it adds the live ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._events import Books
from ._path import read

if TYPE_CHECKING:
    from ._session import Session


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
        received, received_texts, received_binaries, received_bytes = read(path.receive)
        sent, sent_texts, sent_binaries, sent_bytes = read(path.send)
        answers, failed, refused = connection.answers, connection.failed, connection.refused
        dropped = connection.dropped.copy() if connection.dropped else None
        over = session.bookkeeping.over
        if over is not None:
            self.add(over)
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
