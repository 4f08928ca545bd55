"""
Who is where: connections, rooms and users, sans-IO.

Everything is keyed by the id of a connection and never by a user: after a refresh the new connection registers before
the old one is cleaned up, and the old one takes nothing of the new one with it. Empty rooms and users do not exist.
"""

from __future__ import annotations

from collections.abc import KeysView
from typing import Generic, TypeVar

from ._target import Target

T = TypeVar("T")


class _Member(Generic[T]):
    __slots__ = ("rooms", "user", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        self.rooms: dict[str, None] = {}
        self.user: str | None = None


class Membership(Generic[T]):
    """Connections, each with a value of the caller's, the rooms that it is in, and at most one user."""

    __slots__ = ("_members", "_rooms", "_users")

    def __init__(self) -> None:
        self._members: dict[str, _Member[T]] = {}
        self._rooms: dict[str, dict[str, T]] = {}
        self._users: dict[str, dict[str, T]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._members

    @property
    def room_names(self) -> KeysView[str]:
        """Names of the rooms that somebody is in, live."""
        return self._rooms.keys()

    @property
    def user_names(self) -> KeysView[str]:
        """Names of the users that have a connection, live."""
        return self._users.keys()

    def value(self, connection_id: str) -> T | None:
        """Give the value of a connection, None when it is unknown."""
        member = self._members.get(connection_id)
        return None if member is None else member.value

    def in_room(self, room: str) -> dict[str, T]:
        """Copy who is in a room. Dict: connection id -> value, in the order of joining; empty: no such room."""
        return self._rooms.get(room, {}).copy()

    def of_user(self, user: str) -> dict[str, T]:
        """Copy the connections of a user. Dict: connection id -> value; empty: no such user."""
        return self._users.get(user, {}).copy()

    def everybody(self) -> dict[str, T]:
        """Copy all connections. Dict: connection id -> value."""
        return {connection_id: member.value for connection_id, member in self._members.items()}

    def meant(self, target: Target) -> dict[str, T]:
        """Copy whom a target means now. Dict: connection id -> value."""
        kind, name = target
        if kind == "all":
            return self.everybody()
        return self.in_room(name) if kind == "room" else self.of_user(name)

    def knows(self, target: Target) -> bool:
        """Tell whether a target means anybody here; all is always known."""
        kind, name = target
        return kind == "all" or name in (self._rooms if kind == "room" else self._users)

    def rooms_of(self, connection_id: str) -> tuple[str, ...]:
        """List the rooms that a connection is in, in the order of joining."""
        member = self._members.get(connection_id)
        return () if member is None else tuple(member.rooms)

    def add(self, connection_id: str, value: T) -> None:
        """
        Know a connection from now on.

        Args:
            connection_id: Its id, which nobody has here.
            value: What is to be found under it.
        """
        self._members[connection_id] = _Member(value)

    def join(self, connection_id: str, room: str) -> bool:
        """
        Put a known connection into a room.

        Returns:
            False when it is in it.
        """
        member = self._members[connection_id]
        if room in member.rooms:
            return False
        member.rooms[room] = None
        self._rooms.setdefault(room, {})[connection_id] = member.value
        return True

    def leave(self, connection_id: str, room: str) -> bool:
        """
        Take a connection out of a room.

        Returns:
            False when it was not in it.
        """
        member = self._members.get(connection_id)
        if member is None or room not in member.rooms:
            return False
        del member.rooms[room]
        _discard(self._rooms, room, connection_id)
        return True

    def bind(self, connection_id: str, user: str | None) -> str | None:
        """
        Say who is behind a known connection.

        Args:
            connection_id: The connection.
            user: The user; None: nobody.

        Returns:
            Who was behind it before.
        """
        member = self._members[connection_id]
        before, member.user = member.user, user
        if before != user:
            if before is not None:
                _discard(self._users, before, connection_id)
            if user is not None:
                self._users.setdefault(user, {})[connection_id] = member.value
        return before

    def remove(self, connection_id: str) -> tuple[tuple[str, ...], str | None]:
        """
        Forget a connection.

        Returns:
            The rooms that it was in, in the order of joining, and its user.
        """
        member = self._members.pop(connection_id, None)
        if member is None:
            return (), None
        for room in member.rooms:
            _discard(self._rooms, room, connection_id)
        if member.user is not None:
            _discard(self._users, member.user, connection_id)
        return tuple(member.rooms), member.user


def _discard(groups: dict[str, dict[str, T]], name: str, connection_id: str) -> None:
    group = groups[name]
    del group[connection_id]
    if not group:
        del groups[name]
