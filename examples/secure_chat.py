"""
A chat that lets in whom it knows, and no more of them than it can serve: every policy, and the drain, to copy from.

Run it, open http://127.0.0.1:8000/ and choose a name::

    uvicorn examples.secure_chat:app

The page logs in over HTTP, where cookies, forms and the rules against CSRF are at home. For each WebSocket it fetches a
ticket, which is good once, for one path, for some seconds, and travels as a subprotocol: no address, and so no access
log, has a secret. docs/policies.md says what each policy stops.

``CHAT_SECRET`` (32 bytes or more) and ``CHAT_REDIS`` (``redis://...``) are needed as soon as there are two processes;
``CHAT_ORIGINS`` lists the origins of the pages, where they are not the host of the chat itself; ``CHAT_AUTH`` is one of
`WAYS`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator

from fastapi import Body, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse
from starlette.middleware.sessions import SessionMiddleware

from asgi_ws_guard import Drain, Policy, WebSocketGuardMiddleware, current_connection
from asgi_ws_guard.hub import Hub
from asgi_ws_guard.plugins.auth import Auth, FirstMessageAuth, RedisNonces, Tickets, bearer_header, json_field, jwt
from asgi_ws_guard.plugins.auth import subprotocol as offered
from asgi_ws_guard.plugins.limits import Limits, Rate
from asgi_ws_guard.plugins.origin import Origin
from asgi_ws_guard.plugins.shedding import Shedding
from asgi_ws_guard.plugins.timeouts import Timeouts

SECRET = os.environ.get("CHAT_SECRET") or secrets.token_hex(32)
REDIS = os.environ.get("CHAT_REDIS")
SESSION_S = 8 * 3600

nonces = RedisNonces(REDIS) if REDIS else None  # None: in the memory of this one process
tickets = Tickets(SECRET, lifetime_s=15, store=nonces, audience="chat")
WAYS: dict[str, Policy] = {
    "ticket": Auth(tickets, source=offered("ticket")),
    # what an identity provider signs, from programs (Authorization) and pages (["bearer", token])
    "jwt": Auth(
        jwt(SECRET, algorithms=["HS256"], issuer="https://id.example.org", audience="chat"),
        source=[bearer_header(), offered("bearer")],
    ),
    # {"ticket": "..."} as the first message: the handshake is open to everybody for five seconds
    "first_message": FirstMessageAuth(tickets, extract=json_field("ticket")),
}

attempts = Limits(attempts_per_address=Rate(60, per_s=60), storage=REDIS)
limits = Limits(
    connections=10_000,
    per_identity=5,
    messages=Rate(10, burst=20),  # faster ones are delayed: TCP holds the sender back
    max_message_bytes=4096,
)
POLICIES: list[Policy] = [  # asked in this order, the cheapest first; who is denied costs nothing of what stands behind
    Shedding(max_lag_s=0.5),
    attempts,
    Origin(os.environ.get("CHAT_ORIGINS", "").split()),
    WAYS[os.environ.get("CHAT_AUTH", "ticket")],
    limits,
    Timeouts(handshake_s=10, idle_s=300, max_age_s=12 * 3600, send_s=5),
]


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close the sockets to Redis at the end."""
    yield
    await attempts.aclose()
    if nonces:
        await nonces.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=SECRET, max_age=SESSION_S, same_site="strict")
app.add_middleware(WebSocketGuardMiddleware, policies=POLICIES, drain=Drain(deadline_s=8))
hub = Hub()


@app.get("/")
async def page() -> FileResponse:
    """Show the chat."""
    return FileResponse(os.path.join(os.path.dirname(__file__), "secure_chat.html"))


@app.post("/login")
async def login(request: Request, name: str = Body(embed=True, min_length=1, max_length=20)) -> None:
    """Log in; a stub that believes everybody. Here belongs the password, or the identity provider."""
    request.session.update(user=name, until=time.time() + SESSION_S)


@app.post("/ticket")
async def ticket(request: Request) -> dict[str, str]:
    """Mint a ticket for one WebSocket, which is closed with 4401 when the session ends."""
    user, until = request.session.get("user"), request.session.get("until", 0.0)
    if user is None or until <= time.time():
        raise HTTPException(401)
    return {"ticket": tickets.mint(user, expires_unix_s=until, path="/chat")}


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    """Pass on what is said. Who is here is known, and has not said too much too fast: nothing to check."""
    await websocket.accept()
    hub.join(websocket, "chat")
    async for text in websocket.iter_text():
        identity = current_connection().identity
        await hub.send_to_room("chat", {"user": identity and identity.subject, "text": text})
