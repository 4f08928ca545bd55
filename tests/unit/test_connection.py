"""One connection, sans-IO: every way to an end, the books, and what is refused."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import FrozenInstanceError
from types import MappingProxyType
from typing import Any, cast

import pytest

from asgi_ws_guard import (
    Abandoned,
    Accepted,
    Books,
    CloseAdjusted,
    Closed,
    CloseStatus,
    DropReason,
    Ended,
    Event,
    HandlerOutlived,
    Initiator,
    ProtocolError,
    Rejected,
    State,
    Violated,
)
from asgi_ws_guard._connection import Connection, End, Step, Verdict

ID = "00112233445566aa"
ROUTE = "/{room}"
FACTS = (ID, 110.0, "/ws", ROUTE)
OPENED_S = 100.0

CONNECT: dict[str, Any] = {"type": "websocket.connect"}
RECEIVE: dict[str, Any] = {"type": "websocket.receive", "text": "hello"}
ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
SEND: dict[str, Any] = {"type": "websocket.send", "text": "hello"}
CLOSE: dict[str, Any] = {"type": "websocket.close"}
START: dict[str, Any] = {"type": "websocket.http.response.start", "status": 429, "headers": []}
MORE: dict[str, Any] = {"type": "websocket.http.response.body", "body": b"a", "more_body": True}
LAST: dict[str, Any] = {"type": "websocket.http.response.body", "body": b"b"}


def disconnect(code: object = 1001, reason: object = "away") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def connecting(*, can_deny: bool = True) -> Connection:
    connection = Connection(ID, at_s=OPENED_S, can_deny=can_deny)
    connection.route = ROUTE
    return connection


def opened() -> Connection:
    """Give a connection that was accepted at 101 seconds."""
    connection = connecting()
    assert connection.receive(CONNECT, 100.5) == ()
    assert connection.send(ACCEPT, 101.0).verdict is Verdict.FORWARD
    return connection


def rejecting() -> Connection:
    """Give a connection whose denial began at 101 seconds."""
    connection = connecting()
    assert connection.send(START, 101.0).verdict is Verdict.FORWARD
    return connection


def ended() -> Connection:
    """Give a connection whose client left at 103 seconds."""
    connection = opened()
    connection.receive(disconnect(), 103.0)
    return connection


IN_STATE = {State.CONNECTING: connecting, State.OPEN: opened, State.REJECTING: rejecting, State.CLOSED: ended}


def snapshot(connection: Connection) -> dict[str, object]:
    """Give all that a connection knows, apart from the number of refused messages."""
    facts = {name: getattr(connection, name) for name in Connection.__slots__}
    facts["dropped"] = dict(facts["dropped"] or {})
    del facts["refused"]
    return facts


def terminal(connection: Connection, *, error_type: str | None = None, absorbed_type: str | None = None) -> Event:
    """Finish a connection at 110 seconds, prove that nothing more is told, and give the terminal event."""
    at_s = 110.0
    (event,) = connection.finish(at_s, path="/ws", error_type=error_type, absorbed_type=absorbed_type)
    assert connection.finished
    assert connection.finish(at_s, path="/ws", error_type=error_type, absorbed_type=absorbed_type) == ()
    assert connection.receive(disconnect(4000), at_s) == ()
    assert connection.end(at_s, because=DropReason.HANDLER_DONE, status=CloseStatus.SHUTDOWN, code=None) == ()
    assert connection.deny(at_s, status=CloseStatus.DENIED, response_status=500) == ()
    assert connection.send(SEND, at_s).events == ()
    return event


# --- the way to each end -------------------------------------------------------------------------


def test_a_new_connection() -> None:
    """It is connecting, nothing ended, nothing is counted, and it cannot be finished before it has ended."""
    connection = connecting()
    assert (connection.connection_id, connection.state, connection.ended) == (ID, State.CONNECTING, None)
    assert not connection.accepted
    assert not connection.disconnect_read
    assert not connection.finished
    assert connection.books == Books()
    assert connection.finish(101.0, path="/ws", error_type=None, absorbed_type=None) == ()
    assert not connection.finished


@pytest.mark.parametrize("subprotocol", [None, "chat"])
def test_an_accept(subprotocol: str | None) -> None:
    """An accept opens the connection, is told with its subprotocol, and is forwarded as it is."""
    connection = connecting()
    message = {**ACCEPT, "subprotocol": subprotocol}
    assert connection.send(message, 101.0) == Step(
        Verdict.FORWARD, message, (Accepted(ID, 101.0, subprotocol, ROUTE, 1.0),)
    )
    assert connection.state is State.OPEN
    assert connection.accepted


def test_the_connect_may_be_read_after_the_accept() -> None:
    """An application that accepts first and reads the connect later is right."""
    connection = connecting()
    connection.send(ACCEPT, 101.0)
    assert connection.receive(CONNECT, 102.0) == ()
    assert connection.state is State.OPEN


def test_the_client_disconnects() -> None:
    """The end is the client's: code and reason are its own, and the terminal event is `Closed` with all times."""
    connection = opened()
    assert connection.receive(disconnect(4321, "cya"), 103.0) == (
        Ended(ID, 103.0, 4321, "cya", Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE),
    )
    assert connection.state is State.CLOSED
    assert connection.disconnect_read
    assert connection.ended == End(103.0, DropReason.CLIENT_DISCONNECTED, CloseStatus.NORMAL_CLOSURE, 4321, "cya")
    assert terminal(connection, error_type="ValueError", absorbed_type="OSError") == Closed(
        ID,
        110.0,
        "/ws",
        ROUTE,
        4321,
        "cya",
        Initiator.CLIENT,
        CloseStatus.NORMAL_CLOSURE,
        handshake_s=1.0,
        duration_s=2.0,
        lingered_s=7.0,
        error_type="ValueError",
        absorbed_type="OSError",
        books=Books(),
    )


