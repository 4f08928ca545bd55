"""
The members of a hub: comes in by a handle of the guard, goes out by itself at the end of its connection.

Here membership meets what must hear of it: the way to each connection, the backend, the application's ``on_leave``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Literal

from .._exceptions import ConfigurationError
from .._handle import ConnectionHandle
from .._loops import running_loop
from .._state import State
from ._backend import Interest
from ._connections import handle_of
from ._delivery import Channel
from ._fan import Fans
from ._membership import Membership
from ._sums import Sums
from ._target import Target
from ._work import Work, begin_work

LeaveReason = Literal["left", "ended"]
OnLeave = Callable[[ConnectionHandle, str, LeaveReason], object]
"""Called with the connection, the room and why; plain or asynchronous."""

_log = logging.getLogger("asgi_ws_guard")


class Members:
    """
    The members of one hub.

    Attributes:
        membership: Who is where.
    """

    __slots__ = ("_backend", "_fans", "_loop", "_make_channel", "_on_leave", "_sums", "_work", "membership")

    def __init__(
        self,
        make_channel: Callable[[ConnectionHandle], Channel],
        membership: Membership[Channel],
        *,
        fans: Fans,
        backend: Interest,
        on_leave: OnLeave | None,
        sums: Sums,
        work: Work,
    ) -> None:
        """
        Begin without members.

        Args:
            make_channel: Makes the way to a connection.
            membership: Who is where, empty.
            fans: What is on its way.
            backend: Hears of rooms and users that come and go.
            on_leave: Hears of each membership that is over.
            sums: Where to count.
            work: Holds the tasks while they run.
        """
        self._make_channel = make_channel
        self._fans = fans
        self._backend = backend
        self._on_leave = on_leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self.membership = membership
        self._sums = sums
        self._work = work

    def join(self, connection: object, room: str) -> bool:
        """Put a connection into a room; False when it has ended, or is in the room."""
        channel = self.register(connection)
        if channel is None:
            return False
        is_first = room not in self.membership.room_names
        joined = self.membership.join(channel.connection_id, room)
        if is_first:
            self._backend.subscribe(Target("room", room))
        return joined

    def leave(self, connection_id: str, room: str) -> bool:
        """Take a connection out of a room; False when it was not in it."""
        channel = self.membership.value(connection_id)
        if channel is None or not self.membership.leave(connection_id, room):
            return False
        self._fans.leave(connection_id, room)
        self._left(channel, (room,), "left")
        return True

    def bind(self, connection: object, user: str | None) -> bool:
        """Say who is behind a connection, None: nobody; False when it has ended."""
        channel = self.register(connection)
        if channel is None:
            return False
        connection_id, names = channel.connection_id, self.membership.user_names
        is_first = user is not None and user not in names
        before = self.membership.bind(connection_id, user)
        if before == user:
            return True
        if before is not None:
            self._unbound(before, connection_id)
        if user is not None:
            if is_first:
                self._backend.subscribe(Target("user", user))
            self._backend.arrived(user, connection_id)
        return True

    def register(self, connection: object) -> Channel | None:
        """
        Know a connection from now on, until it ends.

        Returns:
            The way to it; None when it has ended.

        Raises:
            TypeError: The object leads to no connection.
            ConfigurationError: The connection has no guard, is not accepted yet, or lives on another event loop.
        """
        handle = handle_of(connection)
        known = self.membership.value(handle.connection_id)
        if known is not None:
            return known
        if handle.state is State.CONNECTING:
            raise ConfigurationError("connection", handle, "one that was accepted: accept first, then join")
        if not handle.is_open:
            return None
        self._check_loop()
        channel = self._make_channel(handle)
        self.membership.add(handle.connection_id, channel)
        handle.on_end(self._ended)
        return channel

    def _check_loop(self) -> None:
        loop = running_loop()
        if loop is None:
            raise ConfigurationError("loop", "trio", "asyncio or uvloop: a hub needs tasks of its own (docs/hub.md)")
        if self._loop is not loop and len(self.membership):
            raise ConfigurationError("loop", type(loop), "the event loop of the other members: one hub for each loop")
        self._loop = loop

    def _ended(self, handle: ConnectionHandle) -> None:
        connection_id = handle.connection_id
        channel = self.membership.value(connection_id)
        if channel is None:
            return
        rooms, user = self.membership.remove(connection_id)
        self._fans.leave(connection_id, None)
        channel.ended()
        if user is not None:
            self._unbound(user, connection_id)
        self._left(channel, rooms, "ended")

    def _unbound(self, user: str, connection_id: str) -> None:
        self._backend.departed(user, connection_id)
        if user not in self.membership.user_names:
            self._backend.unsubscribe(Target("user", user))

    def _left(self, channel: Channel, rooms: tuple[str, ...], reason: LeaveReason) -> None:
        for room in rooms:
            if room not in self.membership.room_names:
                self._backend.unsubscribe(Target("room", room))
            if self._on_leave is not None:
                self._tell(self._on_leave, channel.handle, room, reason)

    def _tell(self, on_leave: OnLeave, handle: ConnectionHandle, room: str, reason: LeaveReason) -> None:
        try:
            made = on_leave(handle, room, reason)
        except Exception as error:  # noqa: BLE001 - the other rooms, and the end of the connection, go on
            self._failed(error)
            return
        if inspect.isawaitable(made):
            begin_work(self._work, self._await(made))

    async def _await(self, made: Any) -> None:
        try:
            await made
        except Exception as error:  # noqa: BLE001 - nobody awaits this task
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._sums.leave_failures += 1
        _log.error("on_leave of a hub raised", exc_info=error)
