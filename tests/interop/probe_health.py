"""What the health tests serve: a guarded Starlette application with health mounted and at a path, and health alone."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.health import health_app
from asgi_ws_guard.plugins.registry import Registry

TOKEN = "let-me-in"


async def home(request: Request) -> PlainTextResponse:
    """Answer what is not about health."""
    return PlainTextResponse("home")


async def room(websocket: WebSocket) -> None:
    """Echo, until a text says how to end."""
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "close":
            await websocket.close(4001, "s3cret-reason")
            return
        if text == "raise":
            raise ValueError("s3cret-error")
        await websocket.send_text(text)


async def private(websocket: WebSocket) -> None:
    """Deny."""
    await websocket.close(4003)


registry = Registry()
site = Starlette(
    routes=[
        Route("/", home),
        Mount("/mounted", app=health_app(registry, token=TOKEN)),
        WebSocketRoute("/rooms/{room}", room),
        WebSocketRoute("/private/{room}", private),
    ]
)
app = WebSocketGuardMiddleware(site, observers=[registry], health_path="/ws-health", health_token=TOKEN)
alone = health_app(Registry())
