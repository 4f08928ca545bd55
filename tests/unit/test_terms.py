"""What policies lay down at an admission: merged, looked at before it counts, and released once."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    Close,
    CloseStatus,
    ConfigurationError,
    Deadlines,
    Deny,
    Handshake,
    Identity,
    Rejected,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._admission import admit
from asgi_ws_guard._plugin import ALLOW
from asgi_ws_guard._scope import handshake_of, whole_scope
from asgi_ws_guard._terms import NO_TERMS, Terms, close_fault, shortest
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
ANN = Identity("ann", label="a1")
BOB = Identity("bob")


class _Counts:
    """A policy that gives a prepared answer, and counts admissions and releases."""

    def __init__(self, answer: Any = None, *, raises_at_release: bool = False) -> None:
        self.answer = Allow() if answer is None else answer
        self.raises_at_release = raises_at_release
        self.asked: list[Handshake] = []
        self.admitted: list[str] = []
        self.released: list[str] = []

    def admit(self, handshake: Handshake) -> Allow | Deny | Awaitable[Allow | Deny]:
        self.asked.append(handshake)
        answer: Any = self.answer(handshake) if callable(self.answer) else self.answer
        if isinstance(answer, Allow):
            self.admitted.append(handshake.connection_id)
        return answer  # type: ignore[no-any-return]

    def release(self, connection_id: str) -> None:
        self.released.append(connection_id)
        if self.raises_at_release:
            raise ZeroDivisionError


def _handshake() -> Handshake:
    return handshake_of(whole_scope(ScriptedServer().scope), "0" * 16)


def _admit(*policies: Any) -> Terms | Deny:
    return run(lambda: admit(policies, _handshake(), []))[1]


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)


def _crediting(**attributes: Any) -> Any:
    """Make a gate that gives credit, but for what a test says."""
    return type("Crediting", (), {"__call__": _gate, "credit": int, "settle": print, **attributes})()


def _gate(size: int, /) -> Allow:
    return Allow()


class _First:
    timeout_s: Any = 5.0

    def __call__(self, payload: str | bytes, /) -> Allow:
        return Allow(identity=ANN)


def test_nothing_laid_down_are_the_terms_of_nobody() -> None:
    """Plain answers make no object of their own for each connection."""
    assert _admit() is _admit(_Counts(ALLOW), _Counts(ALLOW)) is NO_TERMS


def test_a_later_policy_sees_who_an_earlier_one_found() -> None:
    """The handshake that each policy gets carries the last identity that is known; the last one counts."""
    policies = [_Counts(), _Counts(Allow(identity=ANN)), _Counts(), _Counts(Allow(identity=BOB)), _Counts()]
    terms = _admit(*policies)
    assert isinstance(terms, Terms)
    assert [policy.asked[0].identity for policy in policies] == [None, None, ANN, ANN, BOB]
    assert terms.identity is BOB
    assert {policy.asked[0].connection_id for policy in policies} == {"0" * 16}


def test_terms_are_merged() -> None:
    """Gates and first messages of all in order with their policy's name, offers of all, the last subprotocol."""
    first = _First()
    terms = _admit(
        _Counts(Allow(subprotocol="chat", hidden_subprotocols=("t1",), gate=_gate, first_message=first)),
        _Counts(Allow(subprotocol="v2", hidden_subprotocols=("t2",), gate=_gate)),
        _Counts(),
    )
    assert isinstance(terms, Terms)
    name = f"{__name__}._Counts"
    assert terms.subprotocol == "v2"
    assert terms.hidden_subprotocols == {"t1", "t2"}
    assert terms.gates == ((name, _gate), (name, _gate))
    assert terms.first_messages == ((name, first),)
    assert "t1" not in repr(terms)


def test_the_shortest_deadline_counts_with_its_own_code() -> None:
    """None is no limit; of two as long the earlier policy's code goes out."""
    one = Deadlines(idle_s=10, idle_code=4001, max_age_s=5, max_age_code=4002, send_s=None, handshake_s=3)
    other = Deadlines(idle_s=9, idle_code=4003, max_age_s=6, max_age_code=4004, send_s=2, handshake_s=None)
    expected = Deadlines(idle_s=9, idle_code=4003, max_age_s=5, max_age_code=4002, send_s=2, handshake_s=3)
    assert shortest(one, other) == expected
    assert shortest(Deadlines(), one) == one == shortest(one, Deadlines())
    assert shortest(one, Deadlines(idle_s=10, idle_code=4009)).idle_code == 4001
    terms = _admit(_Counts(Allow(deadlines=one)), _Counts(), _Counts(Allow(deadlines=other)))
    assert isinstance(terms, Terms)
    assert terms.deadlines == expected


