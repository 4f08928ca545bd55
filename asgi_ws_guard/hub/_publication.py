"""A message on its way between nodes, and its place in a stream; facts alone."""

from __future__ import annotations

from typing import NamedTuple

from ._encoding import Encoded
from ._target import Target


class StreamId(NamedTuple):
    """
    The place of a message in a stream.

    Attributes:
        epoch: Which life of the stream; another one is another history.
        offset: From 1, without gaps; 0: before the first.
    """

    epoch: str
    offset: int


class Publication(NamedTuple):
    """
    A message on its way to other nodes.

    Attributes:
        target: To whom.
        message: What.
        exclude: Connection ids that do not get it.
        stream: Its place in the stream of the target; None: it is in none.
    """

    target: Target
    message: Encoded
    exclude: frozenset[str] = frozenset()
    stream: StreamId | None = None
