"""
Which user has a connection at which node, in Redis, so that those of a node that was killed expire.

A node is a key with a short life, which it renews; a user is a set of ``life:connection``. Each connection to Redis
begins a new life, and what an earlier one left behind is dead at once. It opens no connection.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

KEPT_S = 3600
"""Seconds for which the set of a user stays that nobody renews: only its size matters, the dead in it do not count."""
CHUNK = 100
"""Users that are written between two replies."""

Ask = Callable[..., Awaitable[Any]]
"""Sends a command and gives the reply."""
Tell = Callable[..., None]
"""Sends a command whose reply nobody needs; does nothing while Redis is away."""


class RedisPresence:
    """The connections of users at this node, and how others are asked for."""

    def __init__(self, prefix: str, ttl_s: float, ask: Ask, tell: Tell) -> None:
        """
        Begin with nobody.

        Args:
            prefix: What the keys begin with.
            ttl_s: Seconds after which a node that does not renew its life is dead.
            ask: Sends a command.
            tell: The same for nobody.
        """
        self._prefix = prefix
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._ask, self._tell = ask, tell
        self._present: dict[str, set[str]] = {}
        self._life = ""

    def arrived(self, user: str, connection_id: str) -> None:
        """Take note of a connection of a user."""
        self._present.setdefault(user, set()).add(connection_id)
        if self._life:
            for words in self._added(user, (connection_id,)):
                self._tell(*words)

    def departed(self, user: str, connection_id: str) -> None:
        """Take note that it has gone."""
        present = self._present.get(user, set())
        present.discard(connection_id)
        if not present:
            self._present.pop(user, None)
        if self._life:
            self._tell("SREM", self._user(user), f"{self._life}:{connection_id}")

    async def begin(self) -> None:
        """Begin a new life, with everybody who is here."""
        before, self._life = self._life, secrets.token_hex(8)
        if before:
            self._tell("DEL", self._node(before))
        await self.renew_all()

    async def renew(self) -> None:
        """Renew this life; when Redis has lost it, everybody is written again."""
        key = self._node(self._life)
        if await self._ask("SET", key, "1", "XX", "PX", self._ttl_ms) is None:
            await self.renew_all()

    async def end(self) -> None:
        """End this life: nobody is here any more."""
        if self._life:
            life, self._life = self._life, ""
            await self._ask("DEL", self._node(life))

    async def elsewhere(self, user: str) -> frozenset[str]:
        """Tell the connections of a user at other nodes that live; forget those of the dead."""
        members = [bytes(one).decode() for one in await self._ask("SMEMBERS", self._user(user))]
        lives = sorted({one.partition(":")[0] for one in members} - {self._life})
        if not lives:
            return frozenset()
        answers = await self._ask("MGET", *map(self._node, lives))
        living = {life for life, answer in zip(lives, answers, strict=True) if answer is not None}
        dead = [one for one in members if one.partition(":")[0] not in living | {self._life}]
        if dead:
            self._tell("SREM", self._user(user), *dead)
        return frozenset(one.partition(":")[2] for one in members if one.partition(":")[0] in living)

    async def renew_all(self) -> None:
        """Write everybody again, some at a time: so the sets of users stay, and come back after a loss."""
        for number, user in enumerate(tuple(self._present), 1):
            for words in self._added(user, tuple(self._present.get(user, ()))):
                self._tell(*words)
            if number % CHUNK == 0:
                await self._live()
        await self._live()

    async def _live(self) -> None:
        await self._ask("SET", self._node(self._life), "1", "PX", self._ttl_ms)

    def _added(self, user: str, connections: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        if connections:
            yield "SADD", self._user(user), *(f"{self._life}:{one}" for one in connections)
            yield "EXPIRE", self._user(user), KEPT_S

    def _node(self, life: str) -> str:
        return f"{self._prefix}:node:{life}"

    def _user(self, user: str) -> str:
        return f"{self._prefix}:present:{user}"
