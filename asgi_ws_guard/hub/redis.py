"""
The backend for many processes and machines: Redis, by redis-py (extra ``redis``).

Pub/Sub carries the messages, keys that expire tell who is where. While Redis is away the hub serves its own
connections, and this comes back by itself. It is for a single Redis, or what looks like one; not for Redis Cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .._exceptions import ConfigurationError
from ._backend import BackendHealth, BackendUnavailable, Deliver
from ._checks import check_count, check_seconds
from ._publication import Publication
from ._redis_inbox import RedisInbox
from ._redis_link import PUBLISH, Command, Link
from ._redis_maker import connection_maker
from ._redis_presence import KEPT_S, RedisPresence
from ._redis_store import RedisStore
from ._report import Remote
from ._store import Store
from ._target import Target
from ._wire import pack

FIRST_BACKOFF_S = 0.05
BEATS = 3
"""Tries to renew a life within its time."""
_ALL = Target("all")
_log = logging.getLogger("asgi_ws_guard")


class RedisBackend:
    """
    One node of a cluster of hubs that share a Redis.

    Attributes:
        ignored: dict: why -> messages from Redis that were left alone: "malformed", "foreign_version", "repeated".
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "asgi_ws_guard",
        sharded: bool | None = None,
        queue_messages: int = 0,
        timeout_s: float = 2.0,
        presence_ttl_s: float = 15.0,
        max_backoff_s: float = 5.0,
    ) -> None:
        """
        Make a node; nothing is connected yet.

        Args:
            url: Such as ``redis://127.0.0.1:6379/0``, ``rediss://`` or ``unix://``.
            prefix: What keys and channels begin with; hubs with the same one are a cluster.
            sharded: Whether to use sharded Pub/Sub; None: where the server has it (7.0). The same at all nodes.
            queue_messages: Messages that wait for Redis while it is away, after which publishing is refused; 0: none.
            timeout_s: Seconds that Redis may take for anything before it counts as away.
            presence_ttl_s: Seconds after which the users of a node that was killed are gone.
            max_backoff_s: Most seconds between two tries to connect; they begin with 0.05 and double, with jitter.

        Raises:
            ConfigurationError: An option is not allowed, or redis is not installed; no password is shown.
        """
        check_seconds("timeout_s", timeout_s)
        check_seconds("presence_ttl_s", presence_ttl_s)
        check_seconds("max_backoff_s", max_backoff_s)
        check_count("queue_messages", queue_messages, 0)
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError("prefix", prefix, "a str, not empty")
        if not isinstance(sharded, bool | None):
            raise ConfigurationError("sharded", sharded, "True, False or None")
        self._make = connection_maker(url, timeout_s)
        self._prefix, self._sharded, self._queue_messages = prefix, sharded, queue_messages
        self._timeout_s, self._ttl_s, self._max_backoff_s = timeout_s, presence_ttl_s, max_backoff_s
        self._presence = RedisPresence(prefix, presence_ttl_s, self.ask, self._tell)
        self._channels = {self.channel(_ALL)}
        self._commands: deque[Command] = deque()
        self._node, self._serial = secrets.token_hex(8), 0
        self._inbox = RedisInbox(self._node)
        self.ignored = self._inbox.ignored
        self._deliver: Deliver | None = None
        self._returned: Callable[[], None] = _nothing
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._is_up = asyncio.Event()
        self._why = "not connected yet"

    async def open(self, deliver: Deliver, returned: Callable[[], None] | None = None) -> None:
        """Begin, and wait for Redis at most its time: a hub starts without it too."""
        self._deliver, self._returned = deliver, returned or _nothing
        self._task = asyncio.create_task(self._run())
        await self.ready()

    async def close(self) -> None:
        """End."""
        if self._task is None:
            return
        self._deliver = None
        if self._link is not None:
            with contextlib.suppress(BackendUnavailable, asyncio.TimeoutError):
                await asyncio.wait_for(self._presence.end(), self._timeout_s)
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait([task])

    async def publish(self, publication: Publication) -> Remote:
        """Carry a message to the other nodes."""
        if self._deliver is None:
            raise BackendUnavailable("the backend is closed")
        if self._link is None and len(self._commands) >= self._queue_messages:
            raise BackendUnavailable(f"Redis is away ({self._why})")
        self._serial += 1
        words = (PUBLISH, self.channel(publication.target), pack(self._node, self._serial, publication))
        if self._link is None:
            self._commands.append(Command(words))
            return "queued"
        return "queued" if await self._await(words) == "queued" else "published"

    async def ask(self, *words: Any) -> Any:
        """
        Send a command and wait for the reply, at most the time that Redis has.

        Raises:
            BackendUnavailable: Redis is away; whether it got the command nobody knows.
        """
        if self._link is None:
            raise BackendUnavailable(f"Redis is away ({self._why})")
        return await self._await(words)

    def subscribe(self, target: Target) -> None:
        """Have messages to a room or a user from now on."""
        self._channels.add(self.channel(target))
        self._change(target)

    def unsubscribe(self, target: Target) -> None:
        """Have them no more."""
        self._channels.discard(self.channel(target))
        self._change(target)

    def arrived(self, user: str, connection_id: str) -> None:
        """Take note of a connection of a user."""
        self._presence.arrived(user, connection_id)

    def departed(self, user: str, connection_id: str) -> None:
        """Take note that a connection of a user has gone."""
        self._presence.departed(user, connection_id)

    async def presence(self, user: str) -> frozenset[str]:
        """Tell the connections of a user at other nodes."""
        return await self._presence.elsewhere(user)

    async def ready(self) -> bool:
        """Wait until Redis knows all that was noted, at most its time."""
        if self._deliver is None:
            return False
        try:
            return await asyncio.wait_for(self._settle(), self._timeout_s)
        except (asyncio.TimeoutError, BackendUnavailable):
            return False

    def health(self) -> BackendHealth:
        """Tell how it is."""
        if self._deliver is None:
            return BackendHealth("down", "the hub was not started, or it was stopped")
        if self._link is None:
            return BackendHealth("degraded", f"Redis is away ({self._why}); only local connections are served")
        return BackendHealth("up")

    def channel(self, target: Target) -> str:
        """Name the channel of a target."""
        return f"{self._prefix}:{target.kind}:{target.name}"

    def stream_store(self) -> Store:
        """Give the store of streams."""
        return RedisStore(self, self._prefix)

    @property
    def publish_word(self) -> str:
        """``"SPUBLISH"`` while sharded Pub/Sub is used, else ``"PUBLISH"``."""
        return f"S{PUBLISH}" if self._link is not None and self._link.is_sharded else PUBLISH

    @property
    def node(self) -> str:
        """The id of this node."""
        return self._node

    async def _await(self, words: tuple[Any, ...]) -> Any:
        command = Command(words, asyncio.get_running_loop().create_future())
        self._send(command)
        assert command.reply is not None  # noqa: S101 - for the type alone
        try:
            return await command.reply
        except BackendUnavailable:
            raise
        except Exception as error:
            raise BackendUnavailable(f"Redis refused {words[0]} ({type(error).__name__})") from error

    def _tell(self, *words: Any) -> None:
        if self._link is not None:
            self._send(Command(words))

    def _send(self, command: Command) -> None:
        self._commands.append(command)
        if self._link is not None:
            self._link.wake()

    def _change(self, target: Target) -> None:
        if self._link is not None:
            self._link.change(self.channel(target))

    async def _settle(self) -> bool:
        await self._is_up.wait()
        if self._link is None:
            return False
        await self.ask("PING")  # presence goes the same way before it
        ping = self._link.ping() if self._link is not None else None
        return ping is not None and bool(await asyncio.wait([ping])) and not ping.cancelled()

    async def _run(self) -> None:
        """Connect, serve, and begin again, for as long as the backend is open."""
        attempts = 0
        while True:
            started_s = time.monotonic()
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - whatever it is, other nodes hear nothing until the next link
                self._went_away(error)
            finally:
                self._is_up.clear()
            attempts = 0 if time.monotonic() - started_s > self._max_backoff_s else attempts + 1
            most_s = min(self._max_backoff_s, FIRST_BACKOFF_S * 2 ** min(attempts, 16))
            await asyncio.sleep(most_s * random.uniform(0.5, 1.0))

    async def _live(self) -> None:
        beat_s = self._ttl_s / BEATS
        link = Link(
            self._make,
            self._commands,
            channels=self._channels,
            on_message=self._heard,
            timeout_s=self._timeout_s,
            beat_s=min(beat_s, self._timeout_s),
            sharded=self._sharded,
        )
        try:
            await link.open()
            self._link = link
            link.ping().add_done_callback(lambda ping: None if ping.cancelled() else self._came_up())
            await link.run(self._beat(beat_s))
        finally:
            self._link = None
            await link.close()
            self._give_back(link.in_flight)

    async def _beat(self, beat_s: float) -> None:
        await self._presence.begin()
        written_s = time.monotonic()
        while True:
            await asyncio.sleep(beat_s)
            await self._presence.renew()
            if time.monotonic() - written_s > KEPT_S / BEATS:
                written_s = time.monotonic()
                await self._presence.renew_all()

    def _give_back(self, in_flight: list[Command]) -> None:
        """Keep what may wait for the next link, in order, and tell the others that they have no answer."""
        left = [*in_flight, *self._commands]
        in_flight.clear()
        self._commands.clear()
        for command in left:
            is_waiting = command.reply is not None and not command.reply.done()
            is_wanted = is_waiting or command.reply is None
            has_room = self._deliver is not None and len(self._commands) < self._queue_messages
            if command.words[0] == PUBLISH and is_wanted and has_room:
                self._commands.append(Command(command.words))
                if is_waiting and command.reply is not None:
                    command.reply.set_result("queued")
            elif is_waiting and command.reply is not None:
                command.reply.set_exception(BackendUnavailable("Redis went away before it answered"))

    async def _heard(self, data: bytes) -> None:
        publication = self._inbox.read(data)
        if publication is not None and self._deliver is not None:
            await self._deliver(publication)

    def _came_up(self) -> None:
        if self._why != "not connected yet":
            _log.warning("Redis is back")
        self._why = ""
        self._is_up.set()
        self._returned()

    def _went_away(self, error: Exception) -> None:
        name = type(error).__name__
        if self._why in ("", "not connected yet"):
            _log.error("Redis is away (%s): the hub serves its own connections alone", name)
        self._why = name


def _nothing() -> None:
    """Do nothing."""
