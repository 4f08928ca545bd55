"""
Counts messages, and measures their payloads, at a price that every message can pay.

It knows no connection and no book: a lane counts here, and `Path` reads.
"""

from __future__ import annotations

from itertools import repeat
from operator import length_hint
from typing import TYPE_CHECKING

from ._types import Message

ENDLESS = 2**62
"""More messages than one connection will ever see."""

if TYPE_CHECKING:
    _Repeat = repeat[None]
else:
    _Repeat = repeat


class Ticks(_Repeat):
    """
    Counts messages: the one that takes from it is counted, which costs less than an addition in a cell.

    Attributes:
        before: Messages that were counted before this object took over.
        granted: Messages that may take from it.
    """

    __slots__ = ("before", "granted")

    before: int
    granted: int

    def __new__(cls, granted: int = ENDLESS, before: int = 0) -> Ticks:
        """Make a counter that lets *granted* messages pass."""
        self = super().__new__(cls, None, granted)
        self.before, self.granted = before, granted
        return self

    @property
    def counted(self) -> int:
        """Messages so far. It may be read in any thread."""
        return self.before + self.granted - length_hint(self)


def payload_size(message: Message) -> int:
    """
    Measure a payload as it goes over the wire.

    Args:
        message: A `websocket.send` or `websocket.receive`.

    Returns:
        Bytes, of UTF-8 for text; 0 for what is neither.
    """
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str):
        return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return len(data) if isinstance(data, bytes | bytearray | memoryview) else 0