def test_the_application_closes() -> None:
    """The end is the application's, with its code and reason; the close goes on as it is."""
    connection = opened()
    message = {**CLOSE, "code": 4001, "reason": "done"}
    assert connection.send(message, 104.0) == Step(
        Verdict.FORWARD,
        message,
        (Ended(ID, 104.0, 4001, "done", Initiator.APPLICATION, CloseStatus.APP_CLOSE),),
    )
    assert connection.state is State.CLOSED
    assert connection.ended == End(104.0, DropReason.APP_CLOSED, CloseStatus.APP_CLOSE, 4001, "done")
    assert terminal(connection) == Closed(
        ID,
        110.0,
        "/ws",
        ROUTE,
        4001,
        "done",
        Initiator.APPLICATION,
        CloseStatus.APP_CLOSE,
        1.0,
        3.0,
        6.0,
        None,
        None,
        Books(),
    )


def test_the_application_denies_with_a_close() -> None:
    """A close before the accept denies with 403, which the server sends; code and reason are not checked there."""
    connection = connecting()
    message = {**CLOSE, "code": 1006, "reason": "x" * 200}
    assert connection.send(message, 102.0) == Step(
        Verdict.FORWARD, message, (Ended(ID, 102.0, 1006, "", Initiator.APPLICATION, CloseStatus.DENIED),)
    )
    assert not connection.accepted
    assert terminal(connection) == Rejected(
        *(
            ID,
            110.0,
            "/ws",
            ROUTE,
            1006,
            "",
            Initiator.APPLICATION,
            CloseStatus.DENIED,
            2.0,
            0.0,
            8.0,
            None,
            None,
            Books(),
        ),
        403,
    )


def test_the_application_denies_with_a_response() -> None:
    """The denial ends with its last body; the handshake took as long as the answer began, and its status is told."""
    connection = connecting()
    assert connection.send(START, 101.0) == Step(Verdict.FORWARD, START)
    assert connection.state.value == "REJECTING"
    assert connection.send(MORE, 102.0) == Step(Verdict.FORWARD, MORE)
    not_yet = connection.ended
    assert not_yet is None
    assert connection.send(LAST, 105.0) == Step(
        Verdict.FORWARD, LAST, (Ended(ID, 105.0, 1006, "", Initiator.APPLICATION, CloseStatus.DENIED),)
    )
    assert connection.state.value == "CLOSED"
    assert connection.ended == End(105.0, DropReason.DENIED, CloseStatus.DENIED, 1006, "")
    assert terminal(connection) == Rejected(
        *(
            ID,
            110.0,
            "/ws",
            ROUTE,
            1006,
            "",
            Initiator.APPLICATION,
            CloseStatus.DENIED,
            1.0,
            0.0,
            5.0,
            None,
            None,
            Books(),
        ),
        429,
    )


