"""An application behind each way to authenticate, one per path: it tells the client who it is, and what it sees."""

from __future__ import annotations

import asyncio
import json

from asgi_ws_guard import Policy, WebSocketGuardMiddleware, current_connection
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.auth import (
    Auth,
    FirstMessageAuth,
    Tickets,
    bearer_header,
    cookie,
    jwt,
    query,
    subprotocol,
    tokens,
)
from asgi_ws_guard.plugins.origin import Origin

TOKEN = "s3cr3t-token"
SECRET = "s3cr3t-0123456789-0123456789-0123456789"


async def cancelled(token: str) -> str:
    """Await what somebody else has cancelled."""
    work = asyncio.ensure_future(asyncio.sleep(1, token))
    work.cancel()
    return await work


ANN = tokens({TOKEN: "ann"})
POLICIES: dict[str, list[Policy]] = {
    "/origin": [Origin()],
    "/header": [Auth(ANN, source=bearer_header())],
    "/cookie": [Origin(), Auth(ANN, source=cookie("session"))],
    "/subprotocol": [Auth(ANN, source=subprotocol())],
    "/ticket": [Auth(Tickets(SECRET), source=query("ticket"))],
    "/jwt": [Auth(jwt(SECRET, algorithms=["HS256"], issuer=None, audience="chat"), source=bearer_header())],
    "/first": [FirstMessageAuth(ANN)],
    "/cancelled": [FirstMessageAuth(cancelled)],
    "/cancelled-early": [Auth(cancelled, source=bearer_header())],
    "/broken": [FirstMessageAuth({}.__getitem__)],
}


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and say who it is and where the token can be seen."""
    await receive()
    await send({"type": "websocket.accept"})
    known = current_connection().identity
    seen = [name.decode() for name, value in scope["headers"] if TOKEN.encode() in value]
    told = {"subject": known and known.subject, "subprotocols": scope["subprotocols"], "seen": seen}
    await send({"type": "websocket.send", "text": json.dumps(told)})
    message: Message = {}
    while message.get("type") != "websocket.disconnect":
        message = await receive()


GUARDED = {path: WebSocketGuardMiddleware(show, observers=(), policies=one) for path, one in POLICIES.items()}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Send each path to its guard; over HTTP answer that the server is there."""
    if scope["type"] == "websocket":
        await GUARDED[scope["path"]](scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
