"""
What all processes do together, in a storage of the `limits` library.

A handshake waits for it a bounded time, a message never: for those `_lease.py` asks ahead. When it is
away, that is said once, and it is asked again once in a while.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Coroutine, Hashable, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

from ..._exceptions import ConfigurationError
from ._checks import positive
from ._rate import Rate

RETRY_S = 1.0
"""Seconds in which a storage that was away is not asked again: an outage costs one handshake a second its time."""

MAX_SOCKETS = 10
"""Sockets to Redis of one event loop; more handshakes at once wait for one of them, within the same time."""

_AWAY = "away"
_SCHEMES = ("memory", "redis", "rediss", "redis+unix")
_log = logging.getLogger("asgi_ws_guard")


class Storage:
    """
    A storage that may be away.

    Args:
        uri: ``"redis://host:port/db"`` and the like, or ``"memory://"``.
        away: What then counts: ``"fail_open"`` or ``"fail_closed"``.
        timeout_s: How long a handshake waits.

    Attributes:
        failures: Handshakes and leases for which it was away.
        fails_closed: Whether nothing passes meanwhile.

    Raises:
        ConfigurationError: An option is not allowed, or an extra is missing.
    """

    def __init__(self, uri: str, away: Literal["fail_open", "fail_closed"], timeout_s: float) -> None:
        if away not in ("fail_open", "fail_closed"):
            raise ConfigurationError("storage_away", away, "'fail_open' or 'fail_closed'")
        scheme, separator, rest = uri.removeprefix("async+").partition("://") if isinstance(uri, str) else ("", "", "")
        if not separator or scheme not in _SCHEMES:
            allowed = ", ".join(f"'{one}://…'" for one in _SCHEMES)
            shown = f"{scheme}://…" if separator else "…"  # there may be a password in it
            raise ConfigurationError("storage", shown, f"one of {allowed}")
        self._uri = f"async+{scheme}://{rest}"
        self._pool_uri = f"{scheme.replace('redis+unix', 'unix')}://{rest}" if scheme != "memory" else None
        self._timeout_s = positive("storage_timeout_s", timeout_s, "a number of seconds, more than 0")
        self.fails_closed = away == "fail_closed"
        self._limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = WeakKeyDictionary()
        self._away_until_s: float | None = None
        self.failures = 0
        self._make_limiter()  # whatever is wrong is said now

    async def take(self, wanted: Sequence[tuple[str, Rate, Hashable]]) -> str | None:
        """
        Count one for each rate.

        Args:
            wanted: Name, rate and key of each.

        Returns:
            None when all have room, the name of the first that has none, or ``"away"`` when it fails closed.
        """
        found = await self._asked(wanted, 1)
        return None if found == _AWAY and not self.fails_closed else found

    async def lease(self, name: str, rate: Rate, key: Hashable, number: int) -> bool | None:
        """
        Reserve a number for one rate, or nothing.

        Args:
            name: Name of the rate.
            rate: The rate.
            key: Whose.
            number: How many, 1 or more.

        Returns:
            Whether there was room; None when the storage is away.
        """
        found = await self._asked([(name, rate, key)], number)
        return None if found == _AWAY else found is None

    async def aclose(self) -> None:
        """Close the sockets of the running loop; they are opened again when they are needed."""
        _, pool = self._limiters.pop(asyncio.get_running_loop(), (None, None))
        if pool is not None:
            await pool.disconnect()

    async def _asked(self, wanted: Sequence[tuple[str, Rate, Hashable]], cost: int) -> str | None:
        """Give the name of the first that has no room, None when all have, `_AWAY` when nobody knows."""
        if self._away_until_s is not None:
            if time.monotonic() < self._away_until_s:
                self.failures += 1
                return _AWAY
            self._away_until_s = time.monotonic() + RETRY_S  # one asks, the others go on without it
        try:
            found = await self._in_time(self._hit(wanted, cost))
        except Exception as error:  # noqa: BLE001 - whatever a storage raises, it is away
            self._goes_away(error)
            self.failures += 1
            return _AWAY
        if self._away_until_s is not None:
            self._away_until_s = None
            _log.warning("the storage of limits is back")
        return found

    async def _in_time(self, asking: Coroutine[Any, Any, str | None]) -> str | None:
        """
        Await an answer, but not for long.

        `asyncio.wait_for` is not for this: it waits for a client that does not take its cancellation, and up to Python
        3.11 it may swallow one that was meant for the handshake.
        """
        task = asyncio.ensure_future(asking)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            task.cancel()
        if not task.done():
            raise TimeoutError
        return task.result()

    async def _hit(self, wanted: Sequence[tuple[str, Rate, Hashable]], cost: int) -> str | None:
        loop = asyncio.get_running_loop()
        if loop not in self._limiters:
            self._limiters[loop] = self._make_limiter()  # a client's sockets belong to one loop
        from limits import RateLimitItemPerSecond

        limiter, _ = self._limiters[loop]
        for name, rate, key in wanted:
            item = RateLimitItemPerSecond(*rate.window, namespace="asgi_ws_guard")
            if not await limiter.hit(item, name, _digest(key), cost=cost):
                return name
        return None

    def _make_limiter(self) -> tuple[Any, Any]:
        """Make a limiter, and the pool of its sockets, which are opened when they are needed."""
        try:
            from limits.aio.strategies import SlidingWindowCounterRateLimiter
            from limits.storage import storage_from_string

            pool = None if self._pool_uri is None else self._pool(self._pool_uri)
            client = {} if pool is None else {"implementation": "redispy", "connection_pool": pool}
            return SlidingWindowCounterRateLimiter(storage_from_string(self._uri, **client)), pool
        except Exception as error:
            allowed = (
                f"what the limits library takes, with pip install 'asgi-ws-guard[limits]' ({type(error).__name__})"
            )
            raise ConfigurationError("storage", f"{self._uri.partition('://')[0]}://…", allowed) from error

    def _pool(self, uri: str) -> Any:
        """Make a pool whose every wait is bounded, and that tries once more: a restart leaves it with dead sockets."""
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Gone

        waits = dict.fromkeys(("timeout", "socket_timeout", "socket_connect_timeout"), self._timeout_s)
        return BlockingConnectionPool.from_url(
            uri, max_connections=MAX_SOCKETS, retry=Retry(NoBackoff(), 1), retry_on_error=[Gone], **waits
        )

    def _goes_away(self, error: Exception) -> None:
        if self._away_until_s is None:
            answer = "closed: nothing passes" if self.fails_closed else "open: this process counts alone"
            _log.error("the storage of limits is away (%s), it fails %s", type(error).__name__, answer)
        self._away_until_s = time.monotonic() + RETRY_S


def _digest(key: Hashable) -> str:
    """Name a key in the storage. Nobody reads an address or a user there by the way; who guesses can still compare."""
    return hashlib.blake2b(repr(key).encode("utf-8", "replace"), digest_size=16).hexdigest()
