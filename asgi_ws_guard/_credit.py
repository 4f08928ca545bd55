"""
Lets messages pass a gate unasked, as many as the gate gave credit for.

It keeps the counter of one receiving lane, which takes from it, and tells the gate what was used before it asks again.
It judges nothing: whether a gate is right to give credit is the gate's business.
"""

from __future__ import annotations

from types import CellType

from ._plugin import ALLOW, CreditingGate
from ._ticks import ENDLESS, Ticks


class Credit:
    """The credit of one connection."""

    __slots__ = ("_gate", "_received", "_size", "_used")

    def __init__(self, gate: CreditingGate) -> None:
        """
        Have no credit yet.

        Args:
            gate: Gives it.
        """
        self._gate = gate
        self._received: CellType = CellType(Ticks())
        self._size: CellType = CellType(0)
        self._used = (0, 0)

    def keep(self, received: CellType, size: CellType) -> None:
        """
        Keep the counters of a lane.

        Args:
            received: The cell of its messages; as many pass as are granted there.
            size: The cell of the bytes that passed on credit.
        """
        self._received, self._size = received, size
        received.cell_contents = Ticks(0)

    def ask(self, size: int, /) -> object:
        """
        Ask the gate about a message of the lane, and grant what it gives credit for, with this message on top.

        Args:
            size: Length of the payload, in bytes of UTF-8 for text.

        Returns:
            The gate's answer.
        """
        self.settle()
        answer: object = self._gate(size)
        if answer is ALLOW:
            granted = min(max(self._gate.credit(), 0), ENDLESS)
            counted, size_before = self._used
            self._received.cell_contents = Ticks(granted + 1, counted)
            self._used = counted + 1, size_before
        return answer

    def settle(self) -> None:
        """Take the credit back, and tell the gate what was used of it; it is to be asked about the next message."""
        counted, size = self._received.cell_contents.counted, self._size.cell_contents
        self._received.cell_contents = Ticks(0, counted)
        (messages, bytes_before), self._used = self._used, (counted, size)
        if counted > messages:
            self._gate.settle(counted - messages, size - bytes_before)
