"""What travels between nodes: comes back as it was, and whatever else comes is refused with a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard.hub import Encoded, Publication, StreamId, Target
from asgi_ws_guard.hub._wire import Wired, pack, unpack

NAMES = st.text(min_size=1, max_size=60).filter(lambda name: max(name) < "\ud800" or min(name) > "\udfff")
TARGETS = st.one_of(
    st.just(Target("all")),
    st.builds(lambda name: Target("room", name), NAMES),
    st.builds(lambda name: Target("user", name), NAMES),
)
PAYLOADS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary())
STREAMS = st.one_of(st.none(), st.builds(StreamId, st.text(), st.integers(0, 2**53)))
WHOLE: dict[str, Any] = {"v": 1, "n": "node", "s": 1, "k": "room", "t": "a", "b": 0}


def encoded(payload: str | bytes, key: str | None = None) -> Encoded:
    """Make a message."""
    return Encoded(payload, len(payload if isinstance(payload, bytes) else payload.encode()), key)


@given(TARGETS, PAYLOADS, st.one_of(st.none(), st.text()), st.frozensets(st.text()), STREAMS)
def test_a_message_comes_back_as_it_was(
    target: Target, payload: str | bytes, key: str | None, exclude: frozenset[str], stream: StreamId | None
) -> None:
    """Text and bytes, to whomever."""
    publication = Publication(target, encoded(payload, key), exclude, stream)
    assert unpack(pack("node", 7, publication)) == Wired("node", 7, publication)


@given(st.binary())
def test_anything_else_is_refused(data: bytes) -> None:
    """Whatever it is, nothing is raised."""
    assert unpack(data) == "malformed"
    assert unpack(b"{%b}\n" % data) in ("malformed", "foreign_version")


WRONG: dict[str, list[object]] = {
    "v": [None, "1", True, -1, 1.0],
    "n": [None, 1, []],
    "s": [None, "1", -1, True],
    "k": [None, "rooms", [], 1],
    "t": [None, "", "x" * 257, 1, []],
    "b": [None, 2, "0"],
    "y": [1, []],
    "x": ["a", 1, {}],
    "e": [1, "e"],  # with no offset
}


@pytest.mark.parametrize("changed", [{name: value} for name, values in WRONG.items() for value in values])
def test_a_field_of_the_wrong_kind_is_malformed(changed: dict[str, Any]) -> None:
    """Each field for itself; the whole is none."""
    assert isinstance(unpack(json.dumps(WHOLE).encode() + b"\nx"), Wired)
    assert unpack(json.dumps({**WHOLE, **changed}).encode() + b"\nx") == "malformed"


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_missing_field_is_malformed(name: str) -> None:
    """Each of them."""
    assert unpack(json.dumps({key: value for key, value in WHOLE.items() if key != name}).encode() + b"\nx") == (
        "malformed"
    )


def test_what_is_not_a_head_is_malformed() -> None:
    """Text in no UTF-8, a head without an end or too long, a list, a deep one, no bytes at all."""
    whole = json.dumps(WHOLE).encode()
    for data in (whole + b"\n\xff", whole, b"[]\n", b"[" * 60_000 + b"\n", b" " * 70_000 + whole + b"\n", "x", None):
        assert unpack(data) == "malformed"


def test_a_foreign_version_is_told_apart() -> None:
    """Whatever else is in it."""
    assert unpack(b'{"v":2,"whatever":1}\n') == "foreign_version"