def test_the_client_leaves_during_the_handshake() -> None:
    """The terminal event is `Abandoned`; the handshake took until the client left."""
    connection = connecting()
    connection.receive(CONNECT, 100.5)
    assert connection.receive(disconnect(1006, ""), 104.0) == (
        Ended(ID, 104.0, 1006, "", Initiator.CLIENT, CloseStatus.GOING_AWAY),
    )
    assert terminal(connection) == Abandoned(
        ID, 110.0, "/ws", ROUTE, 1006, "", Initiator.CLIENT, CloseStatus.GOING_AWAY, 4.0, 0.0, 6.0, None, None, Books()
    )


def test_the_client_leaves_during_a_denial() -> None:
    """A denial that the client did not wait for is `Abandoned`, with the time of the answer's beginning."""
    connection = rejecting()
    connection.receive(CONNECT, 102.0)
    connection.receive(disconnect(), 104.0)
    assert terminal(connection) == Abandoned(
        ID,
        110.0,
        "/ws",
        ROUTE,
        1001,
        "away",
        Initiator.CLIENT,
        CloseStatus.GOING_AWAY,
        1.0,
        0.0,
        6.0,
        None,
        None,
        Books(),
    )


@pytest.mark.parametrize(
    ("because", "initiator"),
    [
        (DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT),
        (DropReason.APP_CLOSED, Initiator.APPLICATION),
        (DropReason.DENIED, Initiator.APPLICATION),
        (DropReason.HANDLER_DONE, Initiator.APPLICATION),
        (DropReason.TRANSPORT_LOST, Initiator.TRANSPORT),
        (DropReason.GUARD_CLOSED, Initiator.GUARD),
    ],
)
def test_an_end_from_outside(because: DropReason, initiator: Initiator) -> None:
    """`end` tells who ended it, by the reason; a second one tells and changes nothing."""
    connection = opened()
    events = connection.end(103.0, because=because, status=CloseStatus.TIMEOUT, code=1013, reason="slow")
    assert events == (Ended(ID, 103.0, 1013, "slow", initiator, CloseStatus.TIMEOUT),)
    assert connection.state is State.CLOSED
    assert connection.ended == End(103.0, because, CloseStatus.TIMEOUT, 1013, "slow")
    before = snapshot(connection)
    assert connection.end(104.0, because=DropReason.HANDLER_DONE, status=CloseStatus.APP_ERROR, code=None) == ()
    assert snapshot(connection) == before
    event = terminal(connection)
    assert isinstance(event, Closed)
    assert (event.initiator, event.status, event.code, event.reason) == (initiator, CloseStatus.TIMEOUT, 1013, "slow")


def test_a_handler_that_outlives_its_connection() -> None:
    """What is told of it is what the terminal event would say; nothing is told before the end and after that event."""
    connection = opened()
    assert connection.outlive(105.0, Books()) == ()
    connection.receive(disconnect(4321, "cya"), 103.0)
    books = Books(sent=3)
    assert connection.outlive(105.0, books) == (
        HandlerOutlived(
            *(ID, 105.0, ROUTE, 4321, "cya", Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE), True, 2.0, 2.0, books
        ),
    )
    terminal(connection)
    assert connection.outlive(111.0, books) == ()


def test_a_handler_that_answers_no_handshake() -> None:
    """It is `Rejected` without a status: the guard leaves the answer to the server and does not know it."""
    connection = connecting()
    connection.end(103.0, because=DropReason.HANDLER_DONE, status=CloseStatus.APP_ERROR, code=None)
    assert terminal(connection) == Rejected(
        *(
            ID,
            110.0,
            "/ws",
            ROUTE,
            None,
            "",
            Initiator.APPLICATION,
            CloseStatus.APP_ERROR,
            3.0,
            0.0,
            7.0,
            None,
            None,
            Books(),
        ),
        None,
    )


def test_a_transport_lost_during_the_handshake() -> None:
    """It is `Abandoned`: nobody was there to be rejected."""
    connection = connecting()
    connection.end(103.0, because=DropReason.TRANSPORT_LOST, status=CloseStatus.TRANSPORT_ERROR, code=1006)
    assert isinstance(terminal(connection), Abandoned)


