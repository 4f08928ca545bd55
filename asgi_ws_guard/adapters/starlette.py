"""
Starlette and FastAPI: `WebSocket` keeps two states of its own and refuses by them, above the guard.

Seen with Starlette 0.40.0 to 1.10.0. After the application's own close `send`, `close` and `accept` raise
``Cannot call "send" once a close message has been sent.`` and ``receive_text`` and its kin
``WebSocket is not connected. Need to call "accept" first.``; after a disconnect was read ``receive`` raises
``Cannot call "receive" once a disconnect message has been received.``, without ever suspending, so that a handler that
catches everything stops the whole event loop. Here each of them asks the guard instead: a late message is dropped,
counted and reported there, a late `receive` gives the disconnect, and `receive_text` the usual `WebSocketDisconnect`.

The object's states stay as Starlette sets them. What is refused before the end stays refused, in Starlette's words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .._adapter import FrameworkAdapter, Patch, has_ended, replaces
from .._close import CloseCode
from .._types import Message


def patches() -> tuple[Patch, ...]:
    """
    Give what is replaced in `starlette.websockets.WebSocket`.

    Returns:
        `send`, `receive` and the three methods that read one message.

    Raises:
        AttributeError: This Starlette is built differently.
    """
    framework: Any = sys.modules["starlette.websockets"]
    websocket = framework.WebSocket
    return (
        Patch(websocket, "send", _send(framework, websocket.send)),
        Patch(websocket, "receive", _receive(framework, websocket.receive)),
        Patch(websocket, "receive_text", _reader(framework, websocket.receive_text)),
        Patch(websocket, "receive_bytes", _reader(framework, websocket.receive_bytes)),
        Patch(websocket, "receive_json", _reader_with_mode(framework, websocket.receive_json)),
    )


ADAPTER = FrameworkAdapter("starlette", since=(0, 40), before=(2,), patches=patches)


def _send(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    disconnected = framework.WebSocketState.DISCONNECTED

    @replaces(own)
    def send(self: Any, message: Message) -> Any:
        if self.application_state is disconnected and has_ended(self.scope):
            return late(self, message)
        return own(self, message)

    async def late(self: Any, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise _gone(framework, error) from error

    return send


def _receive(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    states = framework.WebSocketState
    connected = states.CONNECTED
    following = {"websocket.connect": connected, "websocket.disconnect": states.DISCONNECTED}

    @replaces(own)
    def receive(self: Any) -> Any:
        if self.client_state is not connected and has_ended(self.scope):
            return late(self)
        return own(self)

    async def late(self: Any) -> Any:
        try:
            message = await self._receive()
        except OSError as error:
            raise _gone(framework, error) from error
        self.client_state = following.get(message["type"], self.client_state)
        return message

    return receive


def _reader(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    disconnected = framework.WebSocketState.DISCONNECTED

    @replaces(own)
    def read(self: Any) -> Any:
        if self.application_state is disconnected and has_ended(self.scope):
            return _read_late(framework, own, self)
        return own(self)

    return read


def _reader_with_mode(framework: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    disconnected = framework.WebSocketState.DISCONNECTED

    @replaces(own)
    def read(self: Any, mode: str = "text") -> Any:
        if self.application_state is disconnected and has_ended(self.scope):
            return _read_late(framework, own, self, mode)
        return own(self, mode)

    return read


async def _read_late(framework: Any, own: Callable[..., Any], websocket: Any, *mode: str) -> Any:
    """Read a message that had arrived before the end, or the disconnect, by Starlette's own method."""
    states = framework.WebSocketState
    if websocket.client_state is states.CONNECTING:  # it was denied before ``websocket.connect`` was read
        websocket._raise_on_disconnect(await websocket.receive())
    return await own(_Readable(websocket, states.CONNECTED), *mode)


class _Readable:
    """A WebSocket that the application closed, as Starlette's own readers want it: they look at one state."""

    def __init__(self, websocket: Any, application_state: object) -> None:
        self.application_state = application_state
        self._websocket = websocket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._websocket, name)


def _gone(framework: Any, error: OSError) -> Any:
    """Say in Starlette's way that the guard's patience is over."""
    code = getattr(error, "close_code", None) or CloseCode.ABNORMAL_CLOSURE.value
    return framework.WebSocketDisconnect(code, getattr(error, "close_reason", ""))
