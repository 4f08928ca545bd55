"""G12: legal closes, seen from the server: codes and reasons that a close frame cannot carry are made legal."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ws_guard import Close, CloseAdjusted, Closed, CloseStatus, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}


def _close_with(close: Message) -> tuple[Message, Recorder]:
    async def main() -> tuple[Message, Recorder]:
        server, seen = ScriptedServer(), Recorder()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await send(close)
            assert (await receive())["code"] == (server.sent[-1].get("code") or 1000)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        return server.sent[-1], seen

    return run(main)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (1005, 1000),
        (1006, 1011),
        (1015, 1011),
        (1004, 1011),
        (0, 1011),
        (-1, 1011),
        (999, 1011),
        (2999, 1011),
        (5000, 1011),
    ],
)
def test_a_code_that_may_not_be_sent_is_replaced_and_reported(asked: int, code: int) -> None:
    """The server gets a legal code, and `CloseAdjusted` says which one was asked for."""
    message: Message = {"type": "websocket.close", "code": asked, "reason": "why"}
    sent, seen = _close_with(message)
    assert sent == {"type": "websocket.close", "code": code, "reason": "why"}
    adjusted = seen.one(CloseAdjusted)
    assert (adjusted.asked_code, adjusted.code, adjusted.reason_cut) == (asked, code, False)
    assert seen.one(Closed).code == code
    assert message["code"] == asked  # the application's own message is not changed


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1014, 3000, 4999])
def test_a_legal_code_goes_out_as_it_is(code: int) -> None:
    """Nothing is adjusted, and the very message goes out."""
    message: Message = {"type": "websocket.close", "code": code, "reason": "x" * 123}
    sent, seen = _close_with(message)
    assert sent is message
    assert not seen.of(CloseAdjusted)


@pytest.mark.parametrize("close", [{}, {"code": None}, {"reason": None}, {"code": 1000}])
def test_a_close_without_code_or_reason_is_legal(close: dict[str, Any]) -> None:
    """The keys are optional."""
    sent, seen = _close_with({"type": "websocket.close", **close})
    assert sent == {"type": "websocket.close", **close}
    assert seen.one(Closed).code == 1000
    assert not seen.of(CloseAdjusted)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [("x" * 124, "x" * 123), ("é" * 62, "é" * 61), ("x" + "€" * 41, "x" + "€" * 40), ("😀" * 31, "😀" * 30)],
)
def test_a_reason_is_cut_at_a_character(asked: str, reason: str) -> None:
    """At most 123 bytes of UTF-8 go out, never half a character, and that is reported."""
    sent, seen = _close_with({"type": "websocket.close", "code": 4000, "reason": asked})
    assert sent["reason"] == reason
    assert len(reason.encode()) <= 123
    assert seen.one(CloseAdjusted).reason_cut


@pytest.mark.parametrize(("asked", "code"), [(4008, 4008), (1005, 1000), (1006, 1011), (99, 1011)])
def test_a_close_that_a_policy_asks_for_is_legal_too(asked: int, code: int) -> None:
    """Whoever closes, only what a close frame can carry reaches the server."""

    class Judge:
        def message(self, connection_id: str, direction: str, size: int) -> Close:
            return Close(asked, "é" * 100, CloseStatus.RATE_LIMITED)

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await send({"type": "websocket.send", "text": "x"})

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(Judge(),)))
        assert server.sent[-1] == {"type": "websocket.close", "code": code, "reason": "é" * 61}

    run(main)