class _Unhashable:
    def __hash__(self) -> int:
        raise OSError("no")


def _no_timeout() -> Any:
    first = _First()
    first.timeout_s = 0
    return first


_NO_SECONDS: list[Any] = [0, -1, math.nan, math.inf, True, "5", 10**400]
_NO_CODES: list[Any] = [1005, 0, True, "1000", None]
MALFORMED: list[Any] = [
    *(Allow(deadlines=Deadlines(idle_s=value)) for value in _NO_SECONDS),
    *(Allow(deadlines=Deadlines(**{name: 0})) for name in ("handshake_s", "max_age_s", "send_s")),
    *(Allow(deadlines=Deadlines(idle_code=code)) for code in _NO_CODES),
    Allow(deadlines=Deadlines(max_age_code=1006)),
    Allow(deadlines={"idle_s": 1}),  # type: ignore[arg-type]
    Allow(identity="ann"),  # type: ignore[arg-type]
    Allow(identity=Identity(["ann"])),  # type: ignore[arg-type]
    Allow(identity=Identity(_Unhashable())),
    Allow(identity=Identity("ann", expires_unix_s=math.nan)),
    Allow(identity=Identity("ann", expires_unix_s="soon")),  # type: ignore[arg-type]
    Allow(identity=Identity("ann", label=7)),  # type: ignore[arg-type]
    Allow(subprotocol=""),
    Allow(subprotocol="two words"),
    Allow(subprotocol="a\r\nx: y"),
    Allow(subprotocol=b"chat"),  # type: ignore[arg-type]
    Allow(hidden_subprotocols="token"),  # type: ignore[arg-type]
    Allow(hidden_subprotocols=(b"token",)),  # type: ignore[arg-type]
    Allow(hidden_subprotocols=None),  # type: ignore[arg-type]
    Allow(gate=5),  # type: ignore[arg-type]
    Allow(gate=_crediting(credit_bytes=None)),
    Allow(gate=_crediting(credit_bytes=10.0)),
    Allow(gate=_crediting(credit_bytes=10, settle=None)),
    Allow(gate=_crediting(credit_bytes=10, credit=5)),
    Allow(first_message=5),  # type: ignore[arg-type]
    Allow(first_message=_gate),  # type: ignore[arg-type]
    Allow(first_message=_no_timeout()),
    Deny(status=200),
    Deny(status=True),
    Deny(status="403"),  # type: ignore[arg-type]
    Deny(body="no"),  # type: ignore[arg-type]
    Deny(headers=((b"X-Upper", b"1"),)),
    Deny(headers=((b"x-a", b"1\r\nset-cookie: a=b"),)),
    Deny(headers=((b"x a", b"1"),)),
    Deny(headers=(("x-a", "1"),)),  # type: ignore[arg-type]
    Deny(headers=((b"x-a",),)),  # type: ignore[arg-type]
    Deny(headers=None),  # type: ignore[arg-type]
    Deny(reason=None),  # type: ignore[arg-type]
    Deny(end="denied"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("answer", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_answer_denies_and_is_reported(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Fail closed with 500; one line names the policy and the fault; who had answered `Allow` is released."""
    policy, later = _Counts(answer), _Counts()

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        server.connect()
        await server.call(WebSocketGuardMiddleware(_app, observers=(seen,), policies=(policy, later)))
        assert [message.get("status") for message in server.sent] == [500, None]
        assert seen.one(Rejected).response_status == 500

    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        run(main)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "_Counts" in caplog.text
    assert policy.released == policy.admitted
    assert later.asked == []


def test_a_report_shows_no_subject(caplog: pytest.LogCaptureFixture) -> None:
    """What names a user stays out of the log, also where the answer is malformed."""
    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        assert isinstance(_admit(_Counts(Allow(identity=Identity(["ann@example.org"])))), Deny)  # type: ignore[arg-type]
    assert "list is not hashable" in caplog.text
    assert "ann" not in caplog.text


@pytest.mark.parametrize("close", [Close("1008"), Close(True), Close(reason=None), Close(end="x")])  # type: ignore[arg-type]
def test_a_malformed_close_is_known(close: Close) -> None:
    """What is no code, reason or class is said; a code that may not be sent is made legal elsewhere."""
    assert close_fault(close) is not None
    assert close_fault(Close(1005, end=CloseStatus.UNAUTHORIZED)) is None


def _denies(handshake: Handshake) -> Deny:
    return Deny()


def _raises(handshake: Handshake) -> Allow:
    raise ZeroDivisionError


def _thinks(handshake: Handshake) -> Awaitable[Allow]:
    async def answer() -> Allow:
        await asyncio.sleep(5)
        return Allow()

    return answer()


def _left(server: ScriptedServer) -> None:
    server.fail_sends(OSError("gone"))


def _broken(server: ScriptedServer) -> None:
    server.fail_sends(RuntimeError("a real error"))


@pytest.mark.parametrize(
    ("last", "server_does"),
    [
        (_denies, None),
        (_denies, _left),
        (_denies, _broken),
        (_raises, None),
        (None, None),
        (None, _left),
        (None, _broken),
    ],
)
def test_every_admission_is_released_once(
    last: Callable[[Handshake], Any] | None, server_does: Callable[[ScriptedServer], None] | None
) -> None:
    """When a later policy denies or raises, when the server's deny raises, and when the handler is done."""
    counted = [_Counts(), _Counts(Allow(identity=ANN))]
    never = _Counts(last) if last is not None else None

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        if server_does is not None:
            server_does(server)
        policies = [*counted, *([never] if never else [])]
        guard = WebSocketGuardMiddleware(_app, observers=(), policies=policies)
        (outcome,) = await asyncio.gather(server.call(guard), return_exceptions=True)
        assert isinstance(outcome, RuntimeError) == (server_does is _broken)

    run(main)
    for policy in counted:
        assert len(policy.admitted) == 1
        assert policy.released == policy.admitted
    assert never is None or never.released == []


def test_a_denied_client_holds_no_place_while_it_hears_so() -> None:
    """The release does not wait for a peer that takes its denial slowly."""
    counted = _Counts()

    async def main() -> None:
        server = ScriptedServer()
        server.stall_sends()
        task = server.call(WebSocketGuardMiddleware(_app, observers=(), policies=(counted, _Counts(_denies))))
        await asyncio.sleep(1)
        assert len(counted.released) == 1
        server.resume_sends()
        await task

    run(main)
    assert len(counted.released) == 1


def test_a_cancelled_admission_is_released() -> None:
    """Who had allowed before the server gave up hears of it; who was still thinking has counted nobody."""
    counted, thinking = _Counts(), _Counts(_thinks)

    async def main() -> None:
        server = ScriptedServer()
        task = server.call(WebSocketGuardMiddleware(_app, observers=(), policies=(counted, thinking)))
        await asyncio.sleep(1)
        assert counted.released == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert counted.released == counted.admitted
    assert len(counted.released) == 1
    assert thinking.released == []


def test_a_release_waits_for_the_handler() -> None:
    """A connection is over when its handler is, not when its client leaves: until then it costs."""
    counted = _Counts()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            assert (await receive())["type"] == "websocket.disconnect"
            await asyncio.sleep(1)
            assert counted.released == []

        server = ScriptedServer()
        server.connect()
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(counted,)))

    run(main)
    assert len(counted.released) == 1


def test_a_release_that_raises_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    """The others hear of the end too, the client sees nothing, and the log names the policy."""
    policies = [_Counts(), _Counts(raises_at_release=True), _Counts()]

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        server.connect()
        await server.call(WebSocketGuardMiddleware(_app, observers=(seen,), policies=policies))
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert seen.names()[-1] == "Closed"

    with caplog.at_level(logging.ERROR, "asgi_ws_guard"):
        run(main)
    assert [len(policy.released) for policy in policies] == [1, 1, 1]
    assert len(caplog.records) == 1
    assert "at a release" in caplog.text


def test_a_release_is_not_async() -> None:
    """Nobody would await it; that is said when the guard is built."""

    class Awaits:
        def admit(self, handshake: Handshake) -> Allow:
            return Allow()

        async def release(self, connection_id: str) -> None: ...

    with pytest.raises(ConfigurationError, match="release"):
        WebSocketGuardMiddleware(_app, policies=(Awaits(),))
