"""
Random messages from both directions, against a plain model of a connection.

The model is written from the two tables and the sentences of the contract, not from the code. What a message is worth
(whether its content is right, what goes out in its place) stands beside it in a literal table, so that the model
decides by state alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

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
    Initiator,
    ProtocolError,
    Rejected,
    Terminal,
    Violated,
)
from asgi_ws_guard._connection import Connection, Verdict
from asgi_ws_guard._events import EARLY_DROPS

ID = "0123456789abcdef"
PATH = "/ws"
ROUTE = "/{room}"
Fate = Literal["taken", "failed", "lost", "policy"]

TYPE = "type"
SEND, CLOSE, ACCEPT = "websocket.send", "websocket.close", "websocket.accept"
START, BODY = "websocket.http.response.start", "websocket.http.response.body"

# --- the steps -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deliver:
    """
    The server delivers a message.

    Attributes:
        message: What it delivers.
        kind: The type that it has, None when it has none.
        code: Close code that a disconnect is worth.
        reason: Close reason that a disconnect is worth.
    """

    message: object
    kind: str | None
    code: int = 1005
    reason: str = ""


@dataclass(frozen=True)
class Say:
    """
    The application sends a message.

    Attributes:
        message: What it sends.
        kind: The type that it has, None when it has none.
        is_right: Whether its content is as the specification says.
        goes_out: What the server sees of it, None when it sees the message itself.
        close: For a close: the code asked for, the code and reason that go out.
        fate: What becomes of it when it is forwarded.
    """

    message: object
    kind: str | None
    is_right: bool = True
    goes_out: dict[str, Any] | None = None
    close: tuple[int, int, str] | None = None
    fate: Fate = "taken"


@dataclass(frozen=True)
class End:
    """Something else ends the connection."""

    because: DropReason
    initiator: Initiator
    status: CloseStatus
    code: int | None


@dataclass(frozen=True)
class Deny:
    """The guard denies the handshake."""


@dataclass(frozen=True)
class Finish:
    """The handler is done."""

    error_type: str | None = None
    absorbed_type: str | None = None


Action = Deliver | Say | End | Deny | Finish


def server(kind: object, **content: object) -> dict[str, object]:
    return {TYPE: kind, **content}


DELIVERIES = [
    Deliver(server("websocket.connect"), "websocket.connect"),
    Deliver(server("websocket.receive", text="x"), "websocket.receive"),
    Deliver(server("websocket.receive", bytes=b"x"), "websocket.receive"),
    Deliver(server("websocket.disconnect", code=1000, reason="bye"), "websocket.disconnect", 1000, "bye"),
    Deliver(server("websocket.disconnect", code=1001), "websocket.disconnect", 1001),
    Deliver(server("websocket.disconnect", code=1002), "websocket.disconnect", 1002),
    Deliver(server("websocket.disconnect", code=1006), "websocket.disconnect", 1006),
    Deliver(server("websocket.disconnect", code=1012, reason="r"), "websocket.disconnect", 1012, "r"),
    Deliver(server("websocket.disconnect", code=4321, reason="cya"), "websocket.disconnect", 4321, "cya"),
    Deliver(server("websocket.disconnect"), "websocket.disconnect"),
    Deliver(server("websocket.disconnect", code=None, reason=b"x"), "websocket.disconnect"),
    Deliver(server("websocket.disconnect", code="1000", reason=None), "websocket.disconnect"),
    Deliver(server("websocket.send", text="x"), "websocket.send"),
    Deliver(server("http.disconnect"), "http.disconnect"),
    Deliver({}, None),
    Deliver(None, None),
    Deliver("websocket.connect", None),
    Deliver(server(7), None),
]
RIGHT_ANSWERS = [
    Say(server(ACCEPT), ACCEPT),
    Say(server(ACCEPT, subprotocol="chat", headers=[]), ACCEPT),
    Say(server(SEND, text=""), SEND),
    Say(server(SEND, bytes=b"x", text=None), SEND),
    Say(server(SEND, bytes=bytearray(b"x")), SEND, goes_out=server(SEND, bytes=b"x")),
    Say(server(SEND, bytes=memoryview(b"xyz")[1:]), SEND, goes_out=server(SEND, bytes=b"yz")),
    Say(server(CLOSE), CLOSE, close=(1000, 1000, "")),
    Say(server(CLOSE, code=4001, reason="r"), CLOSE, close=(4001, 4001, "r")),
    Say(server(CLOSE, code=None, reason=None), CLOSE, close=(1000, 1000, "")),
    Say(server(CLOSE, code=1005), CLOSE, goes_out=server(CLOSE, code=1000, reason=""), close=(1005, 1000, "")),
    Say(server(CLOSE, code=1006), CLOSE, goes_out=server(CLOSE, code=1011, reason=""), close=(1006, 1011, "")),
    Say(
        server(CLOSE, code=5000, reason="é" * 62),
        CLOSE,
        goes_out=server(CLOSE, code=1011, reason="é" * 61),
        close=(5000, 1011, "é" * 61),
    ),
    Say(
        server(CLOSE, reason="x" * 200),
        CLOSE,
        goes_out=server(CLOSE, code=1000, reason="x" * 123),
        close=(1000, 1000, "x" * 123),
    ),
    Say(server(START, status=404, headers=[]), START),
    Say(server(BODY, body=b"x"), BODY),
    Say(server(BODY, body=b"x", more_body=False), BODY),
    Say(server(BODY, body=b"x", more_body=True), BODY),
]
WRONG_ANSWERS = [
    Say(server(ACCEPT, subprotocol=5), ACCEPT, is_right=False),
    Say(server(SEND), SEND, is_right=False),
    Say(server(SEND, text="x", bytes=b"x"), SEND, is_right=False),
    Say(server(SEND, text=b"x"), SEND, is_right=False),
    Say(server(SEND, bytes="x"), SEND, is_right=False),
    Say(server(CLOSE, code="1000"), CLOSE, is_right=False),
    Say(server(CLOSE, code=True), CLOSE, is_right=False),
    Say(server(CLOSE, reason=b"x"), CLOSE, is_right=False),
    Say(server("websocket.ping"), "websocket.ping"),
    Say(server("websocket.receive", text="x"), "websocket.receive"),
    Say(server("http.response.start", status=200), "http.response.start"),
    Say(server([]), None),
    Say({"text": "x"}, None),
    Say(b"websocket.send", None),
    Say(None, None),
]
FATES: tuple[Fate, ...] = ("taken", "failed", "lost", "policy")
MISFORTUNES = [
    Say(one.message, one.kind, goes_out=one.goes_out, close=one.close, fate=fate)
    for one in RIGHT_ANSWERS
    for fate in FATES[1:]
    if fate != "policy" or one.kind == SEND
]
ENDS = [
    End(DropReason.CLIENT_DISCONNECTED, Initiator.CLIENT, CloseStatus.GOING_AWAY, 1001),
    End(DropReason.APP_CLOSED, Initiator.APPLICATION, CloseStatus.APP_CLOSE, 1000),
    End(DropReason.DENIED, Initiator.APPLICATION, CloseStatus.DENIED, 1006),
    End(DropReason.HANDLER_DONE, Initiator.APPLICATION, CloseStatus.APP_ERROR, None),
    End(DropReason.TRANSPORT_LOST, Initiator.TRANSPORT, CloseStatus.TRANSPORT_ERROR, 1006),
    End(DropReason.GUARD_CLOSED, Initiator.GUARD, CloseStatus.SLOW_CONSUMER, 1008),
]
ACTIONS: list[Action] = [
    *DELIVERIES,
    *RIGHT_ANSWERS,
    *RIGHT_ANSWERS,  # twice: an accept must be likely, or nearly every sequence stays in the handshake
    *WRONG_ANSWERS,
    *MISFORTUNES,
    *ENDS,
    Deny(),
    Finish(),
    Finish("ValueError"),
    Finish(None, "ClientDisconnected"),
]

# --- the model -----------------------------------------------------------------------------------

MAY_DELIVER = {
    "CONNECTING": {"websocket.connect", "websocket.disconnect"},
    "OPEN": {"websocket.connect", "websocket.receive", "websocket.disconnect"},
    "REJECTING": {"websocket.connect", "websocket.disconnect"},
    "CLOSED": {"websocket.connect", "websocket.receive", "websocket.disconnect"},
}
MAY_SEND = {
    "CONNECTING": {ACCEPT, CLOSE, START},
    "OPEN": {SEND, CLOSE},
    "REJECTING": {BODY},
    "CLOSED": set[str](),
}
OF_THE_PROTOCOL = {ACCEPT, SEND, CLOSE, START, BODY}
PEER_STATUS = {
    1000: CloseStatus.NORMAL_CLOSURE,
    1001: CloseStatus.GOING_AWAY,
    1002: CloseStatus.PROTOCOL_ERROR,
    1005: CloseStatus.GOING_AWAY,
    1006: CloseStatus.GOING_AWAY,
    1012: CloseStatus.SHUTDOWN,
    4321: CloseStatus.NORMAL_CLOSURE,
}


@dataclass
class TheEnd:
    """How the model's connection ended."""

    at_s: float
    because: DropReason
    initiator: Initiator
    status: CloseStatus
    code: int | None
    reason: str


