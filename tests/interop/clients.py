"""
Real clients: the ``websockets`` library for the ordinary, raw sockets for what no library does.

Everything is synchronous and bounded in time. No expectation stands here.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from .servers import HOST

OPEN_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 0.5  # some servers do not answer a close while the handler does not receive

_numbers = itertools.count(1)


def new_tag() -> str:
    """Return a tag that no other connection of this process has."""
    return f"t{next(_numbers)}"


@dataclass(frozen=True)
class Seen:
    """
    What a client saw until the end, or until it stopped waiting.

    Args:
        end: ``close`` (a close frame came), ``eof`` (the transport ended without one), or ``open``.
        code: Code of the close frame, 1005 when it carried none; None without a close frame.
        reason: Reason of the close frame.
        messages: Messages before, in order.
    """

    end: str
    code: int | None = None
    reason: str = ""
    messages: tuple[str | bytes, ...] = ()


class _Unhurried(ClientConnection):
    """
    A client that still gives what came before a close which it can answer no more.

    ``websockets`` 17.4 forgets it then. And daphne 4.2.3 may reset at once: it gives a client one second to answer, but
    txaio 26.6 cuts the end of that to a whole second of the clock.
    """

    def send_data(self) -> None:
        """Write what is to be written, to a peer that may be gone."""
        try:
            super().send_data()
        except OSError:
            if self.protocol.close_rcvd is None:
                raise


@contextlib.contextmanager
def library_client(
    port: int, path: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = ()
) -> Iterator[ClientConnection]:
    """
    Connect with the ``websockets`` library, and close at the end of the block.

    Args:
        port: Port on 127.0.0.1.
        path: Path with the query.
        headers: More headers of the handshake.
        subprotocols: What is offered.
    """
    client = connect(
        f"ws://{HOST}:{port}{path}",
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        ping_interval=None,
        compression=None,
        proxy=None,
        additional_headers=headers,
        subprotocols=[Subprotocol(one) for one in subprotocols] or None,
        create_connection=_Unhurried,
    )
    with client:  # websockets 16 types what `with` gives as the base class
        yield client


def watch(client: ClientConnection, *, timeout_s: float = 3.0) -> Seen:
    """
    Read until the connection ends.

    Args:
        client: An open library client.
        timeout_s: How long to wait in all, in seconds.

    Returns:
        Seen: with ``end="open"`` when the time was over first.
    """
    deadline = time.monotonic() + timeout_s
    messages: list[str | bytes] = []
    while True:
        try:
            messages.append(client.recv(timeout=max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            return Seen("open", messages=tuple(messages))
        except ConnectionClosed as error:
            if error.rcvd is None:
                return Seen("eof", messages=tuple(messages))
            return Seen("close", error.rcvd.code, error.rcvd.reason, tuple(messages))


@dataclass(frozen=True)
class Answer:
    """
    What a server answered to an opening handshake.

    Args:
        status: The HTTP status; None when no valid answer came.
        body: The bytes after the headers, as far as they came.
        ended: Whether the server closed the transport, or the client stopped waiting.
        headers: Dict: lower-case name -> value.
    """

    status: int | None
    body: bytes = b""
    ended: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


class RawPeer:
    """
    A websocket client on a bare socket that does only what it is told.

    It answers no ping and no close, reads nothing by itself, and can end the transport in ways
    that libraries do not offer.

    Args:
        port: Port on 127.0.0.1.
        path: Path with the query.
        receive_buffer_bytes: Size of the kernel's receive buffer; None leaves the default.
        headers: More headers of the handshake.
    """

    def __init__(
        self,
        port: int,
        path: str,
        *,
        receive_buffer_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(OPEN_TIMEOUT_S)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            self._socket.connect((HOST, port))
            self._socket.sendall(_handshake(port, path, headers or {}))
        except BaseException:
            self._socket.close()
            raise
        self._received = b""

    def answer(self, *, timeout_s: float = OPEN_TIMEOUT_S, whole: bool = False) -> Answer:
        """
        Read the answer to the opening handshake.

        Args:
            timeout_s: How long to wait in all, in seconds.
            whole: Read the body too, up to its announced length or the end of the transport.
        """
        deadline = time.monotonic() + timeout_s
        ended = False
        while not ended and not _complete(self._received, whole=whole):
            chunk = self._read(deadline)
            if chunk is None:
                break
            ended = not chunk
            self._received += chunk
        return _parse_answer(self._received, ended=ended)

    def accepted(self) -> None:
        """Read the answer and insist on 101."""
        answer = self.answer()
        assert answer.status == 101, answer

    def send_text(self, text: str) -> None:
        """Send one text message."""
        self._socket.sendall(frame(0x1, text.encode()))

    def send_behind_ping(self, texts: list[str]) -> None:
        """Send a ping and text messages at once, so that the server reads them at once."""
        self._socket.sendall(frame(0x9, b"") + b"".join(frame(0x1, text.encode()) for text in texts))

    def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame and do not wait for the answer."""
        self._socket.sendall(frame(0x8, struct.pack("!H", code) + reason.encode()))

    def read(self, timeout_s: float) -> bytes:
        """Read what comes first, empty when nothing does in time, in seconds, or the transport ends."""
        return self._read(time.monotonic() + timeout_s) or b""

    def ends(self, timeout_s: float) -> bool:
        """Read until the transport ends; tell whether it did in time, in seconds."""
        deadline = time.monotonic() + timeout_s
        while (chunk := self._read(deadline)) is not None:
            if not chunk:
                return True
        return False

    def wait_for_traffic(self, reads: int = 3, timeout_s: float = 5.0) -> None:
        """
        Wait until the server, which sends from time to time, has surely read what was sent to it.

        Its event loop polls the socket between two of its own sends, so that the third new one comes after the read.

        Args:
            reads: How many reads must give something, after what is there already.
            timeout_s: Deadline for each, in seconds.
        """
        while self._read(time.monotonic() + 0.001):
            pass
        for _ in range(reads):
            assert self._read(time.monotonic() + timeout_s), "the server sends nothing"

    def reset(self) -> None:
        """End the transport with a TCP reset, as a vanished peer does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def leave(self) -> None:
        """End the transport with a FIN and without a close frame."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _read(self, deadline: float) -> bytes | None:
        """Return a chunk, empty at the end of the transport, or None when the time is over."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return None
        self._socket.settimeout(remaining)
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""


def frame(opcode: int, payload: bytes) -> bytes:
    """
    Encode one final, masked frame (RFC 6455, section 5.2).

    Args:
        opcode: 0 to 15.
        payload: At most 125 bytes: enough for every test here.
    """
    assert len(payload) <= 125
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked


def _handshake(port: int, path: str, headers: Mapping[str, str]) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    ).encode()


def _headers(received: bytes) -> dict[str, str]:
    head = received.partition(b"\r\n\r\n")[0].decode("latin-1")
    pairs = (line.partition(":") for line in head.split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _complete(received: bytes, *, whole: bool) -> bool:
    _, end, body = received.partition(b"\r\n\r\n")
    if not end or not whole:
        return bool(end)
    headers = _headers(received)
    if "content-length" in headers:
        return len(body) >= int(headers["content-length"])
    return "chunked" in headers.get("transfer-encoding", "") and body.endswith(b"0\r\n\r\n")


def _parse_answer(received: bytes, *, ended: bool) -> Answer:
    head, end, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not end or len(words) < 2 or not words[0].startswith(b"HTTP/"):
        return Answer(None, ended=ended)
    if "chunked" in _headers(received).get("transfer-encoding", ""):
        body = _unchunk(body)
    return Answer(int(words[1]), body, ended, _headers(received))


def _unchunk(body: bytes) -> bytes:
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        text += body[:length]
        body = body[length + 2 :]
        if not length:
            break
    return text
