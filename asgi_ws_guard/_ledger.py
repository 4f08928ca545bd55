"""
The books of all connections of one guard: those that are over, and those that live (G13).

Plain integers; it is read, by metrics and by `WebSocketGuardMiddleware.totals`, and never per message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._events import Books, DropReason

if TYPE_CHECKING:
    from ._session import Session


class Ledger:
    """
    What became of every message of every connection.

    Attributes:
        live: The sessions whose handler runs.
    """

    __slots__ = ("_over", "live")

    def __init__(self) -> None:
        self.live: set[Session] = set()
        self._over = Books()

    def close(self, session: Session) -> None:
        """
        Take over the books of a connection whose handler is done.

        Args:
            session: Its session.
        """
        if session in self.live:
            self.live.remove(session)
            self._over += session.books()

    def dropped(self, reason: DropReason) -> None:
        """
        Count a message to a connection whose books were taken over.

        Args:
            reason: Why it was dropped.
        """
        self._over += Books(dropped={reason.value: 1})

    def totals(self) -> Books:
        """Sum up all connections."""
        return sum((session.books() for session in self.live), self._over)
