"""
Crowds of connections for the benchmark of the hub: a real server without a network, or no server at all.

What a member is sent ends in a transport that throws it away and says when everybody has got it, so that all subjects
are measured to the same end, and none for what it has only put into a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from ._subjects import App, scope

HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Sink:
    """Where everything ends: counts down what is expected."""

    def __init__(self) -> None:
        self.left = 0
        self.all_arrived = asyncio.Event()

    def expect(self, number: int) -> None:
        """Expect a number of writes from now on."""
        self.left = number
        self.all_arrived.clear()


class NullTransport:
    """Throws everything away."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def write(self, data: bytes) -> None:
        """Take bytes."""
        sink = self.sink
        sink.left -= 1
        if not sink.left:
            sink.all_arrived.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Know nothing."""
        return default

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def close(self) -> None:
        """Stay open."""

    def pause_reading(self) -> None:
        """There is nothing to read."""

    resume_reading = pause_reading


class Crowd:
    """
    Connections of uvicorn's own protocol objects: the work of a server is in the price, the kernel's is not.

    Attributes:
        protocols: uvicorn's side of each.
        sink: Where all that is sent ends.
    """

    def __init__(self, app: App, path: str = "/ws") -> None:
        self.protocols: list[Any] = []
        self.sink = Sink()
        self._handshake = HANDSHAKE.format(path).encode()
        self._config = Config(app, log_level="critical", lifespan="off", ws_ping_interval=None)
        self._config.load()
        self._state = ServerState()

    async def come(self, number: int, greeting: bytes = b"") -> None:
        """
        Let a number of members come.

        Args:
            number: How many.
            greeting: Frames that each client sends after the handshake.
        """
        loop = asyncio.get_running_loop()
        for _ in range(number):
            protocol: Any = WebSocketsSansIOProtocol(self._config, self._state, {}, loop)
            protocol.connection_made(NullTransport(self.sink))
            protocol.data_received(self._handshake)
            self.protocols.append(protocol)
        while not all(one.handshake_complete for one in self.protocols):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if greeting:
            for one in self.protocols:
                one.data_received(greeting)

    async def all_reached(self, sending: Coroutine[Any, Any, object]) -> None:
        """Send, and wait until something has been written to every member."""
        self.sink.expect(len(self.protocols))
        await sending
        await self.sink.all_arrived.wait()

    @property
    def live(self) -> int:
        """Number of members whose handler is not done."""
        return len(self._state.tasks)

    async def go(self) -> None:
        """Let all go."""
        for one in self.protocols:
            one.connection_lost(None)
        while self.live:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Nobody:
    """
    Connections whose server is an empty coroutine: what is left of a send is the price of whoever sends.

    Attributes:
        sends: The empty coroutine of each.
    """

    def __init__(self, app: App) -> None:
        self.sends: list[Callable[[Any], Coroutine[Any, Any, None]]] = []
        self._app = app
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Future[Any]] = []

    async def come(self, number: int) -> None:
        """Let a number of members come."""
        self._tasks += [asyncio.ensure_future(self._serve()) for _ in range(number)]
        await asyncio.sleep(0.1)

    async def go(self) -> None:
        """Let all go at once."""
        self._over.set()
        await asyncio.wait(self._tasks)

    async def _serve(self) -> None:
        messages = [{"type": "websocket.connect"}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await self._over.wait()
            return {"type": "websocket.disconnect", "code": 1001}

        async def send(message: Any) -> None:
            pass

        self.sends.append(send)
        await self._app(scope(), receive, send)
