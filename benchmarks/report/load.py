"""
The clients, in a process of their own: ``python -m benchmarks.report.load``.

One command per line of its input, one line of answer. A client is as cheap as can be, so that the server is what is
measured: it looks at the heads of frames alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from typing import Any

_MASK = bytes((7, 33, 129, 250))
_AT_ONCE = 50
"""Opening handshakes under way at the same time."""


def frame(payload: bytes) -> bytes:
    """Make a masked text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0x80 | 126)) + size.to_bytes(2, "big")
    return head + _MASK + bytes(one ^ _MASK[at % 4] for at, one in enumerate(payload))


def _frame_size(buffer: bytearray) -> int:
    """Give the size of the first frame of a server; more than there is when its head is not complete."""
    if len(buffer) < 2 or (buffer[1] == 126 and len(buffer) < 4):
        return len(buffer) + 1
    return 4 + int.from_bytes(buffer[2:4], "big") if buffer[1] == 126 else 2 + buffer[1]


class Client(asyncio.Protocol):
    """
    One connection, which sends its next message when the answer to the last one is complete.

    Attributes:
        is_open: Done when the handshake is.
        is_gone: Done when the connection is lost.
        times_s: Seconds of every round trip.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.is_open: asyncio.Future[None] = loop.create_future()
        self.is_gone: asyncio.Future[None] = loop.create_future()
        self.times_s: list[float] = []
        self._frame = b""
        self._ends_s = 0.0
        self._sent_s = 0.0
        self._buffer = bytearray()
        self._transport: Any = None
        self._over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for a websocket."""
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Look for whole frames."""
        self._buffer += data
        if not self.is_open.done():
            head, blank, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.is_open.set_exception(ConnectionError(head.split(b"\r\n")[0].decode()))
                return
            self._buffer = bytearray(rest)
            self.is_open.set_result(None)
        while (size := _frame_size(self._buffer)) <= len(self._buffer):
            opcode, payload = self._buffer[0] & 0x0F, bytes(self._buffer[2:size]) if self._buffer[0] == 0x89 else b""
            del self._buffer[:size]
            if opcode == 1:
                self._answered()
            elif opcode == 9:  # uvicorn sends one every 20 seconds, and closes where no answer comes
                self._transport.write(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def _answered(self) -> None:
        now_s = time.perf_counter()
        self.times_s.append(now_s - self._sent_s)
        if now_s < self._ends_s:
            self._sent_s = now_s
            self._transport.write(self._frame)
        elif not self._over.done():
            self._over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note."""
        for waiting in (self.is_open, self._over):
            if not waiting.done():
                waiting.set_exception(ConnectionError("the server is gone"))
                waiting.exception()
        self.is_gone.set_result(None)

    async def echo(self, size: int, ends_s: float) -> None:
        """Send messages of *size* bytes, one at a time, until `time.perf_counter` says *ends_s*."""
        self._frame = frame(b"x" * size)
        self._ends_s, self._over = ends_s, asyncio.get_running_loop().create_future()
        self.times_s.clear()
        self._sent_s = time.perf_counter()
        self._transport.write(self._frame)
        await self._over

    async def leave(self) -> None:
        """Close with 1000, and wait until the server has closed the connection."""
        self._transport.write(bytes((0x88, 0x82)) + _MASK + bytes((0x03 ^ _MASK[0], 0xE8 ^ _MASK[1])))
        try:
            await asyncio.wait_for(self.is_gone, 5)
        except asyncio.TimeoutError:
            self._transport.abort()


class Load:
    """Does what the commands say."""

    def __init__(self) -> None:
        self._clients: dict[int, list[Client]] = {}

    async def open(self, port: int, connections: int) -> dict[str, float]:
        """Open connections that stay."""
        clients = self._clients.setdefault(port, [])
        while len(clients) < connections:
            count = min(_AT_ONCE, connections - len(clients))
            clients += await asyncio.gather(*(_connect(port) for _ in range(count)))
        return {}

    async def close(self, port: int) -> dict[str, float]:
        """Close those of a port."""
        clients = self._clients.pop(port)
        for at in range(0, len(clients), _AT_ONCE):
            await asyncio.gather(*(client.leave() for client in clients[at : at + _AT_ONCE]))
        return {}

    async def echo(self, port: int, size: int, seconds: float) -> dict[str, float]:
        """Let every connection of a port echo; give round trips per second and latencies in milliseconds."""
        clients, started = self._clients[port], time.perf_counter()
        await asyncio.gather(*(client.echo(size, started + seconds) for client in clients))
        taken = time.perf_counter() - started
        times = sorted(one for client in clients for one in client.times_s)
        at_99 = min(len(times) - 1, len(times) * 99 // 100)
        return {"rate": len(times) / taken, "p50": times[len(times) // 2] * 1e3, "p99": times[at_99] * 1e3}

    async def churn(self, port: int, clients: int, seconds: float) -> dict[str, float]:
        """Let clients connect, echo once and leave, again and again; give connections per second."""
        started = time.perf_counter()

        async def come_and_go() -> int:
            count = 0
            while time.perf_counter() - started < seconds:
                client = await _connect(port)
                await client.echo(10, 0.0)
                await client.leave()
                count += 1
            return count

        counts = await asyncio.gather(*(come_and_go() for _ in range(clients)))
        return {"rate": sum(counts) / (time.perf_counter() - started)}


async def _connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    await asyncio.wait_for(client.is_open, 30)
    return client


async def _serve() -> None:
    load, loop = Load(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        print(json.dumps(await getattr(load, asked.pop("measure"))(**asked)), flush=True)


def main() -> None:
    """Answer until the input ends."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve())
    else:
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
