"""
Two connections to Redis that live and die together: one for commands, in order and pipelined, one that subscribes.

It connects once and never again: whoever made it makes the next one. No wait in it is without an end. It knows neither
hubs nor messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

BATCH = 256
"""Commands that go out together, and channels in one command."""
PUBLISH = "PUBLISH"
SHARDED_SINCE = 7
"""Redis 7.0 brought SSUBSCRIBE and SPUBLISH."""


@dataclass(eq=False)
class Command:
    """
    A command and who waits for its reply.

    Attributes:
        words: The command.
        reply: Gets it, or an exception; None: nobody waits.
    """

    words: tuple[Any, ...]
    reply: asyncio.Future[Any] | None = None


class Link:
    """
    One life of the two connections.

    Attributes:
        commands: What is to be sent; whoever adds to it calls `wake`.
        in_flight: What was sent and has no reply yet.
        is_sharded: Whether sharded Pub/Sub is used.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        commands: deque[Command],
        *,
        channels: Set[str],
        on_message: Callable[[bytes], Awaitable[None]],
        timeout_s: float,
        beat_s: float,
        sharded: bool | None,
    ) -> None:
        """
        Make a link; `open` and `run` have to follow, and `close` in any case.

        Args:
            make: Makes a connection of redis-py.
            commands: What is to be sent.
            channels: Those that are wanted, live; whoever changes it calls `change`.
            on_message: Takes what comes.
            timeout_s: Seconds that Redis may take for anything.
            beat_s: Seconds between two looks whether the subscribing connection lives.
            sharded: Whether to use sharded Pub/Sub; None: where the server has it.
        """
        self.commands = commands
        self.in_flight: list[Command] = []
        self.is_sharded = bool(sharded)
        self._sharded = sharded
        self._asking, self._hearing = make(), make()
        self._wanted, self._on_message = channels, on_message
        self._changed: set[str] = set()
        self._timeout_s, self._beat_s = timeout_s, beat_s
        self._has_commands, self._has_changes = asyncio.Event(), asyncio.Event()
        self._subscribed: set[str] = set()
        self._wanted_pings: list[asyncio.Future[None]] = []
        self._pings: dict[bytes, tuple[float, asyncio.Future[None]]] = {}
        self._numbers = itertools.count(1)
        self._asked_at_s: float | None = None
        self._reading_since_s = time.monotonic()

    async def open(self) -> None:
        """Connect. Whatever redis-py raises goes on."""
        for connection in (self._asking, self._hearing):
            await asyncio.wait_for(connection.connect(), 2 * self._timeout_s)
        if self._sharded is None:
            await self._asking.send_command("INFO", "server")
            answer = await asyncio.wait_for(self._asking.read_response(), self._timeout_s)
            self.is_sharded = _major(answer) >= SHARDED_SINCE

    async def run(self, beside: Coroutine[Any, Any, None]) -> None:
        """
        Serve until a connection fails, and raise what it failed of.

        Args:
            beside: Runs as long, and ends it by raising.
        """
        self.wake()
        self._changed |= self._wanted  # some have come while it connected
        self._has_changes.set()
        ours = (self._write(), self._read(), self._subscribe(), self._watch())
        parts = [asyncio.ensure_future(one) for one in (*ours, beside)]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def close(self) -> None:
        """Drop the connections. Who waits for a ping is let go; who waits for a reply is in `in_flight`."""
        for ping in (*self._wanted_pings, *(ping for _, ping in self._pings.values())):
            ping.cancel()
        for connection in (self._asking, self._hearing):
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)

    def wake(self) -> None:
        """Say that there are new commands."""
        self._has_commands.set()

    def change(self, channel: str) -> None:
        """Say that a channel is wanted, or no more."""
        self._changed.add(channel)
        self._has_changes.set()

    def ping(self) -> asyncio.Future[None]:
        """
        Ask the subscribing connection.

        Returns:
            Is done when every channel that is wanted now is subscribed to, and what had reached Redis before has been
            taken by `on_message`; is cancelled when the link ends.
        """
        ping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted_pings.append(ping)
        self._has_changes.set()
        return ping

    async def _write(self) -> None:
        from redis.exceptions import ResponseError

        while True:
            batch = self._batch()
            if not batch:
                self._has_commands.clear()
                await self._has_commands.wait()
                continue
            self.in_flight, self._asked_at_s = batch, time.monotonic()
            packed = self._asking.pack_commands([self._words(one) for one in batch])
            await self._asking.send_packed_command(packed, check_health=False)
            while self.in_flight:
                try:
                    answer = await self._asking.read_response()
                except ResponseError as error:  # of this command alone: the connection is well
                    answer = error
                self._asked_at_s = time.monotonic()
                _answer(self.in_flight.pop(0), answer)
            self._asked_at_s = None

    def _batch(self) -> list[Command]:
        batch: list[Command] = []
        while self.commands and len(batch) < BATCH:
            command = self.commands.popleft()
            if command.reply is None or not command.reply.done():  # else its sender was cancelled
                batch.append(command)
        return batch

    def _words(self, command: Command) -> tuple[Any, ...]:
        words = command.words
        return ("SPUBLISH", *words[1:]) if self.is_sharded and words[0] == PUBLISH else words

    async def _read(self) -> None:
        while True:
            self._reading_since_s = time.monotonic()
            kind, *rest = await self._hearing.read_response()
            if kind in (b"message", b"smessage"):
                await self._on_message(rest[1])
            elif kind == b"pong":
                _, ping = self._pings.pop(rest[0], (0.0, None))
                if ping is not None and not ping.done():
                    ping.set_result(None)

    async def _subscribe(self) -> None:
        shard = "S" if self.is_sharded else ""
        while True:
            await self._has_changes.wait()
            self._has_changes.clear()
            changed, self._changed = self._changed, set()
            pings, self._wanted_pings = self._wanted_pings, []
            added = {one for one in changed if one in self._wanted} - self._subscribed
            removed = {one for one in changed if one not in self._wanted} & self._subscribed
            self._subscribed |= added
            self._subscribed -= removed
            number = str(next(self._numbers)).encode()
            every: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            every.add_done_callback(partial(_pass_on, pings))
            self._pings[number] = (time.monotonic(), every)
            for word, names in (("SUBSCRIBE", added), ("UNSUBSCRIBE", removed)):
                for some in _parts(names):
                    await self._hearing.send_command(f"{shard}{word}", *some, check_health=False)
            await self._hearing.send_command("PING", number, check_health=False)

    async def _watch(self) -> None:
        """Raise when Redis owes an answer for too long: a socket alone may not notice that the peer is gone."""
        beaten_s = time.monotonic()
        while True:
            await asyncio.sleep(min(self._timeout_s, self._beat_s) / 4)
            now_s = time.monotonic()
            if now_s - beaten_s >= self._beat_s:
                beaten_s = now_s
                self.ping()
            pinged_s = min((at_s for at_s, _ in self._pings.values()), default=now_s)
            owed_s = now_s - max(pinged_s, self._reading_since_s)  # not while `on_message` takes its time
            if self._asked_at_s is not None:
                owed_s = max(owed_s, now_s - self._asked_at_s)
            if owed_s > self._timeout_s:
                raise TimeoutError(f"no answer within {self._timeout_s} s")


def _answer(command: Command, answer: Any) -> None:
    if command.reply is None or command.reply.done():
        return
    if isinstance(answer, Exception):
        command.reply.set_exception(answer)
    else:
        command.reply.set_result(answer)


def _pass_on(pings: Iterable[asyncio.Future[None]], done: asyncio.Future[None]) -> None:
    for ping in pings:
        if done.cancelled():
            ping.cancel()
        elif not ping.done():
            ping.set_result(None)


def _parts(names: set[str]) -> Iterable[list[str]]:
    rest = sorted(names)
    return (rest[start : start + BATCH] for start in range(0, len(rest), BATCH))


def _major(info: Any) -> int:
    """Read the version out of ``INFO server``; 0 when it is not there."""
    found = bytes(info).partition(b"redis_version:")[2].partition(b".")[0]
    return int(found) if found.isdigit() else 0
