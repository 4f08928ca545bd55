"""
What hubs have counted, as metrics: read from their integers when somebody collects, and one histogram per broadcast.

No name of a room or a user is a label. Instruments are one set per process, as the global meter provider is; a hub is
held weakly, and is out of the sums when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, get_args
from weakref import WeakSet, finalize

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from .._events import DropReason
from ._backend import BackendHealth
from ._resuming import ResumeState
from ._sums import Sums

BROADCAST_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
"""From one member to a hundred thousand."""
SEND_FAILED = "send_failed"
_SCOPE = "asgi_ws_guard"
_REASONS = (*(reason.value for reason in DropReason), SEND_FAILED)

_Values = Iterable[tuple[int, dict[str, str]]]


class HubSource(Protocol):
    """What is read of a hub."""

    @property
    def connections(self) -> int:
        """Connections that it knows."""

    @property
    def room_count(self) -> int:
        """Rooms that somebody is in."""

    @property
    def user_count(self) -> int:
        """Users that have a connection."""

    @property
    def sums(self) -> Sums:
        """What was counted."""

    def health(self) -> BackendHealth:
        """How its backend is."""


class DeadSource(Protocol):
    """What is read of an attachment to somebody else's manager."""

    def dead(self) -> dict[str, int]:
        """Count the connections that have ended. Dict: name of a collection -> number."""


class Instruments:
    """The instruments of one meter provider, and the hubs that they read."""

    def __init__(self, meter: metrics.Meter) -> None:
        """
        Make the instruments.

        Args:
            meter: Of the provider.
        """
        self._hubs: WeakSet[HubSource] = WeakSet()
        self._attachments: WeakSet[DeadSource] = WeakSet()
        self._gone = Sums()
        self._duration = meter.create_histogram(
            "asgi_ws_guard.hub.broadcast.duration",
            unit="s",
            description="Time in which a message was handed to a room, a user or all.",
            explicit_bucket_boundaries_advisory=BROADCAST_BUCKETS_S,
        )
        counter, gauge = meter.create_observable_counter, meter.create_observable_up_down_counter
        for create, name, unit, description, read in (
            (gauge, "members", "{connection}", "Connections that a hub knows.", self._members),
            (gauge, "rooms", "{room}", "Rooms that somebody is in.", self._rooms),
            (gauge, "users", "{user}", "Users that have a connection.", self._users),
            (gauge, "outbox.messages", "{message}", "Messages that wait in outboxes.", self._waiting),
            (gauge, "outbox.size", "By", "Payload bytes that wait in outboxes.", self._waiting_bytes),
            (gauge, "backends.away", "{hub}", "Hubs that do not reach the other processes.", self._away),
            (gauge, "members.dead", "{connection}", "Ended connections that a manager still holds.", self._dead),
            (counter, "messages", "{message}", "Messages that a server took.", self._sent),
            (counter, "drops", "{message}", "Messages that were dropped, by reason.", self._drops),
            (counter, "resumes", "{connection}", "Connections that asked for a stream, by result.", self._resumes),
            (counter, "evictions", "{connection}", "Slow connections that a hub ended, by cause.", self._evictions),
        ):
            create(f"asgi_ws_guard.hub.{name}", callbacks=[_callback(read)], unit=unit, description=description)

    def add(self, hub: HubSource) -> None:
        """Read one more hub for as long as it lives; what it counted stays counted."""
        self._hubs.add(hub)
        finalize(hub, self._gone.add, hub.sums).atexit = False

    def attach(self, attachment: DeadSource) -> None:
        """Read one more attachment for as long as it lives."""
        self._attachments.add(attachment)

    def broadcast(self, took_s: float, kind: str) -> None:
        """
        Record one broadcast.

        Args:
            took_s: Seconds.
            kind: ``"room"``, ``"user"`` or ``"all"``.
        """
        self._duration.record(took_s, {"asgi_ws_guard.hub.target": kind})

    def _members(self) -> _Values:
        yield sum(hub.connections for hub in tuple(self._hubs)), {}

    def _rooms(self) -> _Values:
        yield sum(hub.room_count for hub in tuple(self._hubs)), {}

    def _users(self) -> _Values:
        yield sum(hub.user_count for hub in tuple(self._hubs)), {}

    def _away(self) -> _Values:
        yield sum(hub.health().state == "degraded" for hub in tuple(self._hubs)), {}

    def _waiting(self) -> _Values:
        yield self._total().waiting, {}

    def _waiting_bytes(self) -> _Values:
        yield self._total().waiting_bytes, {}

    def _sent(self) -> _Values:
        yield self._total().sent, {}

    def _drops(self) -> _Values:
        dropped = self._total().dropped
        for reason in _REASONS:
            yield dropped.get(reason, 0), {"reason": reason}

    def _evictions(self) -> _Values:
        total = self._total()
        yield total.closed, {"reason": "outbox_full"}
        yield total.timed_out, {"reason": "send_timeout"}

    def _resumes(self) -> _Values:
        resumes = self._total().resumes
        for state in get_args(ResumeState):
            yield resumes.get(state, 0), {"result": state}

    def _dead(self) -> _Values:
        sums: dict[str, int] = {}
        for attachment in tuple(self._attachments):
            for name, number in attachment.dead().items():
                sums[name] = sums.get(name, 0) + number
        for name, number in sums.items():
            yield number, {"asgi_ws_guard.hub.collection": name}

    def _total(self) -> Sums:
        total = Sums()
        for one in (self._gone, *(hub.sums for hub in tuple(self._hubs))):
            total.add(one)
        return total


def _callback(read: Callable[[], _Values]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, labels) for value, labels in read()]

    return observe


_OF_GLOBAL: list[Instruments] = []
"""Instruments belong to the process, as the global meter provider does: the SDK takes a name once."""
_MARK = "_asgi_ws_guard_hub_instruments"
"""Where those of a given provider stand: on itself."""


def instruments_of(provider: metrics.MeterProvider | None) -> Instruments:
    """
    Give the instruments of a meter provider, made when they are first asked for.

    Args:
        provider: None: the global one, also when it is set later.
    """
    at_large = metrics.get_meter_provider()
    if provider is None or provider is at_large:
        if getattr(at_large, _MARK, None) is None and not _OF_GLOBAL:
            _OF_GLOBAL.append(Instruments(metrics.get_meter(_SCOPE)))
        known: Instruments | None = getattr(at_large, _MARK, None)
        return known or _OF_GLOBAL[0]
    known = getattr(provider, _MARK, None)
    if known is None:
        known = Instruments(provider.get_meter(_SCOPE))
        setattr(provider, _MARK, known)
    return known
