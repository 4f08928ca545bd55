"""
What a hub and its clients say to each other about streams, in JSON: docs/protocol.md.

Every message carries ``"hub": 1``, which is the version and tells it from the application's own. Sans-IO.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal, NamedTuple

from .._exceptions import ConfigurationError
from ._encoding import Encoded
from ._publication import StreamId
from ._target import Target, check_name

VERSION = 1
HEAD_BYTES = 1024
"""More than the envelope adds to a message."""
MAX_LETTERS = 4096
"""Of a client's message; what is longer is the application's."""


class Request(NamedTuple):
    """
    What a client asks for.

    Attributes:
        kind: ``"resume"`` or ``"ack"``.
        target: The stream.
        position: What the client shows; None: nothing.
    """

    kind: Literal["resume", "ack"]
    target: Target
    position: object


def stream_name(target: Target) -> str:
    """Name a stream, such as ``room:lobby``."""
    return f"{target.kind}:{target.name}"


def content(message: object, encoded: Encoded, *, is_json: bool) -> Encoded:
    """
    Make what a store keeps: the part of the envelope that holds the message.

    Args:
        message: As the application gave it.
        encoded: As it would go out alone.
        is_json: Whether the encoder writes JSON.
    """
    payload = encoded.payload
    if isinstance(payload, bytes):
        part = f'"base64":"{base64.b64encode(payload).decode("ascii")}"'
    elif is_json and not isinstance(message, str):
        part = f'"data":{payload}'
    else:
        part = f'"text":{_json(payload)}'
    return _kept(part)


def envelope(target: Target, place: StreamId, position: str, message: Encoded, *, acks: bool) -> Encoded:
    """
    Write one message of a stream.

    Args:
        target: The stream.
        place: Where it is in it.
        position: The same, signed.
        message: What the store keeps.
        acks: Whether it is to be acknowledged.
    """
    start = f'{{"hub":{VERSION},"type":"message","stream":{_json(stream_name(target))}'
    place_text = f'"epoch":"{place.epoch}","offset":{place.offset},"position":"{position}"'
    end = ',"ack":true}' if acks else "}"
    return _kept(f"{start},{place_text},{message.payload!s}{end}")


def notice(kind: str, target: Target, position: str | None = None) -> Encoded:
    """
    Write what a client is told of its stream.

    Args:
        kind: ``"started"``, ``"resumed"``, ``"gone"``, ``"unavailable"`` or ``"refused"``.
        target: The stream.
        position: From where it goes on; None: it does not.
    """
    fields: dict[str, Any] = {"hub": VERSION, "type": kind, "stream": stream_name(target)}
    if position is not None:
        fields["position"] = position
    return _kept(_json(fields))


def request(text: object) -> Request | Literal["malformed"] | None:
    """
    Read a message of a client.

    Returns:
        The request; None when it is the application's; "malformed" when it is neither.
    """
    if not isinstance(text, str) or len(text) > MAX_LETTERS or '"hub"' not in text:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or "hub" not in fields:
        return None
    kind, stream = fields.get("type"), fields.get("stream")
    is_ours = fields["hub"] == VERSION and fields["hub"] is not True
    if not is_ours or kind not in ("resume", "ack") or not isinstance(stream, str):
        return "malformed"
    where, _, name = stream.partition(":")
    if where not in ("room", "user"):
        return "malformed"
    try:
        target = Target("room" if where == "room" else "user", check_name(where, name))
    except ConfigurationError:
        return "malformed"
    return Request("resume" if kind == "resume" else "ack", target, fields.get("position"))


def _kept(text: str) -> Encoded:
    return Encoded(text, len(text) if text.isascii() else len(text.encode("utf-8")), None, is_kept=True)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
