"""
The policy `Limits`: asks its parts in turn who may come in, and gives each connection its gate.

It keeps counts and no connection. Live connections and messages are those of this process; the guard carries out what
it answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Literal

from ..._close import CloseStatus
from ..._events import Handshake
from ..._exceptions import ConfigurationError
from ..._plugin import ALLOW, Allow, Deny
from ._address import ClientAddress
from ._buckets import Buckets
from ._checks import count, positive
from ._gate import gates
from ._live import Key, Live
from ._rate import Rate, rate
from ._routes import matcher, route_limits
from ._shared import Shared
from ._storage import Storage

_ONE = ("total", "")


class Limits:
    """
    Limit connections, attempts, messages and bytes. Every limit is None or absent unless it is given.

    Args:
        connections: Live connections; one more is denied with 503.
        per_route: Live connections by path template. Dict: ``"/rooms/{room}"`` -> number, over all rooms; the first
            that matches counts. One more is denied with 429, here and below.
        per_address: Live connections of one address.
        per_identity: Live connections of one identity, which a policy before this one has found; nobody without.
        attempts: Handshakes per time, denied or not; more are denied with 503.
        attempts_per_address: The same for one address; more are denied with 429.
        attempts_per_identity: The same for one identity.
        messages: Received messages per time of each connection, ``"20/second"`` or a `Rate` with its answer.
        bytes_received: Received bytes per time of each connection. A message beyond its burst closes with 1009.
        messages_per_address: Received messages per time of all connections of one address together; what passes here
            must also pass each connection's own rate, above.
        messages_per_identity: The same of one identity.
        bytes_received_per_address: Received bytes per time of all connections of one address together.
        bytes_received_per_identity: The same of one identity.
        max_message_bytes: Bytes of a message, of UTF-8 for text; a larger one closes with 1009.
        address: Gives the key of a client's address: a `ClientAddress` that knows your proxies, or any function.
        route: Gives the key in `per_route` of a handshake, or None; None: by the templates.
        retry_after_s: What Retry-After says where nobody knows: when a connection ends.
        max_keys: Buckets kept for addresses, and for identities; beyond it the one used longest ago is forgotten.
        storage: Where attempts, and messages and bytes of one address or identity, are counted for all processes:
            ``"redis://…"`` or ``"memory://"`` (extra ``limits``). No message waits for it while there is room: a tenth
            of what it allows in a window (`Rate.window`) is reserved ahead for each process. So the processes together
            let no more pass than it allows; each may keep what it has reserved from the others, until the window is
            over.
        storage_away: When the storage does not answer: ``"fail_open"`` leaves it at this process's own buckets, which
            always count too; ``"fail_closed"`` denies with 503, and takes each message as one too many once what was
            reserved is spent.
        storage_timeout_s: Seconds that a handshake waits for the storage.
        clock: Gives seconds that never go back.

    Raises:
        ConfigurationError: An option is not allowed, or none of them limits anything.
    """

    def __init__(
        self,
        *,
        connections: int | None = None,
        per_route: Mapping[str, int] | None = None,
        per_address: int | None = None,
        per_identity: int | None = None,
        attempts: Rate | str | None = None,
        attempts_per_address: Rate | str | None = None,
        attempts_per_identity: Rate | str | None = None,
        messages: Rate | str | None = None,
        bytes_received: Rate | str | None = None,
        messages_per_address: Rate | str | None = None,
        messages_per_identity: Rate | str | None = None,
        bytes_received_per_address: Rate | str | None = None,
        bytes_received_per_identity: Rate | str | None = None,
        max_message_bytes: int | None = None,
        address: Callable[[Handshake], str] | None = None,
        route: Callable[[Handshake], str | None] | None = None,
        retry_after_s: float = 5.0,
        max_keys: int = 100_000,
        storage: str | None = None,
        storage_away: Literal["fail_open", "fail_closed"] = "fail_open",
        storage_timeout_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = count("connections", connections)
        self._per_route = route_limits(per_route)
        self._per_address = count("per_address", per_address)
        self._per_identity = count("per_identity", per_identity)
        self._address = _callable("address", address) or ClientAddress()
        self._route = _callable("route", route) or matcher(self._per_route)
        self._retry_after_s = positive("retry_after_s", retry_after_s, "a number of seconds, more than 0")
        rates = {"address": attempts_per_address, "identity": attempts_per_identity, "total": attempts}
        options = {"total": "attempts"}
        allowed = {name: rate(options.get(name, f"attempts_per_{name}"), one, ("deny",)) for name, one in rates.items()}
        self._rates = {name: one for name, one in allowed.items() if one is not None}
        keys = count("max_keys", max_keys) or 1
        self._buckets = {name: Buckets(one, keys, clock) for name, one in self._rates.items()}
        self._gate = _gates(messages, bytes_received, max_message_bytes, clock)
        self._live = Live()
        self._storage = None if storage is None else Storage(storage, storage_away, storage_timeout_s)
        common = _shared_rates(
            messages_per_address=messages_per_address,
            messages_per_identity=messages_per_identity,
            bytes_received_per_address=bytes_received_per_address,
            bytes_received_per_identity=bytes_received_per_identity,
        )
        self._shared = Shared(common, keys, clock, self._storage)
        counts = (self._connections, self._per_route, self._per_address, self._per_identity)
        if not any((*counts, self._rates, self._gate, common)):
            raise ConfigurationError("connections", None, "a limit, here or by another option")
        if self._storage is not None and not self._rates and not common:
            allowed_here = "None, unless attempts, or messages or bytes of an address or identity, are limited"
            raise ConfigurationError("storage", f"{str(storage).partition('://')[0]}://…", allowed_here)

    @property
    def live(self) -> int:
        """Connections that are counted now."""
        return len(self._live)

    @property
    def keys(self) -> int:
        """Keys in all tables now: what it holds in memory."""
        return self._live.keys + len(self._shared) + sum(len(buckets) for buckets in self._buckets.values())

    @property
    def storage_failures(self) -> int:
        """Handshakes and leases for which the storage was away."""
        return 0 if self._storage is None else self._storage.failures

    def admit(self, handshake: Handshake) -> Allow | Deny | Coroutine[Any, Any, Allow | Deny]:
        """
        Answer a handshake: attempts first, this process's and then the storage's, then what is live.

        Args:
            handshake: What the client asked for.
        """
        keys: dict[str, Hashable] = {"address": self._address(handshake), "total": ""}
        if handshake.identity is not None:
            keys["identity"] = handshake.identity.subject
        try:
            hash(keys.get("identity"))
        except Exception:  # noqa: BLE001 - whatever it is, it cannot be counted
            return Deny(500, reason="identity_not_hashable")
        rated = {name: keys[name] for name in self._rates if name in keys}
        for name, key in rated.items():
            wait_s = self._buckets[name].wait_s(key)
            if wait_s:
                return _too_many("attempts", name, wait_s)
        if self._storage is not None and rated:
            return self._ask(self._storage, rated, handshake, keys)
        return self._enter(handshake, keys)

    def release(self, connection_id: str) -> None:
        """
        Hear of the end of a connection that was allowed.

        Args:
            connection_id: As in the handshake.
        """
        self._live.leave(connection_id)
        self._shared.leave(connection_id)

    async def aclose(self) -> None:
        """
        Close the sockets to the storage that the running event loop has opened; for the end of a lifespan.

        No task is left of those that reserve ahead; who receives a message afterwards opens and reserves anew.
        """
        await self._shared.aclose()
        if self._storage is not None:
            await self._storage.aclose()

    async def _ask(
        self, storage: Storage, rated: Mapping[str, Hashable], handshake: Handshake, keys: Mapping[str, Hashable]
    ) -> Allow | Deny:
        """Ask the storage too. Nothing is counted as live before, so nothing stays behind if this is cancelled."""
        found = await storage.take([(name, self._rates[name], key) for name, key in rated.items()])
        if found == "away":
            return _deny(503, "storage_away", self._retry_after_s)
        if found is not None:
            return _too_many("attempts", found, 1.0 / self._rates[found].per_second)
        return self._enter(handshake, keys)

    def _enter(self, handshake: Handshake, keys: Mapping[str, Hashable]) -> Allow | Deny:
        limits: dict[Key, int] = {}
        if self._connections is not None:
            limits[_ONE] = self._connections
        route = self._route(handshake) if self._per_route else None
        if route in self._per_route:
            limits["route", route] = self._per_route[route]
        if self._per_address is not None:
            limits["address", keys["address"]] = self._per_address
        if self._per_identity is not None and "identity" in keys:
            limits["identity", keys["identity"]] = self._per_identity
        full = self._live.enter(handshake.connection_id, limits)
        if full is not None:
            return _too_many("connections", full, self._retry_after_s)
        own = None if self._gate is None else self._gate()
        gate = self._shared.join(handshake.connection_id, keys, own)
        return ALLOW if gate is None else Allow(gate=gate)


def _gates(messages: object, volume: object, max_bytes: object, clock: Callable[[], float]) -> Any:
    """Check the options about messages; None without any."""
    number = rate("messages", messages, ("delay", "drop", "close"))
    octets = rate("bytes_received", volume, ("delay", "drop", "close"))
    biggest = count("max_message_bytes", max_bytes)
    if octets is not None and biggest is not None and biggest > octets.size:
        allowed = f"at most the burst of bytes_received, which is {octets.size:.0f}: a larger message could never pass"
        raise ConfigurationError("max_message_bytes", max_bytes, allowed)
    if number is None and octets is None and biggest is None:
        return None
    return gates(number, octets, biggest, clock)


def _shared_rates(**rates: object) -> dict[str, Rate]:
    """Check the options about messages of several connections."""
    found = {option: rate(option, value, ("delay", "drop", "close")) for option, value in rates.items()}
    return {option: one for option, one in found.items() if one is not None}


def _callable(option: str, value: Any) -> Any:
    if value is not None and (not callable(value) or isinstance(value, type)):
        raise ConfigurationError(option, value, "a function that takes a Handshake, or None")
    return value


def _too_many(what: str, name: str, wait_s: float) -> Deny:
    if name == "total":
        return _deny(503, what, wait_s)
    return _deny(429, f"{what}_per_{name}", wait_s)


def _deny(status: int, reason: str, wait_s: float) -> Deny:
    retry_after = str(math.ceil(wait_s)).encode("ascii")
    return Deny(status, headers=((b"retry-after", retry_after),), end=CloseStatus.RATE_LIMITED, reason=reason)
