"""The events: frozen, without payloads, and books that balance (G13)."""

from __future__ import annotations

import dataclasses

import pytest

from asgi_ws_guard import (
    Abandoned,
    Books,
    CallSite,
    Closed,
    CloseStatus,
    DropReason,
    Ended,
    Event,
    Handshake,
    Initiator,
    Opened,
    Rejected,
    Terminal,
)
from asgi_ws_guard import _events as events

SECRET = "s3cret"
HANDSHAKE = Handshake(
    path="/ws",
    query_string=f"token={SECRET}".encode(),
    headers=((b"authorization", f"Bearer {SECRET}".encode()), (b"cookie", f"session={SECRET}".encode())),
    client=("10.0.0.1", 5000),
    server=("10.0.0.2", 80),
    scheme="wss",
    http_version="1.1",
    subprotocols=("chat",),
    can_deny=True,
)


def kinds() -> list[type[Event]]:
    """List the event classes of the module."""
    found = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("kind", kinds())
def test_events_are_frozen_and_small(kind: type[Event]) -> None:
    """Every event is a frozen dataclass with slots: an observer cannot change it, and nothing can be hung onto it."""
    assert dataclasses.is_dataclass(kind)
    assert "__slots__" in vars(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    assert names[:2] == ["connection_id", "at_s"]
    event = object.__new__(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, names[-1], None)
    assert not hasattr(event, "__dict__")


@pytest.mark.parametrize("fact", [HANDSHAKE, Books(), CallSite("/a.py", 1, "f")], ids=lambda fact: type(fact).__name__)
def test_what_events_hold_is_frozen(fact: Handshake | Books | CallSite) -> None:
    """The facts inside of an event cannot be changed by an observer either."""
    for field in dataclasses.fields(fact):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(fact, field.name, None)
    assert not hasattr(fact, "__dict__")


@pytest.mark.parametrize("kind", kinds())
def test_no_event_has_room_for_a_payload(kind: type[Event]) -> None:
    """No field is named or typed like a payload, a message or a scope."""
    for field in dataclasses.fields(kind):
        assert field.name not in {"text", "data", "body", "payload", "message", "scope", "headers", "query_string"}
        assert "Any" not in str(field.type)
        assert "bytes" not in str(field.type)


@pytest.mark.parametrize("kind", [Rejected, Abandoned, Closed])
def test_the_terminal_events(kind: type[Terminal]) -> None:
    """Three classes end the story of a connection, and no class is two of them."""
    assert kind.__bases__ == (Terminal,)


def test_what_must_not_be_logged_is_hidden() -> None:
    """`repr` of an event shows neither query string nor headers nor the peer's close reason."""
    opened = Opened("id", 0.0, HANDSHAKE)
    ended = Ended("id", 0.0, 1000, SECRET, Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE)
    facts = ("id", 0.0, "/ws", None, 1000, SECRET, Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE, 0.0, 0.0, 0.0)
    rest = (None, None, Books())
    for event in (opened, ended, Closed(*facts, *rest), Abandoned(*facts, *rest), Rejected(*facts, *rest, 403)):
        assert SECRET not in repr(event)
        assert type(event).__name__ in repr(event)
    assert "/ws" in repr(opened)


def test_empty_books() -> None:
    """A connection on which nothing happened has books of zeros."""
    assert Books() == Books(received=0, sent=0, forwarded=0, failed=0, refused=0, dropped={})
    assert (Books().attempted, Books().dropped_total) == (0, 0)


def test_books_balance() -> None:
    """Attempted is the sum of the four outcomes; received and sent are no outcomes of an attempt."""
    books = Books(received=100, sent=7, forwarded=9, failed=20, refused=300, dropped={"denied": 4000, "policy": 50000})
    assert books.dropped_total == 54000
    assert books.attempted == 9 + 20 + 300 + 54000


def test_books_add_up() -> None:
    """The sum of two books has the sum of each number, and of each reason; neither of the two changes."""
    one = Books(received=1, sent=2, forwarded=3, failed=4, refused=5, dropped={"denied": 6, "policy": 7})
    two = Books(received=10, sent=20, forwarded=30, failed=40, refused=50, dropped={"policy": 70, "app_closed": 80})
    total = one + two
    assert (total.received, total.sent, total.forwarded, total.failed, total.refused) == (11, 22, 33, 44, 55)
    assert total.dropped == {"denied": 6, "policy": 77, "app_closed": 80}
    assert total.attempted == one.attempted + two.attempted
    assert one.dropped == {"denied": 6, "policy": 7}
    assert two.dropped == {"policy": 70, "app_closed": 80}


def test_the_reasons_of_a_drop_are_words() -> None:
    """The reasons are a finite set of lower-case words, fit for a metric attribute."""
    assert {str(reason) for reason in DropReason} == {
        *("client_disconnected", "app_closed", "denied", "handler_done", "transport_lost", "guard_closed", "policy"),
        *("outbox_full", "superseded"),
    }