@dataclass
class Model:
    """What a connection is, in plain words."""

    can_deny: bool
    state: str = "CONNECTING"
    end: TheEnd | None = None
    opened_s: float = 0.0
    answered_s: float | None = None
    accepted_s: float | None = None
    response_status: int | None = None
    was_told_of_disconnect: bool = False
    is_over: bool = False
    received: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)

    def deliver(self, step: Deliver, now: float) -> list[Event] | None:
        """Give the events, or None where the server breaks the protocol."""
        if step.kind not in MAY_DELIVER[self.state]:
            return None
        if step.kind == "websocket.receive":
            self.received += 1
        if step.kind != "websocket.disconnect":
            return []
        is_first, self.was_told_of_disconnect = not self.was_told_of_disconnect, True
        is_restart = step.code == 1012
        because = DropReason.TRANSPORT_LOST if is_restart else DropReason.CLIENT_DISCONNECTED
        initiator = Initiator.TRANSPORT if is_restart else Initiator.CLIENT
        end = self.end
        if end is not None and end.because is DropReason.TRANSPORT_LOST and is_first:
            end.code, end.reason = step.code, step.reason
            if step.code not in (1005, 1006):
                end.because, end.initiator, end.status = because, initiator, PEER_STATUS[step.code]
        return self.over(TheEnd(now, because, initiator, PEER_STATUS[step.code], step.code, step.reason))

    def say(self, step: Say, now: float) -> tuple[Verdict, list[Event]]:
        """Give the verdict and the events."""
        if step.kind not in OF_THE_PROTOCOL or (
            self.state != "CLOSED"
            and (step.kind not in MAY_SEND[self.state] or not step.is_right or self.cannot(step.kind))
        ):
            violated = Violated(ID, now, self.state, step.kind, "")
            return Verdict.REFUSE, [] if self.is_over else [violated]
        if self.state == "CLOSED":
            return Verdict.DROP, []
        return Verdict.FORWARD, self.commit(step, now)

    def cannot(self, kind: str) -> bool:
        """Tell whether the server offers no way to send this."""
        return kind in (START, BODY) and not self.can_deny

    def commit(self, step: Say, now: float) -> list[Event]:
        """Take a message that is allowed now."""
        message = cast(dict[str, Any], step.message)
        denied = TheEnd(now, DropReason.DENIED, Initiator.APPLICATION, CloseStatus.DENIED, 1006, "")
        if step.kind == ACCEPT:
            self.state, self.accepted_s, self.answered_s = "OPEN", now, now
            return [Accepted(ID, now, message.get("subprotocol"), ROUTE, now - self.opened_s)]
        if step.kind == START:
            self.state, self.answered_s, self.response_status = "REJECTING", now, message["status"]
        if step.kind == BODY and not message.get("more_body"):
            return self.over(denied)
        if step.kind == CLOSE and self.state == "CONNECTING":
            self.response_status = 403
            return self.over(denied)
        if step.kind == CLOSE:
            assert step.close is not None
            asked, code, reason = step.close
            app_close = CloseStatus.APP_CLOSE
            events = self.over(TheEnd(now, DropReason.APP_CLOSED, Initiator.APPLICATION, app_close, code, reason))
            if step.goes_out is None:
                return events
            return [CloseAdjusted(ID, now, asked, code, reason_cut=len(message.get("reason") or "") > 61), *events]
        return []

    def over(self, end: TheEnd) -> list[Event]:
        """End, once."""
        if self.end is not None:
            return []
        self.state, self.end = "CLOSED", end
        if self.answered_s is None:
            self.answered_s = end.at_s
        return [Ended(ID, end.at_s, end.code, end.reason, end.initiator, end.status)]

    def deny(self, now: float) -> list[Event]:
        """Deny, unless it is over."""
        if self.end is None:
            self.response_status = 401
        return self.over(TheEnd(now, DropReason.GUARD_CLOSED, Initiator.GUARD, CloseStatus.UNAUTHORIZED, 1006, ""))

    def finish(self, step: Finish, now: float) -> list[Event]:
        """Tell the terminal event, once, of an ended connection."""
        end = self.end
        if end is None or self.is_over:
            return []
        self.is_over = True
        assert self.answered_s is not None
        facts = (
            *(ID, now, PATH, ROUTE, end.code, end.reason, end.initiator, end.status),
            self.answered_s - self.opened_s,
            0.0 if self.accepted_s is None else end.at_s - self.accepted_s,
            now - end.at_s,
            step.error_type,
            step.absorbed_type,
            self.books(),
        )
        if self.accepted_s is not None:
            return [Closed(*facts)]
        if end.because in (DropReason.CLIENT_DISCONNECTED, DropReason.TRANSPORT_LOST):
            return [Abandoned(*facts)]
        return [Rejected(*facts, self.response_status)]

    def books(self) -> Books:
        """Balance what the test itself counted."""
        return Books(
            received=self.received,
            sent=self.tally["sent"],
            forwarded=self.tally["forwarded"],
            failed=self.tally["failed"],
            refused=self.tally["refused"],
            dropped=dict(self.drops),
        )


