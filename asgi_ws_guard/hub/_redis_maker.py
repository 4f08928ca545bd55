"""Makes connections of redis-py from an address, and shows nobody what is in it. It opens none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._exceptions import ConfigurationError


def connection_maker(url: Any, timeout_s: float) -> Callable[[], Any]:
    """
    Give what makes a connection of redis-py: one that tries once, and speaks RESP2 in bytes.

    Args:
        url: Such as ``redis://127.0.0.1:6379/0``, ``rediss://`` or ``unix://``.
        timeout_s: Seconds that connecting may take.

    Raises:
        ConfigurationError: The address is not one, or redis is not installed; no password is shown.
    """
    shown = f"{url.partition('://')[0]}://…" if isinstance(url, str) and "://" in url else f"<{type(url).__name__}>"
    try:
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        missing = f"the package redis, pip install 'asgi-ws-guard[redis]' ({error})"
        raise ConfigurationError("url", shown, missing) from None
    try:
        pool = ConnectionPool.from_url(url)
    except Exception:  # noqa: BLE001 - whatever a wrong url does; its text may hold a password
        raise ConfigurationError("url", shown, "redis://host:port/db, rediss:// or unix://") from None
    settings = {"protocol": 2, "decode_responses": False, "health_check_interval": 0, "retry_on_error": []}
    waits = {"socket_timeout": None, "socket_connect_timeout": timeout_s}
    options = {**pool.connection_kwargs, **settings, **waits, "retry": Retry(NoBackoff(), 0)}
    return lambda: pool.connection_class(**options)
