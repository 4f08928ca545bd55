"""What the admission tests serve: a raw application behind a policy that denies, hides a token, or wants one."""

from __future__ import annotations

from asgi_ws_guard import (
    Allow,
    Close,
    CloseStatus,
    Deny,
    Handshake,
    Identity,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._types import Receive, Scope, Send

TOKEN = "s3cr3t-token"
TIMEOUT_S = 1.0


class Doors:
    """Answers by the path."""

    def admit(self, handshake: Handshake) -> Allow | Deny:
        """Deny with each kind of answer, or lay down terms."""
        if handshake.path == "/who":
            challenge = (b"www-authenticate", b'Bearer realm="chat"')
            return Deny(401, headers=(challenge,), end=CloseStatus.UNAUTHORIZED, reason="no_token")
        if handshake.path == "/busy":
            return Deny(429, headers=((b"retry-after", b"7"),), end=CloseStatus.RATE_LIMITED, reason="too_many")
        if handshake.path == "/text":
            return Deny(503, body=b"come back later")
        if handshake.path == "/broken":
            raise ValueError("a bug in a policy")
        if handshake.path == "/offer":
            hidden = tuple(one for one in handshake.subprotocols if one == TOKEN)
            return Allow(identity=Identity("ann"), subprotocol="bearer", hidden_subprotocols=hidden)
        return Allow(first_message=First())


class First:
    """Knows one token."""

    timeout_s = TIMEOUT_S

    async def __call__(self, payload: str | bytes, /) -> Allow | Close:
        """Answer the first message."""
        return Allow(identity=Identity("ann")) if payload == TOKEN else Close(4401, "who?")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, say who it is and what was offered, and echo until the end."""
    await receive()
    await send({"type": "websocket.accept"})
    identity = current_connection().identity
    offers = b",".join(value for name, value in scope["headers"] if name == b"sec-websocket-protocol")
    said = f"{identity and identity.subject} {scope['subprotocols']} {offers.decode()}"
    await send({"type": "websocket.send", "text": said})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app_of_http(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what asks whether the server is there."""
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


app = WebSocketGuardMiddleware(app_of_http, policies=(Doors(),))
