"""
How a message looks between two nodes: one line of JSON, then the payload as it is. Sans-IO.

What does not fit is refused here with a word for the counter: the broker is foreign input too.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from .._exceptions import ConfigurationError
from ._encoding import Encoded
from ._publication import Publication, StreamId
from ._target import Target, check_name

VERSION = 1
"""Of the head; a node ignores what it does not know, so that two releases can share a Redis."""
MAX_HEAD_BYTES = 64 * 1024

Refusal = Literal["malformed", "foreign_version"]


class Wired(NamedTuple):
    """
    A message of another node, or an entry of a stream from any.

    Attributes:
        node: Where it was published.
        serial: Its number among those of the node, from 1; 0 in a stream, which has its own.
        publication: The message.
    """

    node: str
    serial: int
    publication: Publication


def head(node: str, serial: int, publication: Publication) -> str:
    """
    Write the head without its closing brace, so that a script of Redis can add what it alone knows.

    Args:
        node: This node.
        serial: Number of the message among those of this node; 0 in a stream.
        publication: The message.
    """
    (kind, name), message = publication.target, publication.message
    fields: dict[str, object] = {"v": VERSION, "n": node, "s": serial, "k": kind, "t": name}
    fields["b"] = int(isinstance(message.payload, bytes))
    if message.key is not None:
        fields["y"] = message.key
    if publication.exclude:
        fields["x"] = sorted(publication.exclude)
    if publication.stream is not None:
        fields["e"], fields["o"] = publication.stream
    return json.dumps(fields, separators=(",", ":"))[:-1]


def body(message: Encoded) -> bytes:
    """Give the payload as bytes."""
    payload = message.payload
    return payload if isinstance(payload, bytes) else payload.encode("utf-8")


def pack(node: str, serial: int, publication: Publication) -> bytes:
    """Write a whole message; arguments as in `head`."""
    return b"%b}\n%b" % (head(node, serial, publication).encode("ascii"), body(publication.message))


def unpack(data: object) -> Wired | Refusal:
    """
    Read a message.

    Args:
        data: What came.

    Returns:
        The message, or why it is none.
    """
    if not isinstance(data, bytes):
        return "malformed"
    line, separator, payload = data.partition(b"\n")
    if not separator or len(line) > MAX_HEAD_BYTES:
        return "malformed"
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return "malformed"
    version = fields.get("v") if isinstance(fields, dict) else None
    if not _is_count(version):
        return "malformed"
    if version != VERSION:
        return "foreign_version"
    try:
        return _read(fields, payload)
    except (KeyError, ValueError, ConfigurationError):
        return "malformed"


def _read(fields: dict[str, Any], payload: bytes) -> Wired:
    node, serial, kind, key = fields["n"], fields["s"], fields["k"], fields.get("y")
    excluded, epoch = fields.get("x", []), fields.get("e")
    if not isinstance(node, str) or not _is_count(serial) or kind not in ("room", "user", "all"):
        raise ValueError(kind)
    if not isinstance(key, str | None) or not isinstance(excluded, list) or fields["b"] not in (0, 1):
        raise ValueError(key)
    target = Target(kind, "" if kind == "all" else check_name(kind, fields["t"]))
    stream = None
    if epoch is not None:
        if not isinstance(epoch, str) or not _is_count(fields["o"]):
            raise ValueError(epoch)
        stream = StreamId(epoch, fields["o"])
    message = Encoded(payload if fields["b"] else payload.decode("utf-8"), len(payload), key)
    exclude = frozenset(one for one in excluded if isinstance(one, str))
    return Wired(node, serial, Publication(target, message, exclude, stream))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