def test_the_guard_denies() -> None:
    """A policy's denial is the guard's, with its class and HTTP status."""
    connection = connecting()
    assert connection.deny(102.0, status=CloseStatus.RATE_LIMITED, response_status=503) == (
        Ended(ID, 102.0, 1006, "", Initiator.GUARD, CloseStatus.RATE_LIMITED),
    )
    assert connection.state is State.CLOSED
    assert terminal(connection) == Rejected(
        *(
            ID,
            110.0,
            "/ws",
            ROUTE,
            1006,
            "",
            Initiator.GUARD,
            CloseStatus.RATE_LIMITED,
            2.0,
            0.0,
            8.0,
            None,
            None,
            Books(),
        ),
        503,
    )


def test_a_denial_after_the_end_changes_nothing() -> None:
    """What the application answered stays in the terminal event: a late denial tells and changes nothing."""
    connection = connecting()
    connection.send(CLOSE, 102.0)
    before = snapshot(connection)
    assert connection.deny(103.0, status=CloseStatus.UNAUTHORIZED, response_status=401) == ()
    assert snapshot(connection) == before


def test_the_server_restarts() -> None:
    """1012 is the server's own goodbye: a shutdown by the transport, and a later disconnect does not change it."""
    connection = opened()
    assert connection.receive(disconnect(1012, "restart"), 103.0) == (
        Ended(ID, 103.0, 1012, "restart", Initiator.TRANSPORT, CloseStatus.SHUTDOWN),
    )
    before = snapshot(connection)
    assert connection.receive(disconnect(1001, "other"), 104.0) == ()
    assert snapshot(connection) == before
    assert isinstance(terminal(connection), Closed)


# --- the first end stays -------------------------------------------------------------------------


def test_a_disconnect_after_the_own_close_changes_nothing() -> None:
    """Servers report the application's own close with a code of their taste: the end stays the application's."""
    connection = opened()
    connection.send({**CLOSE, "code": 4001}, 103.0)
    end = connection.ended
    assert connection.receive(disconnect(1005, ""), 104.0) == ()
    assert connection.ended is end
    assert connection.disconnect_read


def test_a_second_disconnect_changes_nothing() -> None:
    """The first disconnect stays, whatever the server repeats (uvicorn: 1005 for ever)."""
    connection = ended()
    before = snapshot(connection)
    assert connection.receive(disconnect(1005, ""), 104.0) == ()
    assert connection.receive(disconnect(1011, "x"), 105.0) == ()
    assert snapshot(connection) == before


def lost() -> Connection:
    """Give a connection at which a send failed at 103 seconds."""
    connection = opened()
    connection.end(103.0, because=DropReason.TRANSPORT_LOST, status=CloseStatus.TRANSPORT_ERROR, code=1006)
    return connection


@pytest.mark.parametrize(
    ("code", "because", "initiator", "status"),
    [
        (1000, DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE),
        (1001, DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT, CloseStatus.GOING_AWAY),
        (1002, DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT, CloseStatus.PROTOCOL_ERROR),
        (4321, DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE),
        (1012, DropReason.TRANSPORT_LOST, Initiator.TRANSPORT, CloseStatus.SHUTDOWN),
        (1005, DropReason.TRANSPORT_LOST, Initiator.TRANSPORT, CloseStatus.TRANSPORT_ERROR),
        (1006, DropReason.TRANSPORT_LOST, Initiator.TRANSPORT, CloseStatus.TRANSPORT_ERROR),
    ],
)
def test_a_lost_transport_is_explained(
    code: int, because: DropReason, initiator: Initiator, status: CloseStatus
) -> None:
    """A disconnect read after a failed send says what had happened; 1005 and 1006 tell the code, but no cause."""
    connection = lost()
    assert connection.receive(disconnect(code, "why"), 105.0) == ()
    assert connection.ended == End(103.0, because, status, code, "why")
    event = terminal(connection)
    assert isinstance(event, Closed)
    assert (event.code, event.reason, event.initiator, event.status) == (code, "why", initiator, status)
    assert (event.duration_s, event.lingered_s) == (2.0, 7.0)


def test_only_the_first_disconnect_explains() -> None:
    """What the server repeats later explains nothing, also when the first one told no cause."""
    connection = lost()
    connection.receive(disconnect(1006, ""), 104.0)
    end = connection.ended
    connection.receive(disconnect(1000, "bye"), 105.0)
    assert connection.ended is end


