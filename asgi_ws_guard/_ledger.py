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

from ._account import Account
from ._events import Books
from ._plugin import OVERFLOW, Tally

if TYPE_CHECKING:
    from ._dispatch import Dispatch
    from ._session import Session
    from ._watch import Watch

MAX_ROUTES = 100
"""Routes and schemes that are told apart. More is not an application's routing table but its paths, and a metric with
ten label sets for each stays within the 2,000 that the SDK of OpenTelemetry allows by default."""
MAX_DECISIONS = 100
"""Kinds of decisions that are told apart, by policy, decision and reason: a policy may make up reasons."""


class Ledger:
    """
    What the connections of one guard have done, and how many there are.

    Attributes:
        lock: Held while a connection passes from the live to those that are over.
    """

    __slots__ = ("__weakref__", "_accounts", "_decisions", "_dispatch", "_watches", "lock")

    def __init__(self, dispatch: Dispatch) -> None:
        """
        Begin with nothing.

        Args:
            dispatch: The guard's observers, for their failures.
        """
        self.lock = RLock()
        self._dispatch = dispatch
        self._accounts: dict[tuple[str | None, str], Account] = {}
        self._decisions: dict[tuple[str, str, str], int] = {}
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
            live = self.live()
            accounts = [session.bookkeeping.account for session in live]
            labels = {account: label for label, account in self._accounts.items()}
            sums = {account: account.copy() for account in labels}
        for session, account in zip(live, accounts, strict=True):
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
        return {session.connection_id: session.bookkeeping.books() for session in self.live()}

    def observer_failures(self) -> dict[str, int]:
        """Give the contained exceptions of observers; see `Statistics`."""
        return dict(self._dispatch.failures)

    def count_decision(self, kind: tuple[str, str, str]) -> None:
        """
        Count what a policy decided; beyond `MAX_DECISIONS` kinds under `OVERFLOW`.

        Args:
            kind: Name of the policy, decision, reason.
        """
        with self.lock:
            if kind not in self._decisions and len(self._decisions) >= MAX_DECISIONS:
                kind = (OVERFLOW, kind[1], OVERFLOW)
            self._decisions[kind] = self._decisions.get(kind, 0) + 1

    def decisions(self) -> dict[tuple[str, str, str], int]:
        """Give how often policies decided what; see `Statistics`."""
        with self.lock:
            return dict(self._decisions)

    def totals(self) -> Books:
        """Sum up what became of every message, those of handshakes without an answer included."""
        with self.lock:
            live = self.live()
            over = sum((account.books for account in self._accounts.values()), Books())
        for session in live:
            books = session.bookkeeping.books()
            over += session.bookkeeping.over or books
        return over
