"""
A Django Channels application behind the guard: an echo, a push route and a route that closes.

Run it with ``uvicorn examples.channels_app:app`` (or hypercorn, granian, daphne: the guard makes them
alike) and connect to ``ws://127.0.0.1:8000/echo``, ``/push`` or ``/close``.
"""

import asyncio
import itertools

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import path

from asgi_ws_guard import WebSocketGuardMiddleware

settings.configure(LOGGING_CONFIG=None)  # a project has DJANGO_SETTINGS_MODULE


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
    """An echo."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send back what comes in."""
        await self.send(text_data)


class Push(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
    """A push: a consumer sends from a task of its own, or it hears nothing."""

    async def connect(self) -> None:
        """Begin to send."""
        await self.accept()
        self.task = asyncio.create_task(self.push())

    async def push(self) -> None:
        """Send a number, for ever."""
        for number in itertools.count():
            await self.send(str(number))
            await asyncio.sleep(0.05)

    async def disconnect(self, code: int) -> None:
        """Stop sending; called for every connection, whatever its last send did."""
        self.task.cancel()


class Close(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
    """A goodbye."""

    async def connect(self) -> None:
        """Say goodbye, close with a code of the application, and send once too often."""
        await self.accept()
        await self.send("goodbye")
        await self.close(4000, "done")
        await self.send("too late: the guard drops it")


routes = [path("echo", Echo.as_asgi()), path("push", Push.as_asgi()), path("close", Close.as_asgi())]
app = WebSocketGuardMiddleware(URLRouter(routes), linger_s=1.0)