@pytest.mark.parametrize(
    "because", [DropReason.APP_CLOSED, DropReason.GUARD_CLOSED, DropReason.HANDLER_DONE, DropReason.DENIED]
)
def test_only_a_lost_transport_is_explained(because: DropReason) -> None:
    """Every other end has a cause already."""
    connection = opened()
    connection.end(103.0, because=because, status=CloseStatus.APP_ERROR, code=1011)
    end = connection.ended
    connection.receive(disconnect(1001), 104.0)
    assert connection.ended is end


# --- disconnects as servers give them ------------------------------------------------------------


class Foreign(enum.IntEnum):
    """Close codes of somebody else."""

    AWAY = 1001
    BROKEN = 1006
    MINE = 4321


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1005, ""),
        ({"code": None, "reason": None}, 1005, ""),
        ({"code": "1001", "reason": b"x"}, 1005, ""),
        ({"code": 1001.0}, 1005, ""),
        ({"code": 1000, "reason": 5}, 1000, ""),
        ({"code": Foreign.MINE, "reason": "r"}, 4321, "r"),
    ],
)
def test_a_disconnect_without_sense(message: dict[str, Any], code: int, reason: str) -> None:
    """A disconnect without a code is 1005, without a reason empty: it is never refused, and the code a plain int."""
    connection = opened()
    (event,) = connection.receive({"type": "websocket.disconnect", **message}, 103.0)
    assert isinstance(event, Ended)
    assert (event.code, event.reason, event.initiator) == (code, reason, Initiator.CLIENT)
    assert type(event.code) is int
    assert connection.ended is not None
    assert type(connection.ended.code) is int


# --- legal closes (G12) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (1005, 1000),
        (1006, 1011),
        (1015, 1011),
        (1004, 1011),
        (1016, 1011),
        (999, 1011),
        (0, 1011),
        (-1, 1011),
        (2999, 1011),
        (5000, 1011),
        (70000, 1011),
        (Foreign.BROKEN, 1011),
    ],
)
def test_an_illegal_code_is_replaced(asked: int, code: int) -> None:
    """It is adjusted, that is told before the end, and the server sees and the events tell the legal one."""
    connection = opened()
    message = {**CLOSE, "code": asked, "reason": "r", "extra": 1}
    step = connection.send(message, 104.0)
    assert step.verdict is Verdict.FORWARD
    assert step.message == {**CLOSE, "code": code, "reason": "r", "extra": 1}
    assert step.events == (
        CloseAdjusted(ID, 104.0, int(asked), code, reason_cut=False),
        Ended(ID, 104.0, code, "r", Initiator.APPLICATION, CloseStatus.APP_CLOSE),
    )
    adjusted = step.events[0]
    assert isinstance(adjusted, CloseAdjusted)
    assert type(adjusted.asked_code) is int
    assert type(adjusted.code) is type(step.message["code"]) is int
    assert message["code"] is asked


@pytest.mark.parametrize(
    ("asked", "reason"),
    [("x" * 124, "x" * 123), ("a" + "€" * 41, "a" + "€" * 40), ("a\ud800", "a?")],
)
def test_a_long_reason_is_cut(asked: str, reason: str) -> None:
    """It is cut to 123 bytes between two characters, which is told; the code stays."""
    connection = opened()
    message = {**CLOSE, "code": 3000, "reason": asked}
    step = connection.send(message, 104.0)
    assert step.message == {**CLOSE, "code": 3000, "reason": reason}
    assert step.events == (
        CloseAdjusted(ID, 104.0, 3000, 3000, reason_cut=True),
        Ended(ID, 104.0, 3000, reason, Initiator.APPLICATION, CloseStatus.APP_CLOSE),
    )
    assert message["reason"] == asked


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"code": 1000, "reason": ""}, 1000, ""),
        ({"code": 1001}, 1001, ""),
        ({"reason": "r"}, 1000, "r"),
        ({"code": Foreign.AWAY}, 1001, ""),
        ({"code": 4999, "reason": "x" * 123}, 4999, "x" * 123),
        ({"code": 1014, "reason": "é" * 61}, 1014, "é" * 61),
    ],
)
def test_a_legal_close_is_not_touched(content: dict[str, Any], code: int, reason: str) -> None:
    """It goes on as the same object, with no word about an adjustment; no code is 1000, as ASGI says."""
    connection = opened()
    message = {**CLOSE, **content}
    step = connection.send(message, 104.0)
    assert step.message is message
    assert step.events == (Ended(ID, 104.0, code, reason, Initiator.APPLICATION, CloseStatus.APP_CLOSE),)
    event = step.events[0]
    assert isinstance(event, Ended)
    assert type(event.code) is int


