"""
The books of all connections of one guard that are over (G13).

Plain integers, written once per connection. The live ones keep their own books.
"""

from __future__ import annotations

from ._events import Books


class Ledger:
    """
    What became of every message of every connection whose handler is done.

    Attributes:
        over: The sum of their books.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = Books()
