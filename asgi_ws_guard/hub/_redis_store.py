"""
Streams in Redis, for all nodes: a hash that knows epoch, last offset and what was acknowledged, and a Redis Stream.

A script appends and publishes in one step, so that messages reach every node in the order of their offsets. It opens no
connection.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

from ._backend import BackendUnavailable
from ._encoding import Encoded
from ._publication import Publication, StreamId
from ._store import PAGE, life_s, new_epoch
from ._streams import Entry, History, StreamOptions
from ._target import Target
from ._wire import body, head

ONCE_MS = 60_000
"""How long a message is known that was sent twice because its first answer was lost."""

_BEGIN = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  epoch = ARGV[1]
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', 0, 'acked', 0)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
"""
APPEND = (
    _BEGIN
    + """
local offset = redis.call('GET', KEYS[3])
if offset then return {epoch, tonumber(offset)} end
offset = redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('SET', KEYS[3], offset, 'PX', ARGV[3])
local id = string.format('%d-0', offset)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], id, 'p', ARGV[9], 't', string.format('%d', now_ms))
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call(ARGV[6], ARGV[7], ARGV[8] .. string.format(',"e":"%s","o":%d}\\n', epoch, offset) .. ARGV[9])
return {epoch, offset}
"""
)
READ = (
    _BEGIN
    + """
local known = redis.call('HMGET', KEYS[1], 'last', 'acked')
local after = ARGV[3]
if after == '' then after = known[2] end
local first = string.format('%d-0', tonumber(after) + 1)
local entries = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[4])
return {epoch, tonumber(known[1]), tonumber(known[2]), string.format('%d', now_ms), entries}
"""
)
ACKNOWLEDGE = """
local known = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'acked')
if known[1] ~= ARGV[1] then return 0 end
local offset = math.min(tonumber(ARGV[2]), tonumber(known[2]))
if offset > tonumber(known[3]) then redis.call('HSET', KEYS[1], 'acked', string.format('%d', offset)) end
return 1
"""


class Node(Protocol):
    """What the store needs of the backend."""

    @property
    def node(self) -> str:
        """The id of this node."""

    @property
    def publish_word(self) -> str:
        """``"PUBLISH"`` or ``"SPUBLISH"``."""

    async def ask(self, *words: Any) -> Any:
        """Send a command."""

    async def ready(self) -> bool:
        """Wait for Redis, for a bounded time."""

    def channel(self, target: Target) -> str:
        """Name the channel of a target."""


class RedisStore:
    """Streams in Redis."""

    publishes = True

    def __init__(self, node: Node, prefix: str, token: Callable[[], str] = lambda: secrets.token_hex(12)) -> None:
        """
        Make a store.

        Args:
            node: The backend.
            prefix: What keys begin with.
            token: Names an attempt to append.
        """
        self._node, self._prefix, self._token = node, prefix, token

    async def append(self, publication: Publication, options: StreamOptions) -> StreamId:
        """Append a message and publish it; when the answer is lost it is asked for again, and nothing happens twice."""
        once = f"{self._prefix}:once:{self._token()}"
        try:
            return await self._append(publication, options, once)
        except BackendUnavailable:
            if not await self._node.ready():
                raise
        return await self._append(publication, options, once)

    async def read(self, target: Target, after: int | None, options: StreamOptions) -> History:
        """Read a stream."""
        arguments = (new_epoch(), _ms(life_s(options)), "" if after is None else after, PAGE)
        epoch, last, acked, now_ms, found = await self._node.ask("EVAL", READ, 2, *self._keys(target), *arguments)
        oldest_ms = int(now_ms) - _ms(options.history_s)
        entries = []
        for offset, values in found:
            fields = dict(zip(values[::2], values[1::2], strict=True))
            if int(fields[b"t"]) >= oldest_ms:
                payload = fields[b"p"].decode("utf-8")
                entries.append(Entry(int(offset.partition(b"-")[0]), Encoded(payload, len(fields[b"p"]))))
        return History(epoch.decode("ascii"), int(last), int(acked), entries)

    async def acknowledge(self, target: Target, place: StreamId) -> None:
        """Remember what was acknowledged."""
        await self._node.ask("EVAL", ACKNOWLEDGE, 1, self._keys(target)[0], place.epoch, place.offset)

    async def _append(self, publication: Publication, options: StreamOptions, once: str) -> StreamId:
        node, target = self._node, publication.target
        times = (_ms(life_s(options)), ONCE_MS)
        kept = (options.history_messages, _ms(options.history_s))
        carried = (node.publish_word, node.channel(target), head(node.node, 0, publication), body(publication.message))
        keys = (*self._keys(target), once)
        epoch, offset = await node.ask("EVAL", APPEND, 3, *keys, new_epoch(), *times, *kept, *carried)
        return StreamId(epoch.decode("ascii"), int(offset))

    def _keys(self, target: Target) -> tuple[str, str]:
        name = f"{self._prefix}:stream:{target.kind}:{target.name}"
        return f"{name}:known", f"{name}:messages"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