# --- payloads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [bytearray(b"\x00ab"), memoryview(b"\x00ab"), memoryview(b"\x000a1b2")[::2]])
def test_buffers_become_bytes(data: bytearray | memoryview) -> None:
    """Servers take `bytes` alone: a bytearray or memoryview is copied, so that a later change cannot reach the wire."""
    connection = opened()
    message = {"type": "websocket.send", "bytes": data, "text": None}
    step = connection.send(message, 102.0)
    assert step == Step(Verdict.FORWARD, {"type": "websocket.send", "bytes": b"\x00ab", "text": None})
    assert type(step.message["bytes"]) is bytes
    assert message["bytes"] is data


@pytest.mark.parametrize("payload", [{"text": "x"}, {"bytes": b"x"}, {"text": "", "bytes": None}])
def test_ordinary_payloads_are_not_touched(payload: dict[str, Any]) -> None:
    """An ordinary message goes on as the same object, and nothing is told."""
    connection = opened()
    message = {"type": "websocket.send", **payload}
    step = connection.send(message, 102.0)
    assert step.message is message
    assert (step.verdict, step.events, step.error) == (Verdict.FORWARD, (), None)


# --- misuse (G7) ---------------------------------------------------------------------------------

MALFORMED: list[tuple[object, str | None, str]] = [
    # message, the type that it names, what the text says
    (None, None, "a message without a type"),
    ("websocket.send", None, "a message without a type"),
    (b"websocket.send", None, "a message without a type"),
    (["type", "websocket.send"], None, "a message without a type"),
    (42, None, "a message without a type"),
    ({}, None, "a message without a type"),
    ({"text": "x"}, None, "a message without a type"),
    ({"type": None}, None, "a message without a type"),
    ({"type": 5}, None, "a message without a type"),
    ({"type": b"websocket.send"}, None, "a message without a type"),
    ({"type": ["websocket.send"]}, None, "a message without a type"),
    ({"type": {}}, None, "a message without a type"),
    ({"type": ""}, "", "''"),
    ({"type": "websocket.ping"}, "websocket.ping", "'websocket.ping'"),
    ({"type": "websocket.connect"}, "websocket.connect", "'websocket.connect'"),
    ({"type": "websocket.receive"}, "websocket.receive", "'websocket.receive'"),
    ({"type": "websocket.disconnect"}, "websocket.disconnect", "'websocket.disconnect'"),
    ({"type": "http.response.start", "status": 200}, "http.response.start", "'http.response.start'"),
    ({"type": "a\nb"}, "a\nb", "'a\\nb'"),
]
ALLOWED = {
    State.CONNECTING: ("websocket.accept", "websocket.close", "websocket.http.response.start"),
    State.OPEN: ("websocket.close", "websocket.send"),
    State.REJECTING: ("websocket.http.response.body",),
    State.CLOSED: (),
}


def refused(connection: Connection, message: object, message_type: str | None, says: str) -> None:
    """Prove that *message* is refused, named, counted, and changes nothing else."""
    before, count, state = snapshot(connection), connection.refused, connection.state
    step = connection.send(cast(Any, message), 105.0)
    assert step.verdict is Verdict.REFUSE
    assert step.message is message
    error = step.error
    assert isinstance(error, ProtocolError)
    allowed = tuple(kind for kind in ALLOWED[state] if connection.can_deny or "http" not in kind)
    assert (error.state, error.message_type, error.allowed) == (state.value, message_type, allowed)
    assert f"the application sent {says}" in str(error)
    assert f"(state {state.value}; allowed now: {', '.join(allowed) or 'nothing'})" in str(error)
    assert step.events == (Violated(ID, 105.0, state.value, message_type, f"the application sent {says}"),)
    assert snapshot(connection) == before
    assert connection.refused == count + 1
    assert connection.books.refused == connection.books.attempted == count + 1


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("message", "message_type", "says"), MALFORMED)
def test_a_message_that_is_none(state: State, message: object, message_type: str | None, says: str) -> None:
    """What no application may ever send is refused in every state, before and after the end."""
    refused(IN_STATE[state](), message, message_type, says)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (State.CONNECTING, SEND),
        (State.CONNECTING, LAST),
        (State.CONNECTING, MORE),
        (State.OPEN, ACCEPT),
        (State.OPEN, START),
        (State.OPEN, LAST),
        (State.REJECTING, ACCEPT),
        (State.REJECTING, SEND),
        (State.REJECTING, CLOSE),
        (State.REJECTING, START),
    ],
)
def test_a_message_in_the_wrong_state(state: State, message: dict[str, Any]) -> None:
    """What is not allowed now is refused before the server hears of it, and may be tried again later."""
    refused(IN_STATE[state](), message, message["type"], message["type"])


