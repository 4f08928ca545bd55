"""
Turns what is to be sent into a message of text or bytes, once for all who get it.

`str` and `bytes` go out as they are; anything else is the encoder's. What cannot be encoded raises here, at the caller,
before anything has been sent to anybody.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._exceptions import ConfigurationError
from .._types import Message

Encoder = Callable[[Any], str | bytes]
"""Turns an object into the text or the bytes of a message."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """
    A message as it goes out.

    Attributes:
        payload: Text or bytes.
        size: Bytes of the payload, of UTF-8 for text.
        key: What it is the latest of, for the overflow policy "latest_by_key"; None: of nothing.
        is_kept: Whether it is never dropped: without room for it the connection is closed. A gap in a stream would be
            worse than a reconnect.
        template: The ASGI message; each connection gets a copy, for what stands around the guard may change it.
    """

    payload: str | bytes
    size: int
    key: str | None = None
    is_kept: bool = False
    template: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind = "text" if isinstance(self.payload, str) else "bytes"
        object.__setattr__(self, "template", {"type": "websocket.send", kind: self.payload})

    def message(self) -> Message:
        """Give the ASGI message, a new one for each connection."""
        return dict(self.template)


def find_encoder(encoder: object) -> Encoder:
    """
    Give the encoder that an option stands for.

    Args:
        encoder: "json", "orjson", "msgspec", or a callable.

    Returns:
        The encoder; the three named ones give text.

    Raises:
        ConfigurationError: It is none of these, or its library is not installed.
    """
    if encoder == "json":
        return _json
    if encoder == "orjson":
        dumps = _library("orjson").dumps
        return lambda value: str(dumps(value), "utf-8")
    if encoder == "msgspec":
        encode = _library("msgspec.json").Encoder().encode
        return lambda value: str(encode(value), "utf-8")
    if callable(encoder) and not isinstance(encoder, type):
        made: Encoder = encoder
        return made
    raise ConfigurationError("encoder", encoder, "'json', 'orjson', 'msgspec', or a callable that gives str or bytes")


def encode(message: object, encoder: Encoder, key: object = None) -> Encoded:
    """
    Encode a message.

    Args:
        message: `str`, `bytes`, `bytearray`, `memoryview`, or an object for the encoder.
        encoder: Encodes objects.
        key: What it is the latest of, a `str`; None: of nothing.

    Raises:
        TypeError: The encoder cannot encode it, or gives neither `str` nor `bytes`; the key is no `str`.
        ValueError: The encoder cannot encode it, or the text has no UTF-8 form (`UnicodeEncodeError`).
        Exception: Whatever else the encoder raises.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be a str or None, not {type(key).__name__}")
    payload = message if isinstance(message, _PLAIN) else encoder(message)
    if isinstance(payload, str):
        text = str(payload)
        return Encoded(text, len(text) if text.isascii() else len(text.encode("utf-8")), key)
    if isinstance(payload, _BINARY):
        data = bytes(payload)
        return Encoded(data, len(data), key)
    raise TypeError(f"the encoder gave {type(payload).__name__}, which is neither str nor bytes")


_BINARY = (bytes, bytearray, memoryview)
_PLAIN = (str, *_BINARY)


def _json(value: object) -> str:
    """Encode as `json` does; NaN and Infinity are refused, because no browser can read them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _library(module: str) -> Any:
    name = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError:
        allowed = f"a library that is installed: pip install 'asgi-ws-guard[{name}]'"
        raise ConfigurationError("encoder", name, allowed) from None
