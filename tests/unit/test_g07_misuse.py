"""G7: misuse stays loud and uniform, and the server never hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ws_guard import ProtocolError, Violated, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close", "code": 4001, "reason": "bye"}
START: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}
BODY: Message = {"type": "websocket.http.response.body", "body": b""}
TEXT: Message = {"type": "websocket.send", "text": "x"}

CONNECTING, OPEN, REJECTING = "CONNECTING", "OPEN", "REJECTING"
BEFORE = {CONNECTING: [], OPEN: [ACCEPT], REJECTING: [START]}
ALLOWED = {
    CONNECTING: ("websocket.accept", "websocket.close", "websocket.http.response.start"),
    OPEN: ("websocket.close", "websocket.send"),
    REJECTING: ("websocket.http.response.body",),
}
SEND = "websocket.send"
MISUSE: list[tuple[str, Any, str | None]] = [
    (CONNECTING, TEXT, SEND),
    (CONNECTING, BODY, "websocket.http.response.body"),
    (OPEN, ACCEPT, "websocket.accept"),
    (OPEN, START, "websocket.http.response.start"),
    (OPEN, BODY, "websocket.http.response.body"),
    (OPEN, {"type": SEND, "text": "x", "bytes": b"x"}, SEND),
    (OPEN, {"type": SEND}, SEND),
    (OPEN, {"type": SEND, "text": None, "bytes": None}, SEND),
    (OPEN, {"type": SEND, "text": 5}, SEND),
    (OPEN, {"type": SEND, "text": b"x"}, SEND),
    (OPEN, {"type": SEND, "bytes": "x"}, SEND),
    (OPEN, {"type": SEND, "bytes": None, "text": ["x"]}, SEND),
    (OPEN, {"type": "websocket.close", "code": "1000"}, "websocket.close"),
    (OPEN, {"type": "websocket.close", "reason": 5}, "websocket.close"),
    (OPEN, {"type": "websocket.ping"}, "websocket.ping"),
    (OPEN, {"type": "http.response.start", "status": 200}, "http.response.start"),
    (OPEN, {"type": "websocket.receive", "text": "x"}, "websocket.receive"),
    (OPEN, {"type": None}, None),
    (OPEN, {"type": ["x"]}, None),
    (OPEN, {}, None),
    (OPEN, None, None),
    (OPEN, "websocket.send", None),
    (OPEN, [("type", "websocket.send")], None),
    (CONNECTING, {}, None),
    (CONNECTING, {"type": "websocket.accept", "subprotocol": 5}, "websocket.accept"),
    (REJECTING, ACCEPT, "websocket.accept"),
    (REJECTING, CLOSE, "websocket.close"),
    (REJECTING, TEXT, SEND),
    (REJECTING, START, "websocket.http.response.start"),
]


@pytest.mark.parametrize(("state", "message", "message_type"), MISUSE)
@pytest.mark.parametrize("observed", [False, True])
def test_misuse_is_a_protocol_error_before_the_server_hears_of_it(
    state: str, message: Any, message_type: str | None, observed: bool
) -> None:
    """A `ProtocolError` names what was done, in which state and what is allowed; nothing else changes."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder(wants_messages=observed)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            for before in BEFORE[state]:
                await send(before)
            with pytest.raises(ProtocolError) as caught:
                await send(message)
            error = caught.value
            assert isinstance(error, RuntimeError)
            assert (error.state, error.message_type, error.allowed) == (state, message_type, ALLOWED[state])
            text = str(error)
            assert state in text
            assert all(allowed in text for allowed in ALLOWED[state])
            assert message_type is None or message_type in text
            assert server.sent == BEFORE[state]
            if state == OPEN:
                await send(TEXT)  # the connection is as good as before

        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        await server.call(guard)
        assert guard.totals().refused == 1
        violated = seen.one(Violated)
        assert (violated.state, violated.message_type) == (state, message_type)
        assert server.sent[: len(BEFORE[state])] == BEFORE[state]

    run(main)


def test_a_denial_response_without_the_extension_is_misuse() -> None:
    """Where the server offers no denial response (daphne) it is refused, and not listed as allowed."""

    async def main() -> None:
        server = ScriptedServer(extensions={})

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            with pytest.raises(ProtocolError) as caught:
                await send(START)
            assert caught.value.allowed == ("websocket.accept", "websocket.close")
            await send(ACCEPT)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("message", [{"type": "websocket.pong"}, {"type": "http.request"}, {}, {"type": 5}])
def test_a_malformed_message_of_the_server_is_an_error_of_the_application_only(message: Message) -> None:
    """What no server may deliver is a `ProtocolError` in the application's receive; the next message arrives."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            server.deliver(message)
            server.text("fine")
            with pytest.raises(ProtocolError, match="the server delivered"):
                await receive()
            assert (await receive())["text"] == "fine"

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


def test_a_message_that_comes_before_the_accept_is_an_error() -> None:
    """A ``websocket.receive`` during the handshake is refused."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with pytest.raises(ProtocolError, match="CONNECTING"):
                await receive()

        server.text("too early")
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc")])
def test_buffers_go_out_as_bytes(data: Any) -> None:
    """`bytearray` and `memoryview` go out as bytes, which every server takes; the caller's message is not changed."""

    async def main() -> None:
        server = ScriptedServer()
        message = {"type": "websocket.send", "bytes": data}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            await send(message)

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert server.sent[1]["bytes"] == b"abc"
        assert type(server.sent[1]["bytes"]) is bytes
        assert message["bytes"] is data

    run(main)
