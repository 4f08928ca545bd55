"""
Tells what a node has to deliver among all that Redis brings it, and counts what it leaves alone.

It delivers nothing itself.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from ._publication import Publication
from ._wire import unpack

MAX_NODES = 1024
"""Nodes whose last number is remembered."""


class RedisInbox:
    """
    What comes to one node.

    Attributes:
        ignored: dict: why -> messages that were left alone: "malformed", "foreign_version", "repeated".
    """

    def __init__(self, node: str) -> None:
        """
        Begin without having heard of any node.

        Args:
            node: The id of this node, whose own messages were delivered before they were published.
        """
        self._node = node
        self._serials: OrderedDict[str, int] = OrderedDict()
        self.ignored: dict[str, int] = {}

    def read(self, data: bytes) -> Publication | None:
        """Read what came; None when it is not to be delivered."""
        wired = unpack(data)
        if isinstance(wired, str):
            self._ignore(wired)
            return None
        if wired.publication.stream is not None:  # the stream knows what it has heard
            return wired.publication
        if wired.node == self._node:  # the echo of what was delivered here first
            return None
        if self._is_new(wired.node, wired.serial):
            return wired.publication
        self._ignore("repeated")
        return None

    def _is_new(self, node: str, serial: int) -> bool:
        """Tell whether a message has not come before: one that was under way when Redis went is sent again."""
        if serial <= self._serials.get(node, 0):
            return False
        self._serials[node] = serial
        self._serials.move_to_end(node)
        if len(self._serials) > MAX_NODES:
            self._serials.popitem(last=False)
        return True

    def _ignore(self, why: Literal["malformed", "foreign_version", "repeated"]) -> None:
        self.ignored[why] = self.ignored.get(why, 0) + 1