# --- both, side by side --------------------------------------------------------------------------


def snapshot(connection: Connection) -> tuple[object, ...]:
    """Give all that a connection knows, apart from the number of refused messages."""
    facts = [getattr(connection, name) for name in Connection.__slots__ if name != "refused"]
    return tuple(dict(fact) if isinstance(fact, dict) else fact for fact in facts)


class Pair:
    """A connection and its model, and what the test counts by itself."""

    def __init__(self, *, can_deny: bool) -> None:
        self.connection = Connection(ID, at_s=0.0, can_deny=can_deny)
        self.connection.route = ROUTE
        self.model = Model(can_deny)
        self.now = 0.0
        self.attempts = 0
        self.told: list[Event] = []
        self.is_close_out = False

    def go(self, action: Action, after_s: float) -> None:
        """Take one step on both sides and compare."""
        self.now += after_s
        if isinstance(action, Deliver):
            self.deliver(action)
        elif isinstance(action, Say):
            self.say(action)
        elif isinstance(action, End):
            self.end(action)
        elif isinstance(action, Deny):
            events = self.connection.deny(self.now, status=CloseStatus.UNAUTHORIZED, response_status=401)
            self.tell(events, self.model.deny(self.now))
        else:
            events = self.connection.finish(
                self.now, path=PATH, error_type=action.error_type, absorbed_type=action.absorbed_type
            )
            self.tell(events, self.model.finish(action, self.now))
        self.compare()

    def deliver(self, step: Deliver) -> None:
        """Let the server deliver a message."""
        before = snapshot(self.connection)
        expected = self.model.deliver(step, self.now)
        if expected is not None:
            self.tell(self.connection.receive(cast(Any, step.message), self.now), expected)
            return
        with pytest.raises(ProtocolError) as caught:
            self.connection.receive(cast(Any, step.message), self.now)
        assert snapshot(self.connection) == before
        assert (caught.value.state, caught.value.message_type) == (self.model.state, step.kind)
        assert set(caught.value.allowed) == MAY_DELIVER[self.model.state]

    def say(self, step: Say) -> None:
        """Let the application send a message."""
        self.attempts += 1
        before, state = snapshot(self.connection), self.model.state
        verdict, expected = self.model.say(step, self.now)
        answer = self.connection.send(cast(Any, step.message), self.now)
        assert answer.verdict is verdict
        self.tell(answer.events, expected)
        if verdict is Verdict.FORWARD:
            is_as_it_was = step.goes_out is None or (
                state == "CONNECTING" and step.kind == CLOSE
            )  # 403: no close frame
            assert answer.message == (step.message if is_as_it_was else step.goes_out)
            assert type(answer.message.get("bytes", b"")) in (bytes, type(None))
            assert not self.is_close_out, "a message after the close (G11)"
            self.is_close_out = self.model.state == "CLOSED"
            self.forwarded(step)
            return
        assert answer.message is step.message
        assert snapshot(self.connection) == before
        if verdict is Verdict.REFUSE:
            self.model.tally["refused"] += 1
            error = answer.error
            assert isinstance(error, ProtocolError)
            assert (error.state, error.message_type) == (state, step.kind)
            assert set(error.allowed) == {kind for kind in MAY_SEND[state] if not self.model.cannot(kind)}
        else:
            assert state == "CLOSED"
            self.dropped()

    def forwarded(self, step: Say) -> None:
        """Do what the caller of a connection does with a message that is to be forwarded."""
        if step.fate == "taken":
            if step.kind == SEND:
                self.connection.sent += 1
                self.model.tally["sent"] += 1
            else:
                self.connection.answers += 1
            self.model.tally["forwarded"] += 1
        elif step.fate == "failed":
            self.connection.failed += 1
            self.model.tally["failed"] += 1
        elif step.fate == "policy":
            self.connection.drop(DropReason.POLICY)
            self.model.drops["policy"] += 1
        else:
            self.end(End(DropReason.TRANSPORT_LOST, Initiator.TRANSPORT, CloseStatus.TRANSPORT_ERROR, 1006))
            self.dropped()

    def dropped(self) -> None:
        """Count a late message under the reason of the end."""
        assert self.connection.ended is not None
        assert self.model.end is not None
        self.connection.drop(self.connection.ended.because)
        self.model.drops[self.model.end.because.value] += 1

    def end(self, step: End) -> None:
        """Let something else end the connection."""
        events = self.connection.end(self.now, because=step.because, status=step.status, code=step.code)
        self.tell(events, self.model.over(TheEnd(self.now, step.because, step.initiator, step.status, step.code, "")))
        self.is_close_out = True

    def tell(self, events: Sequence[Event], expected: list[Event]) -> None:
        """Compare what is told; the text of a violation is its own affair, as long as it accuses the application."""
        plain = [
            Violated(one.connection_id, one.at_s, one.state, one.message_type, "")
            if isinstance(one, Violated) and one.problem.startswith("the application sent ")
            else one
            for one in events
        ]
        assert plain == expected
        self.told.extend(events)

    def compare(self) -> None:
        """Compare what can be seen after each step."""
        connection, model, end = self.connection, self.model, self.connection.ended
        assert connection.state.value == model.state
        assert connection.finished == model.is_over
        assert connection.accepted == (model.accepted_s is not None)
        assert connection.disconnect_read == model.was_told_of_disconnect
        assert (end is None) == (model.end is None) == (model.state != "CLOSED")
        if end is not None and model.end is not None:
            assert (end.at_s, end.because, end.initiator) == (model.end.at_s, model.end.because, model.end.initiator)
            assert (end.status, end.code, end.reason) == (model.end.status, model.end.code, model.end.reason)
        books = connection.books
        assert books == model.books()
        assert books.attempted == self.attempts == books.forwarded + books.failed + books.refused + books.dropped_total
        terminal = [one for one in self.told if isinstance(one, Terminal)]
        assert len(terminal) == int(model.is_over)
        assert terminal == self.told[len(self.told) - len(terminal) :], "something follows the terminal event"


