"""
Plays plans: hundreds of clients at once in one event loop, each a bare socket with hand-made frames.

A client answers nothing by itself: no ping and no close. Every wait has a limit, so that a storm always ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from interop.servers import HOST

from .plans import Plan, Step

ANSWER_S = 60.0  # a whole handshake is answered; the limit is for a machine that has much else to do
CLOSED_S = 60.0  # so is a close of the client, whatever the handler does: the guard reads ahead after half a second
SEND_S = 1.0  # a server may stop reading
ZERO_MASK = bytes(4)  # a legal key that leaves the payload as it is, so that a flood costs the client nothing


@dataclass(frozen=True)
class Outcome:
    """
    What became of a client.

    Args:
        plan: What it was to do.
        status: HTTP status of the answer; None when it came to none.
        fault: What the server owed it; empty when it owed nothing.
    """

    plan: Plan
    status: int | None
    fault: str = ""


async def storm(port: int, plans: Iterable[Plan], at_once: int, done: Callable[[Outcome], None]) -> None:
    """
    Play all plans.

    Args:
        port: Of the server, on 127.0.0.1.
        plans: In the order in which they start.
        at_once: How many clients there are at any time.
        done: Called with the outcome of each.
    """
    rest = iter(plans)
    async with contextlib.AsyncExitStack() as stack:
        tasks = [asyncio.create_task(_play_all(port, rest, done)) for _ in range(at_once)]
        for task in tasks:
            stack.callback(task.cancel)
        await asyncio.gather(*tasks)


async def _play_all(port: int, plans: Iterator[Plan], done: Callable[[Outcome], None]) -> None:
    for plan in plans:
        done(await play(port, plan))


async def play(port: int, plan: Plan) -> Outcome:
    """
    Play one plan.

    Args:
        port: Of the server, on 127.0.0.1.
        plan: What to do.
    """
    client = Client(port, plan)
    try:
        for step in plan.steps:
            await client.do(step)
            if client.is_over:
                break
    except OSError as error:
        if client.status is None and not isinstance(error, ConnectionError):
            client.fault = f"{type(error).__name__}: {error}"
    finally:
        client.leave()
    return Outcome(plan, client.status, client.fault)


class Client:
    """
    One client on one bare socket.

    Attributes:
        status: HTTP status of the answer to the handshake; None before.
        fault: What the server owed it.
        is_over: Whether there is nothing left to do.
    """

    def __init__(self, port: int, plan: Plan) -> None:
        self.status: int | None = None
        self.fault = ""
        self.is_over = False
        self._port = port
        self._path = plan.path
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)

    async def do(self, step: Step) -> None:
        """
        Take one step.

        Args:
            step: Its name, which is that of a method here, and what it needs.
        """
        name, *values = step
        await getattr(self, f"_{name}")(*values)

    def leave(self) -> None:
        """End the transport, if it has not ended."""
        self._socket.close()

    async def _buffer(self, size: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    async def _open(self, share: float) -> None:
        await self._loop.sock_connect(self._socket, (HOST, self._port))
        request = _handshake(self._port, self._path)
        await self._send(request[: round(share * len(request))])

    async def _answer(self) -> None:
        received = b""
        deadline = time.monotonic() + ANSWER_S
        while b"\r\n\r\n" not in received:
            chunk = await self._recv(deadline - time.monotonic())
            if not chunk:
                self.is_over = True
                self.fault = "no answer to the handshake" if chunk is None else ""
                return
            received += chunk
        self.status = int(received.split(b" ", 2)[1])
        self.is_over = self.status != 101

    async def _say(self, count: int, size: int) -> None:
        await self._send(frame(0x1, b"x" * size) * count)

    async def _fragments(self, count: int) -> None:
        parts = [frame(0x1, b"part", final=False), *(frame(0x0, b"part", final=False) for _ in range(count))]
        await self._send(b"".join(parts) + frame(0x9, b"") + frame(0x0, b"end"))

    async def _ping(self) -> None:
        await self._send(frame(0x9, b"ping"))

    async def _part(self, size: int) -> None:
        await self._send(frame(0x1, b"x" * 100)[:size])

    async def _junk(self, kind: str) -> None:
        await self._send(JUNK[kind])

    async def _read(self, for_s: float) -> None:
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0 and await self._recv(left):
            pass

    async def _wait(self, for_s: float) -> None:
        await asyncio.sleep(for_s)

    async def _silent(self, for_s: float) -> None:
        """Be there, and neither read nor answer: what is left of a peer whose network is gone."""
        await asyncio.sleep(for_s)

    async def _half_close(self, for_s: float) -> None:
        """End the one direction, and read on."""
        self._socket.shutdown(socket.SHUT_WR)
        await self._read(for_s)

    async def _close(self, code: int, reason: str, waits: int) -> None:
        if not await self._send(frame(0x8, struct.pack("!H", code) + reason.encode())) or not waits:
            return
        deadline = time.monotonic() + CLOSED_S
        while chunk := await self._recv(deadline - time.monotonic()):
            if chunk.endswith(CLOSE_ANSWERS) or b"\x88" in chunk[-128:]:
                return
        if chunk is None:
            self.fault = f"no answer to the close with {code}"

    async def _reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    async def _fin(self) -> None:
        self._end()

    def _end(self) -> None:
        self._socket.close()
        self.is_over = True

    async def _send(self, data: bytes) -> bool:
        """Send, for as long as the server reads; tell whether it read all."""
        try:
            await asyncio.wait_for(self._loop.sock_sendall(self._socket, data), SEND_S)
        except (TimeoutError, asyncio.TimeoutError):
            return False
        return True

    async def _recv(self, for_s: float) -> bytes | None:
        """Read once: nothing at the end of the transport, None when nothing came in time."""
        try:
            return await asyncio.wait_for(self._loop.sock_recv(self._socket, 65536), max(0.0, for_s))
        except (TimeoutError, asyncio.TimeoutError):
            return None
        except ConnectionError:
            return b""


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bool = True) -> bytes:
    """
    Encode a frame (RFC 6455, section 5.2).

    Args:
        opcode: 0 to 15.
        payload: At most 65535 bytes.
        final: Whether the message ends with it.
        mask: Whether to mask it, as a client must.
    """
    bit = 0x80 if mask else 0
    size = bytes([bit | len(payload)]) if len(payload) < 126 else struct.pack("!BH", bit | 126, len(payload))
    return bytes([0x80 * final | opcode]) + size + (ZERO_MASK if mask else b"") + payload


CLOSE_ANSWERS = (frame(0x8, b"", mask=False), frame(0x8, struct.pack("!H", 1000), mask=False))
JUNK = {
    "unmasked": frame(0x1, b"no mask", mask=False),
    "opcode": frame(0x5, b"there is none"),
    "utf8": frame(0x1, b"\xff\xfe"),
    "close_code": frame(0x8, struct.pack("!H", 1005)),
    "length": b"\x81\xff" + b"\xff" * 8,
}


def _handshake(port: int, path: str) -> bytes:
    key = base64.b64encode(path.encode()[-16:].rjust(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
