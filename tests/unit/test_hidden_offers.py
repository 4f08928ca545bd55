"""Tokens in the list of subprotocols: hidden from the application, and answered without an echo."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ws_guard import Allow, Handshake, WebSocketGuardMiddleware
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

TOKEN = "tok.en-1"
OFFERS = ["bearer", TOKEN, "chat"]


class _Takes:
    """A policy that finds a token among the offers."""

    def __init__(self, answer: str | None = "bearer") -> None:
        self.answer = answer

    def admit(self, handshake: Handshake) -> Allow:
        assert TOKEN in handshake.subprotocols
        return Allow(subprotocol=self.answer, hidden_subprotocols=("bearer", TOKEN))


def _serve(
    accept: dict[str, Any], policy: Any = None, headers: list[tuple[bytes, bytes]] | None = None
) -> tuple[ScriptedServer, Scope]:
    """Open one connection whose application accepts with *accept*; give the server, and the application's scope."""
    seen: list[Scope] = []

    async def main() -> ScriptedServer:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await receive()
            await send({"type": "websocket.accept", **accept})

        offered = [(b"host", b"a"), (b"sec-websocket-protocol", ", ".join(OFFERS).encode())]
        server = ScriptedServer(subprotocols=list(OFFERS), headers=offered if headers is None else headers)
        before = copy.deepcopy(server.scope)
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(Recorder(),), policies=(policy or _Takes(),))
        await server.call(guard)
        assert server.scope == before
        return server

    return run(main), seen[0]


def test_the_application_sees_no_token() -> None:
    """Neither in the parsed list nor in the header; all else is there, and the server's own scope is as it was."""
    _, scope = _serve({})
    assert scope["subprotocols"] == ["chat"]
    assert scope["headers"] == [(b"host", b"a"), (b"sec-websocket-protocol", b"chat")]
    assert TOKEN not in repr({key: value for key, value in scope.items() if isinstance(value, list)})


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([b"bearer,tok.en-1"], []),
        ([b"bearer", b" tok.en-1 "], []),
        ([b"chat , bearer,tok.en-1 , v2"], [b"chat, v2"]),
        ([b"chat ,v2"], [b"chat ,v2"]),
        ([b"BEARER, tok.en-10"], [b"BEARER, tok.en-10"]),
    ],
)
def test_headers_of_every_form_are_cleared(given: list[bytes], left: list[bytes]) -> None:
    """Several lines, odd spaces and an empty rest; offers are compared whole and as they are written."""
    _, scope = _serve({}, headers=[(b"Sec-WebSocket-Protocol", value) for value in given])
    assert [value for _, value in scope["headers"]] == left


@pytest.mark.parametrize("accept", [{}, {"subprotocol": None}, {"headers": [(b"x-a", b"b")]}, {"headers": None}])
def test_an_accept_without_a_choice_is_answered(accept: dict[str, Any]) -> None:
    """The client offered something, so a browser wants an answer: the policy's, never the token."""
    server, _ = _serve(accept)
    assert server.sent[0] == {**accept, "type": "websocket.accept", "subprotocol": "bearer"}


@pytest.mark.parametrize(
    "accept",
    [{"subprotocol": "chat"}, {"headers": [(b"Sec-WebSocket-Protocol", b"chat")]}],
)
def test_an_application_that_chooses_keeps_its_choice(accept: dict[str, Any]) -> None:
    """Also where it answers by a header of its own."""
    server, _ = _serve(accept)
    assert server.sent[0] == {**accept, "type": "websocket.accept"}


@pytest.mark.parametrize("answer", ["v9", None])
def test_nothing_is_answered_that_nobody_offered(answer: str | None) -> None:
    """A client fails a handshake that is answered with a subprotocol it did not offer (RFC 6455, section 4.1)."""
    server, _ = _serve({}, _Takes(answer))
    assert server.sent[0] == {"type": "websocket.accept"}


def test_a_framework_accepts_without_knowing() -> None:
    """Starlette always says which subprotocol it accepts with: None."""
    found: list[list[str]] = []

    async def page(websocket: WebSocket) -> None:
        found.append(websocket.scope["subprotocols"])
        assert "bearer" not in websocket.headers.get("sec-websocket-protocol", "")
        await websocket.accept()
        await websocket.close()

    async def main() -> list[Message]:
        header = [(b"sec-websocket-protocol", b"bearer, tok.en-1")]
        server = ScriptedServer(subprotocols=["bearer", TOKEN], headers=header)
        server.connect()
        app = Starlette(routes=[WebSocketRoute("/ws", page)])
        await server.call(WebSocketGuardMiddleware(app, observers=(), policies=(_Takes(),)))
        return server.sent

    assert run(main)[0]["subprotocol"] == "bearer"
    assert found == [[]]
