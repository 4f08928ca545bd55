"""
Django Channels: a consumer has no receive to call, so what the others do after it stands in ``disconnect()``.

Its cleanup is the one of the leaking groups: messages of a group keep coming while the client is cut off.
"""

from __future__ import annotations

import asyncio
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from ..stage import PAUSE_S, Gone, Socket, case, goodbye, play, start_pushing

if not settings.configured:
    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    settings.configure(CHANNEL_LAYERS={"default": layer}, LOGGING_CONFIG=None)


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
    """The consumer."""

    async def connect(self) -> None:
        """Serve one connection; what the others receive until it is over goes on in `disconnect`."""
        self.ws = Socket(self.accept, self.send, _nothing_to_receive, self._close)
        scenario = case.get()[0]
        if scenario == "cleanup":
            await self.accept()
            self.group = case.get()[1]
            await self.channel_layer.group_add(self.group, self.channel_name)
            _groups[self.group] = asyncio.create_task(_send_to_group(self.group))
        elif scenario == "background":
            await self.accept()
            start_pushing(self.ws)
        else:
            await play(self.ws)

    async def _close(self, code: int) -> None:
        await self.close(code)

    async def group_tick(self, event: Any) -> None:
        """Send on what the group was sent."""
        await self.send("tick")

    async def disconnect(self, code: int) -> None:
        """Say goodbye, and leave the group."""
        if case.get()[0] == "cleanup":
            _groups.pop(self.group).cancel()
            await goodbye(self.ws)


_groups: dict[str, asyncio.Task[None]] = {}


async def _send_to_group(group: str) -> None:
    while True:
        await get_channel_layer().group_send(group, {"type": "group.tick"})
        await asyncio.sleep(PAUSE_S)


async def _nothing_to_receive() -> None:
    raise Gone


_router = URLRouter([path("channels", Consumer.as_asgi())])
app: Any = ProtocolTypeRouter({"websocket": _router})
