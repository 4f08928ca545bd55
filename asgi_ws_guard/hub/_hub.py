"""
The hub: who is in which room and as which user, and messages to them that wait for nobody.

It replaces the ``ConnectionManager`` that everyone writes. Membership ends by itself at the end of the connection; a
peer that takes nothing costs the others nothing. It ends no connection but for a full outbox, where that was asked for,
or a send that takes too long, and keeps no history but of what has a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from opentelemetry.metrics import MeterProvider

from .._exceptions import ConfigurationError
from .._handle import ConnectionHandle
from ._backend import Backend, BackendHealth, BackendUnavailable, MemoryBackend
from ._connections import id_of, ids_of
from ._delivery import Channel
from ._encoding import Encoder, encode, find_encoder
from ._fan import Fans
from ._limits import check_limits
from ._members import Members, OnLeave
from ._membership import Membership
from ._metrics import instruments_of
from ._outbox import Overflow
from ._positions import Positions
from ._post import Post
from ._protocol import HEAD_BYTES, content, notice, request
from ._publication import Publication
from ._report import DeliveryReport
from ._resuming import Resumed
from ._slices import Slices
from ._streaming import Streaming, check_plain
from ._streams import StreamOptions
from ._sums import Sums
from ._target import Target, check_name
from ._work import Work, begin_work

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
        position_secret: str | bytes | Sequence[str | bytes] | None = None,
        position_s: float = 7 * 86_400.0,
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
            position_secret: Signs the positions in streams: at least 16 bytes, the same at all nodes, or several,
                oldest first, of which the last one signs; None: there are no streams.
            position_s: Seconds for which a position is good.
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
        self._is_json = isinstance(encoder, str)
        self._slices = Slices()
        self.sums = Sums()
        self._work: Work = set()
        self._fans = Fans(self._slices, self.sums, self._work)
        membership: Membership[Channel] = Membership()
        self._streaming = Streaming(
            backend=self._backend,
            positions=None if position_secret is None else Positions(position_secret, position_s),
            fans=self._fans,
            receivers=membership.meant,
            keep=partial(begin_work, self._work),
        )
        self._members = Members(
            self._channel,
            membership,
            fans=self._fans,
            backend=self._streaming,
            on_leave=on_leave,
            sums=self.sums,
            work=self._work,
        )
        instruments = instruments_of(meter_provider)
        instruments.add(self)
        self._post = Post(membership, fans=self._fans, backend=self._backend, instruments=instruments, work=self._work)

    async def start(self) -> None:
        """Open the backend. A hub without one of other processes needs no start; ``async with hub`` does it too."""
        await self._backend.open(self._from_elsewhere, self._streaming.returned)

    async def stop(self) -> None:
        """Close the backend. Members stay until their connections end."""
        await self._streaming.stop()
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
        self._streaming.refuse(Target("room", check_name("room", room)))
        return self._members.join(connection, room)

    def leave(self, connection: object, room: str) -> bool:
        """
        Take a connection out of a room. What waits in its outbox still goes out.

        Returns:
            False when it was not in the room.
        """
        return self._members.leave(id_of(connection), room)

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
        self._streaming.refuse(Target("user", check_name("user", user)))
        return self._members.bind(connection, user)

    def unbind_user(self, connection: object) -> bool:
        """Say that no known user is behind a connection; False when it has ended."""
        return self._members.bind(connection, None)

    def stream_rooms(self, room: str | None = None, *, history_messages: int = 1000, history_s: float = 3600.0) -> None:
        """
        Let a room have a stream: who comes back gets what it missed. Call it before anybody joins.

        Args:
            room: The room; None: every room that is not named itself.
            history_messages: Messages that are kept.
            history_s: Seconds for which each is kept.

        Raises:
            ConfigurationError: An argument is not allowed, or the hub has no ``position_secret``.
        """
        options = StreamOptions(history_messages, history_s)
        self._streaming.declare("room", None if room is None else check_name("room", room), options)

    def stream_users(
        self,
        user: str | None = None,
        *,
        history_messages: int = 1000,
        history_s: float = 7 * 86_400.0,
        redeliver_s: float = 10.0,
    ) -> None:
        """
        Let a user have a stream: messages wait for a connection, and are sent again until they are acknowledged.

        Args:
            user: The user; None: every user that is not named itself.
            history_messages: Messages that wait at most.
            history_s: Seconds for which each waits.
            redeliver_s: Seconds after which one that was not acknowledged is sent again; at most twice as many.

        Raises:
            ConfigurationError: As in `stream_rooms`.
        """
        options = StreamOptions(history_messages, history_s, redeliver_s)
        self._streaming.declare("user", None if user is None else check_name("user", user), options)

    async def resume(self, connection: object, target: Target, position: object = None) -> Resumed:
        """
        Bring a connection into a stream: first what it missed, then what is new, each once and in order.

        Args:
            connection: An accepted connection that may be in the stream: nobody else asks.
            target: ``Target("room", name)`` or ``Target("user", name)``, which has a stream.
            position: The last position that the client saw, as it says; None: it has none.

        Returns:
            How it came in, which it was told as well. A connection that is in the stream stays as it is.

        Raises:
            ConfigurationError: There is no such stream; else as in `join`.
        """
        options = self._streaming.options(target)
        if options is None:
            raise ConfigurationError("target", target.kind, "a room or a user with a stream: see stream_rooms")
        name = check_name(target.kind, target.name)
        channel = self._members.register(connection)
        enter = self._members.join if target.kind == "room" else self._members.bind
        resumed = Resumed("ended")
        if channel is not None:
            handle = channel.handle
            resumed = await self._streaming.resume(channel, target, options, position, lambda: enter(handle, name))
        self.sums.resume(resumed.state)
        return resumed

    async def handle(self, connection: object, text: object, *, allow: Callable[[Target], bool] | None = None) -> bool:
        """
        Do what a client asks for by docs/protocol.md: to resume a stream, or to acknowledge.

        Args:
            connection: Who asks.
            text: What came.
            allow: Tells whether this connection may be in a room's or a user's stream; None: in none.

        Returns:
            False when the message is the application's own.
        """
        asked = request(text)
        if asked is None or asked == "malformed":
            return asked is not None
        if asked.kind == "ack":
            if id_of(connection) in self._members.membership.meant(asked.target):
                await self._streaming.acknowledge(asked.target, asked.position)
        elif allow is not None and self._streaming.options(asked.target) is not None and allow(asked.target):
            await self.resume(connection, asked.target, asked.position)
        else:
            channel = self._members.register(connection)
            if channel is not None:
                await self._fans.tell(channel, notice("refused", asked.target))
        return True

    def rooms(self, connection: object = None) -> tuple[str, ...]:
        """
        List the rooms here.

        Args:
            connection: Only those that it is in; None: all.
        """
        membership = self._members.membership
        return tuple(membership.room_names) if connection is None else membership.rooms_of(id_of(connection))

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
        return await self._post.send(encoded, id_of(connection))

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
        return await self._to(target, message, exclude, key)

    async def send_to_user(
        self, user: str, message: object, *, exclude: object = None, key: str | None = None
    ) -> DeliveryReport:
        """Send to all connections of a user; as `send_to_room`."""
        target = Target("user", check_name("user", user))
        return await self._to(target, message, exclude, key)

    async def broadcast(self, message: object, *, exclude: object = None, key: str | None = None) -> DeliveryReport:
        """Send to all connections that the hub knows; as `send_to_room`. Nobody there is nobody unknown."""
        encoded = encode(message, self._encoder, key)
        return await self._post.publish(Publication(_ALL, encoded, ids_of(exclude)))

    async def _to(self, target: Target, message: object, exclude: object, key: str | None) -> DeliveryReport:
        encoded, options = encode(message, self._encoder, key), self._streaming.options(target)
        if options is None:
            return await self._post.publish(Publication(target, encoded, ids_of(exclude)))
        check_plain(exclude, key)
        kept = content(message, encoded, is_json=self._is_json)
        if kept.size + HEAD_BYTES > self._limits.outbox_bytes:
            raise ValueError(f"{kept.size} bytes fit in no outbox: outbox_bytes={self._limits.outbox_bytes}")
        return await self._streaming.send(Publication(target, kept), options)

    async def _from_elsewhere(self, publication: Publication) -> None:
        if publication.stream is None:
            await self._post.arrived(publication)
        else:
            await self._streaming.heard(publication)

    def _channel(self, handle: ConnectionHandle) -> Channel:
        return Channel(handle, self._limits, sums=self.sums, slices=self._slices, work=self._work)