@pytest.mark.parametrize("message", [START, LAST, MORE])
def test_a_denial_response_that_the_server_cannot_send(message: dict[str, Any]) -> None:
    """Without the extension (daphne 4.2) a denial response is refused and not offered; a close still denies."""
    connection = connecting(can_deny=False)
    refused(connection, message, message["type"], message["type"])
    assert connection.send(CLOSE, 106.0).verdict is Verdict.FORWARD
    event = terminal(connection)
    assert isinstance(event, Rejected)
    assert event.response_status == 403


@pytest.mark.parametrize(
    ("state", "message", "fault"),
    [
        (State.OPEN, {"type": "websocket.send"}, "with neither 'text' nor 'bytes'"),
        (State.OPEN, {"type": "websocket.send", "text": "s3cret", "bytes": b"s3cret"}, "with both 'text' and 'bytes'"),
        (State.OPEN, {"type": "websocket.send", "text": b"s3cret"}, "whose 'text' is bytes, not str"),
        (State.OPEN, {"type": "websocket.send", "bytes": "s3cret"}, "whose 'bytes' is str, not bytes"),
        (State.OPEN, {"type": "websocket.close", "code": "1000"}, "whose 'code' is str, not int"),
        (State.OPEN, {"type": "websocket.close", "code": True}, "whose 'code' is bool, not int"),
        (State.OPEN, {"type": "websocket.close", "reason": b"s3cret"}, "whose 'reason' is bytes, not str"),
        (State.CONNECTING, {"type": "websocket.close", "code": 1.5}, "whose 'code' is float, not int"),
        (State.CONNECTING, {"type": "websocket.accept", "subprotocol": b"x"}, "whose 'subprotocol' is bytes, not str"),
    ],
)
def test_a_message_with_the_wrong_content(state: State, message: dict[str, Any], fault: str) -> None:
    """A wrong content is refused by name, the content itself is nowhere, and the right message goes on afterwards."""
    connection = IN_STATE[state]()
    refused(connection, message, message["type"], f"{message['type']} {fault}")
    step = connection.send(message, 105.0)
    assert "s3cret" not in repr((step.error, step.events))
    assert connection.send(CLOSE, 106.0).verdict is Verdict.FORWARD


@pytest.mark.parametrize("wrap", [OrderedDict, MappingProxyType])
def test_a_message_may_be_any_mapping(wrap: Any) -> None:
    """A mapping that is no dict is a message too."""
    connection = connecting()
    assert connection.send(wrap(ACCEPT), 101.0).verdict is Verdict.FORWARD
    assert connection.send(wrap({"type": "websocket.send", "bytes": bytearray(b"x")}), 101.0).message["bytes"] == b"x"
    (event,) = connection.receive(wrap(disconnect()), 102.0)
    assert isinstance(event, Ended)


@pytest.mark.parametrize("message", [ACCEPT, SEND, CLOSE, START, MORE, LAST, {"type": "websocket.send"}])
@pytest.mark.parametrize("finished", [False, True])
def test_late_messages_are_dropped(message: dict[str, Any], *, finished: bool) -> None:
    """After the end, what may ordinarily be sent is dropped whatever its content, nothing is told, nothing changes."""
    connection = ended()
    if finished:
        terminal(connection)
    before = snapshot(connection)
    assert connection.send(message, 105.0) == Step(Verdict.DROP, message)
    assert snapshot(connection) == before
    assert connection.refused == 0


