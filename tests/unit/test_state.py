"""The two tables of the state machine, cell by cell, and the rules that no table can hold (G7)."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ws_guard import State
from asgi_ws_guard._state import (
    DENIAL_EXTENSION,
    ON_RECEIVE,
    ON_SEND,
    SENDABLE,
    after_send,
    allowed_now,
    payload_fault,
)

CONNECT = "websocket.connect"
RECEIVE = "websocket.receive"
DISCONNECT = "websocket.disconnect"
ACCEPT = "websocket.accept"
SEND = "websocket.send"
CLOSE = "websocket.close"
START = "websocket.http.response.start"
BODY = "websocket.http.response.body"
UNKNOWN = (
    *("", "websocket", "websocket.", "websocket.ping", "WEBSOCKET.SEND", "websocket.send ", "websocket.http.response"),
    *("http.request", "http.response.start", "http.response.body", "http.disconnect", "lifespan.startup"),
)
TYPES = (CONNECT, RECEIVE, DISCONNECT, ACCEPT, SEND, CLOSE, START, BODY, *UNKNOWN)

MAY_DELIVER = {
    # state        message type   the state after it
    ("CONNECTING", CONNECT): "CONNECTING",
    ("CONNECTING", DISCONNECT): "CLOSED",
    ("OPEN", CONNECT): "OPEN",
    ("OPEN", RECEIVE): "OPEN",
    ("OPEN", DISCONNECT): "CLOSED",
    ("REJECTING", CONNECT): "REJECTING",
    ("REJECTING", DISCONNECT): "CLOSED",
    ("CLOSED", CONNECT): "CLOSED",
    ("CLOSED", RECEIVE): "CLOSED",
    ("CLOSED", DISCONNECT): "CLOSED",
}
MAY_SEND = {
    # state        message type  the state after it
    ("CONNECTING", ACCEPT): "OPEN",
    ("CONNECTING", CLOSE): "CLOSED",
    ("CONNECTING", START): "REJECTING",
    ("OPEN", SEND): "OPEN",
    ("OPEN", CLOSE): "CLOSED",
    ("REJECTING", BODY): "CLOSED",  # without more_body
}
STATES = ("CONNECTING", "OPEN", "REJECTING", "CLOSED")
CELLS = [(state, message_type) for state in STATES for message_type in TYPES]


def test_there_are_four_states() -> None:
    """There is no CLOSING: the closing handshake belongs to the server."""
    assert [state.value for state in State] == [state.name for state in State] == list(STATES)


@pytest.mark.parametrize(("state", "message_type"), CELLS)
def test_what_the_server_may_deliver(state: str, message_type: str) -> None:
    """Every cell of the receiving table is as written here; what is not written here has no cell."""
    following = ON_RECEIVE[State(state)].get(message_type)
    assert (following.value if following else None) == MAY_DELIVER.get((state, message_type))


@pytest.mark.parametrize(("state", "message_type"), CELLS)
def test_what_the_application_may_send(state: str, message_type: str) -> None:
    """Every cell of the sending table is as written here; what is not written here is not allowed."""
    following = after_send(State(state), {"type": message_type}, can_deny=True)
    assert (following.value if following else None) == MAY_SEND.get((state, message_type))


@pytest.mark.parametrize(("state", "message_type"), CELLS)
def test_what_may_be_sent_without_the_denial_extension(state: str, message_type: str) -> None:
    """On a server without the extension (daphne 4.2) the denial response is not allowed; nothing else changes."""
    following = after_send(State(state), {"type": message_type}, can_deny=False)
    expected = None if message_type in (START, BODY) else MAY_SEND.get((state, message_type))
    assert (following.value if following else None) == expected


def test_the_tables_have_no_cell_of_an_unknown_type() -> None:
    """The tables hold the cells above and no other."""
    received = {(state.value, kind) for state, row in ON_RECEIVE.items() for kind in row}
    sent = {(state.value, kind) for state, row in ON_SEND.items() for kind in row}
    assert received == set(MAY_DELIVER)
    assert sent == set(MAY_SEND)


@pytest.mark.parametrize(
    ("more_body", "after"),
    [
        ({}, "CLOSED"),
        ({"more_body": False}, "CLOSED"),
        ({"more_body": None}, "CLOSED"),
        ({"more_body": True}, "REJECTING"),
    ],
)
def test_a_denial_ends_with_its_last_body(more_body: dict[str, Any], after: str) -> None:
    """The denial response goes on while a body says ``more_body``, and ends with the first that does not."""
    following = after_send(State.REJECTING, {"type": BODY, **more_body}, can_deny=True)
    assert following is State(after)


def test_more_body_at_the_start_ends_nothing() -> None:
    """``more_body`` belongs to the body: a start always leaves the denial unfinished."""
    for start in ({"type": START}, {"type": START, "more_body": False}, {"type": START, "more_body": True}):
        assert after_send(State.CONNECTING, start, can_deny=True) is State.REJECTING


@pytest.mark.parametrize(
    ("state", "with_denial", "without"),
    [
        ("CONNECTING", (ACCEPT, CLOSE, START), (ACCEPT, CLOSE)),
        ("OPEN", (CLOSE, SEND), (CLOSE, SEND)),
        ("REJECTING", (BODY,), ()),
        ("CLOSED", (), ()),
    ],
)
def test_what_is_allowed_is_listed(state: str, with_denial: tuple[str, ...], without: tuple[str, ...]) -> None:
    """The list for error texts is sorted, and offers a denial response only where the server can send one."""
    assert allowed_now(State(state), can_deny=True) == with_denial
    assert allowed_now(State(state), can_deny=False) == without


def test_what_is_dropped_after_the_end() -> None:
    """Late are the messages that may be sent in some state; the extension has its name of the specification."""
    assert {ACCEPT, SEND, CLOSE, START, BODY} == SENDABLE
    assert DENIAL_EXTENSION == "websocket.http.response"


SECRET = "s3cret-payload"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"type": SEND, "text": ""}, None),
        ({"type": SEND, "text": SECRET}, None),
        ({"type": SEND, "text": SECRET, "bytes": None}, None),
        ({"type": SEND, "bytes": b""}, None),
        ({"type": SEND, "text": None, "bytes": b"x"}, None),
        ({"type": SEND, "bytes": bytearray(b"x")}, None),
        ({"type": SEND, "bytes": memoryview(b"x")}, None),
        ({"type": SEND, "text": SECRET, "bytes": b"x"}, "websocket.send with both 'text' and 'bytes'"),
        ({"type": SEND, "text": "", "bytes": b""}, "websocket.send with both 'text' and 'bytes'"),
        ({"type": SEND}, "websocket.send with neither 'text' nor 'bytes'"),
        ({"type": SEND, "text": None, "bytes": None}, "websocket.send with neither 'text' nor 'bytes'"),
        ({"type": SEND, "text": SECRET.encode()}, "websocket.send whose 'text' is bytes, not str"),
        ({"type": SEND, "text": {"secret": SECRET}}, "websocket.send whose 'text' is dict, not str"),
        ({"type": SEND, "text": 0}, "websocket.send whose 'text' is int, not str"),
        ({"type": SEND, "bytes": SECRET}, "websocket.send whose 'bytes' is str, not bytes"),
        ({"type": SEND, "bytes": [1, 2]}, "websocket.send whose 'bytes' is list, not bytes"),
        ({"type": SEND, "bytes": 0}, "websocket.send whose 'bytes' is int, not bytes"),
        ({"type": CLOSE}, None),
        ({"type": CLOSE, "code": None, "reason": None}, None),
        ({"type": CLOSE, "code": 1001, "reason": SECRET}, None),
        ({"type": CLOSE, "code": "1001"}, "websocket.close whose 'code' is str, not int"),
        ({"type": CLOSE, "code": 1001.0}, "websocket.close whose 'code' is float, not int"),
        ({"type": CLOSE, "code": True}, "websocket.close whose 'code' is bool, not int"),
        ({"type": CLOSE, "reason": SECRET.encode()}, "websocket.close whose 'reason' is bytes, not str"),
        ({"type": CLOSE, "code": "x", "reason": 1}, "websocket.close whose 'code' is str, not int"),
        ({"type": ACCEPT}, None),
        ({"type": ACCEPT, "subprotocol": None}, None),
        ({"type": ACCEPT, "subprotocol": "chat"}, None),
        ({"type": ACCEPT, "subprotocol": b"chat"}, "websocket.accept whose 'subprotocol' is bytes, not str"),
        ({"type": ACCEPT, "subprotocol": ["chat"]}, "websocket.accept whose 'subprotocol' is list, not str"),
        ({"type": START, "status": 403, "headers": []}, None),
        ({"type": BODY}, None),
        ({"type": BODY, "body": b"no", "more_body": True}, None),
    ],
)
def test_the_content_of_a_message(message: dict[str, Any], fault: str | None) -> None:
    """A fault names the key and its type and never the value; what the specification allows has none."""
    assert payload_fault(message) == fault


@pytest.mark.parametrize(
    "message",
    [
        {"type": START},
        {"type": START, "status": None},
        {"type": START, "status": "403"},
        {"type": START, "status": True},
        {"type": BODY, "body": SECRET},
        {"type": BODY, "body": 5},
    ],
)
def test_the_content_of_a_denial(message: dict[str, Any]) -> None:
    """A denial whose status is no number, or whose body is no bytes, is refused here as on every server (G7)."""
    fault = payload_fault(message)
    assert fault is not None
    assert fault.startswith(message["type"])
    assert SECRET not in fault
