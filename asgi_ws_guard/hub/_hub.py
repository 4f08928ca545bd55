"""
The hub: who is in which room and as which user, and messages to them that wait for nobody.

It replaces the ``ConnectionManager`` that everyone writes. Membership ends by itself at the end of the connection; a
peer that takes nothing costs the others nothing. It ends no connection but for a full outbox, where that was asked for,
or a send that takes too long, and keeps no history.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from opentelemetry.metrics import MeterProvider

from .._exceptions import ConfigurationError
from .._handle import ConnectionHandle
from .._loops import AsyncioLoop
from ._backend import Backend, BackendHealth, BackendUnavailable, MemoryBackend, Publication
from ._connections import handle_of
from ._delivery import Channel
from ._encoding import Encoded, Encoder, encode, find_encoder
from ._fan import Fan, Fans
from ._limits import check_limits
from ._members import Members, OnLeave
from ._metrics import instruments_of
from ._outbox import Overflow
from ._report import DeliveryReport, Remote
from ._slices import Slices
from ._sums import Sums
from ._target import Target, check_name

_ALL = Target("all")


@dataclass(frozen=True, slots=True)
class Presence:
    """
    Where a user is.

    Attributes:
        user: The user.
        local: Ids of the connections here.
        remote: Ids of the connections at other nodes.
        is_complete: False when the backend could not be asked, so that `remote` is unknown.
    """

    user: str
    local: frozenset[str]
    remote: frozenset[str] = frozenset()
    is_complete: bool = True

    @property
    def is_online(self) -> bool:
        """Whether the user has a connection, as far as is known."""
        return bool(self.local or self.remote)


class Hub:
    """
    Rooms, users and messages to them, on one event loop of asyncio or uvloop.

    A connection is whatever leads to the guard's: `current_connection()`, the websocket object of a framework, or the
    scope. Where one connection is sent to, excluded or made to leave, its id will do.

    Attributes:
        sums: What was counted since the hub was made; any thread may read it.
    """

    def __init__(
        self,
        *,
        outbox_messages: int = 256,
        outbox_bytes: int = 1024 * 1024,
        overflow: Overflow = "drop_oldest",
        send_timeout_s: float | None = 30.0,
        encoder: str | Encoder = "json",
        on_leave: OnLeave | None = None,
        backend: Backend | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """
        Make an empty hub; nothing is started.

        Args:
            outbox_messages: Messages that may wait for each connection, beside the one under way; 1 or more.
            outbox_bytes: Bytes of payload that may wait for each connection; 1 or more.
            overflow: What a full outbox does: "drop_oldest", "drop_newest", "latest_by_key" (a message takes the place
                of a waiting one with the same ``key``, else as "drop_oldest"), or "close" with 1013.
            send_timeout_s: Seconds that a peer may take for one message of the hub before its connection is ended;
                None: no limit.
            encoder: "json", "orjson" or "msgspec", or a callable: encodes what is neither `str` nor bytes.
            on_leave: Called once for each room that a connection leaves, whoever makes it leave, with the handle, the
                room, and "left" or "ended"; plain or asynchronous. What it raises is logged and counted.
            backend: Joins this hub with those of other processes; None: there are none.
            meter_provider: Of OpenTelemetry, for the metrics; None: the global one, also when it is set later.

        Raises:
            ConfigurationError: An option is not allowed.
        """
        self._limits = check_limits(
            outbox_messages=outbox_messages,
            outbox_bytes=outbox_bytes,
            overflow=overflow,
            send_timeout_s=send_timeout_s,
        )
        if on_leave is not None and not callable(on_leave):
            raise ConfigurationError("on_leave", on_leave, "a callable, or None")
        self._encoder = find_encoder(encoder)
        self._backend: Backend = MemoryBackend() if backend is None else backend
        self._slices = Slices()
        self.sums = Sums()
        self._fans = Fans(self._slices, self.sums)
        self._work: set[asyncio.Task[None]] = set()
        self._members = Members(
            self._channel, fans=self._fans, backend=self._backend, on_leave=on_leave, sums=self.sums, work=self._work
        )
        self._instruments = instruments_of(meter_provider)
        self._instruments.add(self)

    async def start(self) -> None:
        """Open the backend. A hub without one of other processes needs no start; ``async with hub`` does it too."""
        await self._backend.open(self._from_elsewhere)

    async def stop(self) -> None:
        """Close the backend. Members stay until their connections end."""
        await self._backend.close()

    async def __aenter__(self) -> Hub:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def join(self, connection: object, room: str) -> bool:
        """
        Put a connection into a room, until it leaves or ends.

        Args:
            connection: An accepted connection.
            room: Name of the room, 1 to 256 bytes of UTF-8; a room exists as long as somebody is in it.

        Returns:
            False when it is in the room, or has ended, which is no error: clients leave at any time.

        Raises:
            ConfigurationError: The name is not allowed; the connection has no guard, is not accepted, lives on another
                event loop than the other members, or on trio's.
            TypeError: The object leads to no connection.
        """
        return self._members.join(connection, check_name("room", room))

    def leave(self, connection: object, room: str) -> bool:
        """
        Take a connection out of a room. What waits in its outbox still goes out.

        Returns:
            False when it was not in the room.
        """
        return self._members.leave(_id_of(connection), room)

    def bind_user(self, connection: object, user: str) -> bool:
        """
        Say which user is behind a connection, in the place of who was before.

        Args:
            connection: An accepted connection.
            user: Name of the user, 1 to 256 bytes of UTF-8; it may have any number of connections.

        Returns:
            False when the connection has ended.

        Raises:
            ConfigurationError: As in `join`.
            TypeError: As in `join`.
        """
        return self._members.bind(connection, check_name("user", user))

    def unbind_user(self, connection: object) -> bool:
        """Say that no known user is behind a connection; False when it has ended."""
        return self._members.bind(connection, None)

    def rooms(self, connection: object = None) -> tuple[str, ...]:
        """
        List the rooms here.

        Args:
            connection: Only those that it is in; None: all.
        """
        membership = self._members.membership
        return tuple(membership.room_names) if connection is None else membership.rooms_of(_id_of(connection))

    def members(self, room: str) -> tuple[str, ...]:
        """List the ids of the connections in a room here, in the order of joining; none in a room that is not."""
        return tuple(self._members.membership.in_room(room))

    def users(self) -> tuple[str, ...]:
        """List the users that have a connection here."""
        return tuple(self._members.membership.user_names)

    async def presence(self, user: str) -> Presence:
        """
        Tell where a user is, at all nodes.

        Returns:
            The connections here and elsewhere; incomplete while the backend cannot be asked.
        """
        local = frozenset(self._members.membership.of_user(user))
        try:
            return Presence(user, local, await self._backend.presence(user))
        except BackendUnavailable:
            return Presence(user, local, is_complete=False)

    async def ready(self) -> bool:
        """
        Wait until the other nodes reach the members who have joined so far, at most the time that the backend has.

        Returns:
            Whether they do: what another process publishes after this was awaited comes here.
        """
        return await self._backend.ready()

    def health(self) -> BackendHealth:
        """Tell how the backend is."""
        return self._backend.health()

    @property
    def connections(self) -> int:
        """Number of connections that the hub knows."""
        return len(self._members.membership)

    @property
    def room_count(self) -> int:
        """Number of rooms that somebody is in."""
        return len(self._members.membership.room_names)

    @property
    def user_count(self) -> int:
        """Number of users that have a connection."""
        return len(self._members.membership.user_names)

    async def send(self, connection: object, message: object, *, key: str | None = None) -> DeliveryReport:
        """
        Send to one connection of this process.

        Args:
            connection: A connection or its id.
            message: `str`, bytes, or an object for the encoder.
            key: What it is the latest of, for "latest_by_key".

        Returns:
            The report. It never waits for the peer; it may wait for the event loop to go round.

        Raises:
            TypeError: The message cannot be encoded, or the object leads to no connection.
            ValueError: The message cannot be encoded.
        """
        encoded = encode(message, self._encoder, key)
        connection_id = _id_of(connection)
        channel = self._members.membership.value(connection_id)
        return await self._deliver(encoded, {} if channel is None else {connection_id: channel})

    async def send_to_room(
        self, room: str, message: object, *, exclude: object = None, key: str | None = None
    ) -> DeliveryReport:
        """
        Send to all who are in a room now.

        Args:
            room: The room.
            message: As in `send`.
            exclude: Who does not get it: a connection or its id, or a list, tuple or set of them; None: nobody.
            key: As in `send`.

        Returns:
            The report, when the message was handed to each. It waits for no peer. When this is cancelled the rest of
            the members get the message all the same.

        Raises:
            ConfigurationError: The name is not allowed.
            TypeError: As in `send`.
            ValueError: As in `send`.
        """
        target = Target("room", check_name("room", room))
        encoded = encode(message, self._encoder, key)
        return await self._publish(Publication(target, encoded, _ids_of(exclude)))

    async def send_to_user(
        self, user: str, message: object, *, exclude: object = None, key: str | None = None
    ) -> DeliveryReport:
        """Send to all connections of a user; as `send_to_room`."""
        target = Target("user", check_name("user", user))
        encoded = encode(message, self._encoder, key)
        return await self._publish(Publication(target, encoded, _ids_of(exclude)))

    async def broadcast(self, message: object, *, exclude: object = None, key: str | None = None) -> DeliveryReport:
        """Send to all connections that the hub knows; as `send_to_room`. Nobody there is nobody unknown."""
        encoded = encode(message, self._encoder, key)
        return await self._publish(Publication(_ALL, encoded, _ids_of(exclude)))

    async def _publish(self, publication: Publication) -> DeliveryReport:
        """Deliver here, then carry it to the other nodes."""
        started_s = time.perf_counter()
        report = await self._deliver(publication.message, self._targets(publication), publication)
        self._instruments.broadcast(time.perf_counter() - started_s, publication.target.kind)
        return report

    async def _deliver(
        self, message: Encoded, pending: dict[str, Channel], publication: Publication | None = None
    ) -> DeliveryReport:
        fan = Fan(message, pending, _room_of(publication))
        fan.tally.unknown = int(not pending and (publication is None or not self._is_known(publication.target)))
        self._fans.add(fan)
        try:
            await self._fans.run(fan)
        except asyncio.CancelledError:
            self._keep(self._finish(fan, publication))
            raise
        return fan.tally.report(await self._carry(publication))

    async def _finish(self, fan: Fan, publication: Publication | None) -> None:
        """Hand a message to the rest, for a sender that was cancelled halfway."""
        await self._fans.run(fan)
        await self._carry(publication)

    async def _carry(self, publication: Publication | None) -> Remote:
        if publication is None:
            return "none"
        try:
            return await self._backend.publish(publication)
        except BackendUnavailable:
            return "unavailable"

    async def _from_elsewhere(self, publication: Publication) -> None:
        fan = Fan(publication.message, self._targets(publication), _room_of(publication))
        self._fans.add(fan)
        await self._fans.run(fan)

    def _targets(self, publication: Publication) -> dict[str, Channel]:
        """Copy who is to get it now: who joins later does not."""
        membership, (kind, name) = self._members.membership, publication.target
        if kind == "all":
            pending = membership.everybody()
        else:
            pending = membership.in_room(name) if kind == "room" else membership.of_user(name)
        for connection_id in publication.exclude:
            pending.pop(connection_id, None)
        return pending

    def _is_known(self, target: Target) -> bool:
        membership = self._members.membership
        return target == _ALL or target.name in (
            membership.room_names if target.kind == "room" else membership.user_names
        )

    def _channel(self, handle: ConnectionHandle) -> Channel:
        return Channel(handle, self._limits, sums=self.sums, slices=self._slices, work=self._work)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = AsyncioLoop().start(work, Context())
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def _room_of(publication: Publication | None) -> str | None:
    return publication.target.name if publication is not None and publication.target.kind == "room" else None


def _id_of(connection: object) -> str:
    return connection if isinstance(connection, str) else handle_of(connection).connection_id


def _ids_of(exclude: object) -> frozenset[str]:
    if exclude is None:
        return frozenset()
    many = exclude if isinstance(exclude, list | tuple | set | frozenset) else (exclude,)
    return frozenset(map(_id_of, many))