def test_nothing_follows_the_terminal_event() -> None:
    """A message that is refused after the terminal event is refused still, but it is no part of the story any more."""
    connection = ended()
    terminal(connection)
    step = connection.send({"type": "websocket.ping"}, 111.0)
    assert step.verdict is Verdict.REFUSE
    assert isinstance(step.error, ProtocolError)
    assert step.events == ()


# --- what the server may not deliver -------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(
    ("message", "message_type"),
    [
        (None, None),
        ("websocket.receive", None),
        ([], None),
        ({}, None),
        ({"type": None}, None),
        ({"type": 7}, None),
        ({"type": ["websocket.receive"]}, None),
        ({"type": "websocket.ping"}, "websocket.ping"),
        ({"type": "websocket.send", "text": "x"}, "websocket.send"),
        ({"type": "websocket.accept"}, "websocket.accept"),
        ({"type": "http.disconnect"}, "http.disconnect"),
    ],
)
def test_a_malformed_message_of_the_server(state: State, message: object, message_type: str | None) -> None:
    """It raises `ProtocolError` that names the server, the state and what it may deliver, and changes nothing."""
    connection = IN_STATE[state]()
    before = snapshot(connection)
    with pytest.raises(ProtocolError) as caught:
        connection.receive(cast(Any, message), 105.0)
    error = caught.value
    assert (error.state, error.message_type) == (state.value, message_type)
    receive = () if state in (State.CONNECTING, State.REJECTING) else ("websocket.receive",)
    assert error.allowed == ("websocket.connect", "websocket.disconnect", *receive)
    assert f"the server delivered {message_type or 'a message without a type'} (state" in str(error)
    assert snapshot(connection) == before
    assert connection.refused == 0


@pytest.mark.parametrize("state", [State.CONNECTING, State.REJECTING])
def test_a_message_before_the_accept(state: State) -> None:
    """A server that delivers a message before the accept broke the protocol; the message is not counted."""
    connection = IN_STATE[state]()
    before = snapshot(connection)
    with pytest.raises(ProtocolError) as caught:
        connection.receive(RECEIVE, 102.0)
    assert (caught.value.state, caught.value.message_type) == (state.value, "websocket.receive")
    assert snapshot(connection) == before


# --- the books (G13) -----------------------------------------------------------------------------


def test_the_books() -> None:
    """Every number of the books is counted where it happens, and the terminal event carries them."""
    connection = opened()
    connection.answers += 1  # the accept
    for _ in range(3):
        assert connection.receive(RECEIVE, 102.0) == ()
    connection.sent += 2
    connection.failed += 1
    connection.send({"type": "websocket.ping"}, 102.0)
    connection.drop(DropReason.POLICY)
    connection.receive(disconnect(), 103.0)
    connection.receive(RECEIVE, 103.0)  # what had arrived before
    connection.drop(DropReason.CLIENT_DISCONNECTED)
    connection.drop(DropReason.CLIENT_DISCONNECTED)
    expected = Books(
        received=4,
        sent=2,
        forwarded=3,
        failed=1,
        refused=1,
        dropped={"policy": 1, "client_disconnected": 2},
    )
    assert connection.books == expected
    assert connection.books.attempted == 8
    event = terminal(connection)
    assert isinstance(event, Closed)
    assert event.books == expected


def test_books_are_a_copy() -> None:
    """Books that were given out do not change with the connection."""
    connection = ended()
    connection.drop(DropReason.CLIENT_DISCONNECTED)
    books = connection.books
    connection.drop(DropReason.CLIENT_DISCONNECTED)
    assert books.dropped == {"client_disconnected": 1}
    assert connection.books.dropped == {"client_disconnected": 2}


def test_steps_and_ends_are_frozen() -> None:
    """What a connection answered cannot be changed afterwards."""
    connection = opened()
    step = connection.send(CLOSE, 102.0)
    assert connection.ended is not None
    with pytest.raises(FrozenInstanceError):
        step.verdict = Verdict.DROP  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        connection.ended.code = 1  # type: ignore[misc]


def test_two_connections_share_nothing() -> None:
    """What one connection drops is not in the books of another."""
    one, two = connecting(), connecting()
    one.drop(DropReason.POLICY)
    assert one.books.dropped == {"policy": 1}
    assert two.books.dropped == {}
