"""
Keeps the books of one connection: what became of each message, and how often a policy decided what.

As long as it lives they are its own; behind its end they are the ledger's, where late messages are counted too. It
judges nothing, and tells of nothing but the first decision of each kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._events import Abandoned, Books, DropReason, Event, PolicyApplied, Rejected
from ._plugin import OVERFLOW
from ._route import route_of
from ._types import Message, Scope

if TYPE_CHECKING:
    from ._account import Account
    from ._session import Session

MAX_KINDS = 32
"""Kinds of decisions of one connection that are told apart, but for one more of each policy and decision."""


class Bookkeeping:
    """
    The books of one connection.

    Attributes:
        account: The sums of its route in the ledger, None before the accept.
        decisions: dict: policy, decision, reason -> how often; None as long as all were `Allow`.
        over: Its books when its handler was done, which the ledger has taken over; None before.
    """

    __slots__ = ("_scheme", "_scope", "_session", "_url_path", "account", "decisions", "over")

    def __init__(self, session: Session, scope: Scope) -> None:
        """
        Open the books.

        Args:
            session: The connection's session.
            scope: The application's scope, in which a framework leaves the route.
        """
        self._session = session
        self._url_path = str(scope["path"])
        self._scheme = str(scope["scheme"])
        self._scope: Scope | None = scope
        self.account: Account | None = None
        self.decisions: dict[tuple[str, str, str], int] | None = None
        self.over: Books | None = None

    def books(self) -> Books:
        """Freeze what became of every message so far."""
        path, connection = self._session.path, self._session.connection
        received, sent = path.received, path.sent
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

    def find_route(self) -> None:
        """Ask the framework for the route, as long as the handshake has no answer."""
        connection = self._session.connection
        if self._scope is not None and connection.route is None:
            connection.route = route_of(self._scope)

    def count_accepted(self) -> None:
        """Count the connection in the ledger from its accept on."""
        self._scope = None
        ledger = self._session.watch.ledger
        account = ledger.account(self._session.connection.route, self._scheme)
        with ledger.lock:
            account.accepted += 1
            self.account = account

    def forwarded(self, message: Message) -> None:
        """
        Count a message that the server took beside the path; the path itself counts a `websocket.send`, but its size.

        Args:
            message: The message as it was forwarded.
        """
        if message["type"] != "websocket.send":
            self._session.connection.answers += 1
            self.count_late(Books(forwarded=1))
        else:
            self._session.path.measure_sent(message)

    def drop(self, reason: DropReason) -> None:
        """
        Count a message that is not forwarded.

        Args:
            reason: Why.
        """
        self._session.connection.drop(reason)
        self.count_late(Books(dropped={reason.value: 1}))

    def count_late(self, outcome: Books) -> None:
        """
        Count the outcome of one message in the books of the guard, if those of this connection were taken over.

        Args:
            outcome: What became of it.
        """
        if self._session.connection.finished and self.account is not None:
            with self._session.watch.ledger.lock:
                self.account.add(outcome)

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
        self._session.watch.ledger.count_decision(kind)
        if not number:
            session = self._session
            session.tell((PolicyApplied(session.connection_id, session.loop.time(), policy, decision, kind[2]),))

    def close(self, error: BaseException | None) -> tuple[Event, ...]:
        """
        Pass from the live connections to those that are over.

        Args:
            error: What leaves the guard.

        Returns:
            The terminal event, and what goes before it.
        """
        session, connection, account = self._session, self._session.connection, self.account
        ledger = session.watch.ledger
        self.find_route()
        self._scope = None
        if account is None:
            account = ledger.account(connection.route, self._scheme)
        with ledger.lock:
            session.watch.remove(session)
            books = self.books()
            account.add(books)
            self.account, self.over = account, books
            session.path.report_each()
            events = connection.finish(
                session.loop.time(),
                path=self._url_path,
                error_type=_name(error),
                absorbed_type=_name(session.absorbed),
                books=books,
                decisions=self.decisions,
            )
            account.denied += any(isinstance(event, Rejected) for event in events)
            account.aborted += any(isinstance(event, Abandoned) for event in events)
        return events


def _name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__qualname__
