"""
What the ledger of a guard says to each instrument: values and their labels.

Pure: a tally in, numbers out. It knows no instrument and adds nothing up; `metrics.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..._events import DropReason
from ..._plugin import OVERFLOW, Tally
from . import attributes as names
from . import describe

Labels = dict[str, Any]
Values = Iterable[tuple[int, Labels]]
"""Values to add to what other tallies say under the same labels."""


def decided(kind: tuple[str, str, str]) -> Labels:
    """Give the labels of a policy's decision: policy, decision, reason."""
    policy, decision, reason = kind
    labels: Labels = {names.DECISION: decision}
    for name, word in ((names.POLICY, policy), (names.DECISION_REASON, reason)):
        labels |= {names.OVERFLOW: True} if word == OVERFLOW else {name: names.safe(word)}
    return labels


def active(tally: Tally) -> Values:
    """Give the open connections."""
    yield tally.active, {**_route(tally), names.URL_SCHEME: tally.scheme}


def zombies(tally: Tally) -> Values:
    """Give the handlers that outlived their connection."""
    yield tally.zombies, _route(tally)


def connections(tally: Tally) -> Values:
    """Give the opening handshakes, by result."""
    for result in (names.ACCEPTED, names.DENIED, names.ABORTED):
        yield getattr(tally, result), {**_route(tally), names.CONNECTION_RESULT: result}


def messages(tally: Tally) -> Values:
    """Give messages by type; those of connections whose messages were not measured have none."""
    books = tally.books
    for direction, texts, binaries, untyped in (
        (names.RECEIVE, books.received_texts, books.received_binaries, tally.received_untyped),
        (names.TRANSMIT, books.sent_texts, books.sent_binaries, tally.sent_untyped),
    ):
        labels = {**_route(tally), names.IO_DIRECTION: direction}
        yield texts, {**labels, names.MESSAGE_TYPE: "text"}
        yield binaries, {**labels, names.MESSAGE_TYPE: "binary"}
        if untyped:
            yield untyped, labels


def io(tally: Tally) -> Values:
    """Give the bytes of payload, by direction."""
    yield tally.books.received_bytes, {**_route(tally), names.IO_DIRECTION: names.RECEIVE}
    yield tally.books.sent_bytes, {**_route(tally), names.IO_DIRECTION: names.TRANSMIT}


def sends(tally: Tally) -> Values:
    """Give every outcome from the first connection on, also at 0: a rate misses the step to the first value."""
    books = tally.books
    counts: Mapping[str, int] = {"forwarded": books.forwarded, "failed": books.failed, "refused": books.refused}
    for result, number in counts.items():
        yield number, {**_route(tally), names.SEND_RESULT: result}
    for reason in DropReason:
        labels = {names.SEND_RESULT: "dropped", names.SEND_REASON: reason.value}
        yield books.dropped.get(reason.value, 0), {**_route(tally), **labels}


def _route(tally: Tally) -> Labels:
    return {names.OVERFLOW: True} if tally.route == OVERFLOW else describe.route(tally.route)
