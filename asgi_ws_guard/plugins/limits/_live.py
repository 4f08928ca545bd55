"""
How many connections are live, in total and by key.

What is held is bounded by what is live: a key goes with its last connection.
"""

from __future__ import annotations

from collections.abc import Hashable

Key = tuple[str, Hashable]
"""What is counted, such as ``"address"``, and which one."""


class Live:
    """The counts of one guard."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[Key, ...]] = {}  # connection id -> what it counts for
        self._counts: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> int:
        """How many keys are counted now."""
        return len(self._counts)

    def enter(self, connection_id: str, limits: dict[Key, int]) -> str | None:
        """
        Count a connection, unless it is one too many.

        Args:
            connection_id: The connection; it is counted once until it left.
            limits: Dict: key -> how many there may be.

        Returns:
            None when it was counted, else the name of the limit that is reached.
        """
        for key, limit in limits.items():
            if self._counts.get(key, 0) >= limit:
                return key[0]
        self.leave(connection_id)
        self._keys[connection_id] = tuple(limits)
        for key in limits:
            self._counts[key] = self._counts.get(key, 0) + 1
        return None

    def leave(self, connection_id: str) -> None:
        """
        Count it no more.

        Args:
            connection_id: The connection; nothing happens when it is not counted.
        """
        for key in self._keys.pop(connection_id, ()):
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]