def play(actions: Iterable[tuple[Action, float]], *, can_deny: bool) -> Pair:
    """Take all steps, then let the handler end as the session does: there is always exactly one terminal event."""
    pair = Pair(can_deny=can_deny)
    for action, after_s in actions:
        pair.go(action, after_s)
    pair.go(End(DropReason.HANDLER_DONE, Initiator.APPLICATION, CloseStatus.APP_CLOSE, 1000), 1.0)
    pair.go(Finish(), 1.0)
    ended = [one for one in pair.told if isinstance(one, Ended)]
    accepted = [one for one in pair.told if isinstance(one, Accepted)]
    assert len(ended) == 1
    assert len(accepted) == int(isinstance(pair.told[-1], Closed))
    assert isinstance(pair.told[-1], Terminal)
    return pair


STEPS = st.binary(max_size=12)
"""One byte is one step: cheap to draw, and it shrinks. It is an action and the seconds before it."""


def decoded(steps: bytes) -> list[tuple[Action, float]]:
    """Give the actions, and the seconds before each: 0, 1 or 2."""
    return [(ACTIONS[step % len(ACTIONS)], float(step // len(ACTIONS))) for step in steps]


@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, accepts=st.booleans(), can_deny=st.booleans())
@example(steps=b"", accepts=False, can_deny=False)
def test_a_connection_does_what_its_model_says(steps: bytes, *, accepts: bool, can_deny: bool) -> None:
    """
    Whatever both sides do, in whatever order, the connection answers, tells and counts as the model does.

    A refused message changes nothing; after the end nothing is forwarded; exactly one terminal event is told and
    nothing follows it; its books are what the test counted.
    """
    first: list[tuple[Action, float]] = [(RIGHT_ANSWERS[0], 1.0)] if accepts else []
    play(first + decoded(steps), can_deny=can_deny)


FEW: list[Action] = [
    DELIVERIES[0],
    DELIVERIES[1],
    DELIVERIES[3],
    DELIVERIES[6],
    RIGHT_ANSWERS[0],
    RIGHT_ANSWERS[2],
    RIGHT_ANSWERS[9],
    RIGHT_ANSWERS[13],
    RIGHT_ANSWERS[14],
    RIGHT_ANSWERS[16],
    WRONG_ANSWERS[1],
    WRONG_ANSWERS[8],
    ENDS[4],
    Deny(),
    Finish("ValueError"),
]


@pytest.mark.parametrize("can_deny", [True, False])
def test_every_short_story(*, can_deny: bool) -> None:
    """All sequences of up to three steps out of one step of each sort: nothing is left to chance there."""
    for length in range(4):
        for actions in itertools.product(FEW, repeat=length):
            play([(action, 1.0) for action in actions], can_deny=can_deny)


def test_every_step_is_met() -> None:
    """A byte reaches every step, and the steps every event and every kind of end: the random sequences are not idle."""
    assert len(ACTIONS) <= 256
    pairs = [play([(RIGHT_ANSWERS[0], 1.0), (action, 1.0)], can_deny=True) for action in ACTIONS]
    pairs += [play([(action, 1.0)], can_deny=True) for action in ACTIONS]
    told = {type(event) for pair in pairs for event in pair.told}
    assert told == {Accepted, Violated, CloseAdjusted, Ended, Rejected, Abandoned, Closed}
    ends = {pair.model.end.because for pair in pairs if pair.model.end}
    assert ends == {reason for reason in DropReason if reason.value not in EARLY_DROPS}
