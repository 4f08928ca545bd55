"""
A websocket client that does only what it is told: it may stop reading, fall silent, or vanish.

The protocol is that of the `websockets` library without its I/O; the transport is asyncio's. It judges nothing.
Imported by the probes of `verify`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from types import TracebackType

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from ._address import Address
from ._opening import PeerError, begin, check_head

READ_BYTES = 65536
DEAF_BUFFER_BYTES = 4096  # of the kernel and of the stream, for a peer that does not read


class Peer:
    """
    One open connection. At the end of the `async with` block it is reset.

    Attributes:
        messages: Messages that were read.
        pings: Pings that were read.
        answers: Whether pings and closes are answered.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ClientProtocol) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._has_ended = False
        self._pongs = 0
        self._taken = 0
        self.messages = 0
        self.pings = 0
        self.answers = True

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        within_s: float,
        origin: str | None = None,
        cookie: str | None = None,
        is_deaf: bool = False,
    ) -> Peer:
        """
        Connect.

        Args:
            address: Where.
            within_s: How long it may take, in seconds.
            origin: Header ``Origin``; None: that of the address.
            cookie: Header ``Cookie``, unless the address has one; None: none.
            is_deaf: Whether its buffers are small, for a peer that will not read.

        Raises:
            PeerError: There is no connection.
        """
        transport = socket.socket(address.family, socket.SOCK_STREAM)
        transport.setblocking(False)
        if is_deaf:
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)
        protocol = begin(address, origin, cookie)
        limit = DEAF_BUFFER_BYTES if is_deaf else READ_BYTES
        try:
            return await asyncio.wait_for(cls._shake_hands(address, transport, protocol, limit), within_s)
        except asyncio.TimeoutError:
            raise PeerError(f"no answer to the opening handshake within {within_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise PeerError(f"TLS: the certificate is not valid: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise PeerError(f"TLS failed, perhaps nobody speaks it there: {error.reason or error}") from None
        except OSError as error:
            raise PeerError(f"the connection was lost: {error.strerror or error}") from None
        finally:
            if protocol.state is State.CONNECTING:
                transport.close()

    @classmethod
    async def _shake_hands(
        cls, address: Address, transport: socket.socket, protocol: ClientProtocol, limit: int
    ) -> Peer:
        await asyncio.get_running_loop().sock_connect(transport, address.place)
        host = address.uri.host if address.tls else None
        reader, writer = await asyncio.open_connection(
            sock=transport, ssl=address.tls, server_hostname=host, limit=limit
        )
        try:
            peer = cls(reader, writer, protocol)
            peer._flush()
            head = b""
            while protocol.state is State.CONNECTING:
                data = await reader.read(limit)
                head += data
                check_head(head, is_whole=not data)
                peer._feed(data)
                if protocol.handshake_exc is not None:
                    raise PeerError(f"the answer to the opening handshake is not valid: {protocol.handshake_exc}")
        except BaseException:
            writer.transport.abort()
            raise
        return peer

    @property
    def is_over(self) -> bool:
        """Tell whether a close frame, or the end of the transport, was read."""
        return self._has_ended or self.close_code is not None

    @property
    def close_code(self) -> int | None:
        """Return the code of the service's close frame, 1005 when it had none; None when no frame was read."""
        frame = self._protocol.close_rcvd
        return None if frame is None else int(frame.code)

    async def message(self, within_s: float) -> bool:
        """Read up to the next message; False when the connection or the time is over."""
        await self._read_until(within_s, lambda: self.messages > self._taken)
        has_come = self.messages > self._taken
        self._taken = self.messages
        return has_come

    async def ping(self, within_s: float) -> bool:
        """Send a ping and wait for an answer; False when the connection or the time is over."""
        before = self._pongs
        if self._may_send():
            self._protocol.send_ping(b"")
            self._flush()
            await self._read_until(within_s, lambda: self._pongs > before)
        return self._pongs > before

    async def send(self, text: str, within_s: float) -> bool:
        """Send a message; False when the connection is over, or the service does not take it in time."""
        if not self._may_send():
            return False
        self._protocol.send_text(text.encode())
        self._flush()
        try:
            await asyncio.wait_for(self._writer.drain(), within_s)
        except asyncio.TimeoutError:
            return False
        except OSError:
            self._has_ended = True
            return False
        return True

    async def close(self, code: int, within_s: float) -> int | None:
        """Send a close frame; return the code of the answer, None when none came in time."""
        if self._may_send():
            self._protocol.send_close(code)
            self._flush()
        await self.watch(within_s)
        return self.close_code

    async def watch(self, within_s: float) -> None:
        """Read until the connection or the time is over."""
        await self._read_until(within_s, lambda: False)

    def skip(self) -> None:
        """Count what was read so far as taken."""
        self._taken = self.messages

    def reset(self) -> None:
        """End the transport with a TCP reset, as a vanished peer does."""
        transport = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has ended already
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._has_ended = True
        self._writer.transport.abort()

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reset()

    def _may_send(self) -> bool:
        return self._protocol.state is State.OPEN and not self._has_ended

    async def _read_until(self, within_s: float, is_enough: Callable[[], bool]) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_s
        while not is_enough() and not self.is_over and (left_s := deadline - clock()) > 0:
            try:
                data = await asyncio.wait_for(self._reader.read(READ_BYTES), left_s)
            except asyncio.TimeoutError:
                return
            except OSError:
                data = b""
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
        else:
            self._has_ended = True
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._count(event)
        if self.answers:
            self._flush()

    def _count(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self.pings += 1
        elif frame.opcode is Opcode.PONG:
            self._pongs += 1
        elif frame.opcode is not Opcode.CLOSE and frame.fin:
            self.messages += 1

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._writer.transport.is_closing():
                self._writer.write(data)
