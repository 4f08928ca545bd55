"""
The verdict: ok, degraded or failing, and why, in machine words and numbers.

Rates are those of the last minutes: a bad hour of yesterday must not keep a process degraded, a good one not hide what
is wrong now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..._close import CloseStatus
from ..._exceptions import ConfigurationError

Level = Literal["ok", "degraded", "failing"]

ABNORMAL = frozenset(
    str(status)
    for status in (
        CloseStatus.APP_ERROR,
        CloseStatus.PROTOCOL_ERROR,
        CloseStatus.SLOW_CONSUMER,
        CloseStatus.TRANSPORT_ERROR,
    )
)
"""Ends that nobody wanted. Who sets an age for connections wants a timeout."""

DECIDED = frozenset(str(status) for status in (CloseStatus.DENIED, CloseStatus.UNAUTHORIZED, CloseStatus.RATE_LIMITED))
"""Ends that say nothing of health: a flood of strangers must neither hide what is wrong nor look like it."""


class RecentNumbers(Protocol):
    """What happened in the last minutes."""

    @property
    def ends_by_status(self) -> Mapping[str, int]:
        """Dict: class of the end -> number of ends."""

    @property
    def attempted(self) -> int:
        """Messages that applications gave to `send`."""

    @property
    def success_rate(self) -> float | None:
        """Share of them that the server took, 0 to 1; None without any."""

    @property
    def observer_failures(self) -> int:
        """Exceptions of observers that were contained."""


class Numbers(Protocol):
    """What a verdict is made of, and what anybody may see."""

    @property
    def open(self) -> int:
        """Connections that are open now."""

    @property
    def zombies(self) -> int:
        """Handlers that have outlived their connection."""

    @property
    def recent(self) -> RecentNumbers:
        """What happened in the last minutes."""

    def as_dict(self) -> dict[str, object]:
        """Give everything as words and numbers, without anything personal; ``"connections"`` holds their counts."""


class Shown(Protocol):
    """One live connection."""

    @property
    def number(self) -> int:
        """Its place in a stable order, from 1."""

    def as_dict(self) -> dict[str, object]:
        """Give everything as words and numbers."""


class HubHealth(Protocol):
    """How a hub is."""

    @property
    def state(self) -> str:
        """``"up"``, or anything else while other processes cannot be reached."""


class HubSource(Protocol):
    """A hub; `asgi_ws_guard.hub.Hub` is one."""

    def health(self) -> HubHealth:
        """Tell how its backend is."""


class Source(Protocol):
    """Where the numbers come from; `asgi_ws_guard.plugins.registry.Registry` is one."""

    def summary(self) -> Numbers:
        """Sum up."""

    def connections(self, *, after: int = 0, limit: int | None = None) -> Sequence[Shown]:
        """
        List live connections by their number.

        Args:
            after: Leave out those up to this number.
            limit: At most so many; None: all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """
    What makes a process degraded (worth a look, answered with 200) or failing (answered with 503).

    None switches a threshold off. Who lets a load balancer act on 503 decides here what it acts on.

    Attributes:
        degraded_send_success: The recent share of messages that the server took is under this, 0 to 1.
        failing_send_success: The same, for failing.
        min_sends: Without so many recent messages the share says nothing.
        degraded_abnormal_ends: The recent share of abnormal ends is over this, 0 to 1. Abnormal are errors of the
            application, of the protocol and of the transport, and slow consumers; denials and timeouts do not count.
        failing_abnormal_ends: The same, for failing.
        min_ends: Without so many recent ends the share says nothing.
        degraded_zombies: More handlers than this have outlived their connection.
        failing_zombies: The same, for failing.
        degraded_observer_failures: More recent exceptions of observers than this.
        failing_observer_failures: The same, for failing.
        degraded_connections: More open connections than this.
        failing_connections: The same, for failing.
        degraded_hubs_away: More hubs than this do not reach the other processes.
        failing_hubs_away: The same, for failing.

    Raises:
        ConfigurationError: A number is out of its range, or a process would be failing before it is degraded.
    """

    degraded_send_success: float | None = 0.995
    failing_send_success: float | None = None
    min_sends: int = 100
    degraded_abnormal_ends: float | None = 0.1
    failing_abnormal_ends: float | None = 0.5
    min_ends: int = 20
    degraded_zombies: int | None = 10
    failing_zombies: int | None = 1000
    degraded_observer_failures: int | None = 0
    failing_observer_failures: int | None = None
    degraded_connections: int | None = None
    failing_connections: int | None = None
    degraded_hubs_away: int | None = 0
    failing_hubs_away: int | None = None

    def __post_init__(self) -> None:
        for name in ("send_success", "abnormal_ends"):
            self._check(name, is_share=True, falls=name == "send_success")
        for name in ("zombies", "observer_failures", "connections", "hubs_away"):
            self._check(name, is_share=False, falls=False)
        for option in ("min_sends", "min_ends"):
            value = getattr(self, option)
            if not _is_count(value):
                raise ConfigurationError(option, value, "a whole number, 0 or more")

    def _check(self, name: str, *, is_share: bool, falls: bool) -> None:
        allowed = "a number from 0 to 1, or None" if is_share else "a whole number, 0 or more, or None"
        limits = {option: getattr(self, option) for option in (f"degraded_{name}", f"failing_{name}")}
        for option, value in limits.items():
            if value is not None and not (_is_share(value) if is_share else _is_count(value)):
                raise ConfigurationError(option, value, allowed)
        degraded, failing = limits.values()
        if degraded is not None and failing is not None and (failing > degraded if falls else failing < degraded):
            which = "at most" if falls else "at least"
            raise ConfigurationError(f"failing_{name}", failing, f"{which} degraded_{name}, which is {degraded!r}")


@dataclass(frozen=True, slots=True)
class Reason:
    """
    One threshold that was passed.

    Attributes:
        reason: ``"send_success"``, ``"abnormal_ends"``, ``"zombies"``, ``"observer_failures"``, ``"connections"`` or
            ``"hubs_away"``.
        level: What it makes of the process.
        value: The number that was found.
        limit: The threshold.
    """

    reason: str
    level: Literal["degraded", "failing"]
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    How a process is.

    Attributes:
        status: The worst of the reasons; ``"ok"`` without any.
        reasons: Each threshold that was passed, the worse of two.
    """

    status: Level
    reasons: tuple[Reason, ...]


def judge(numbers: Numbers, thresholds: Thresholds, hubs_away: int = 0) -> Verdict:
    """
    Compare the numbers with the thresholds.

    Args:
        numbers: Of a registry.
        thresholds: What to make of them.
        hubs_away: Hubs that do not reach the other processes.
    """
    recent = numbers.recent
    sends = recent.success_rate if recent.attempted >= thresholds.min_sends else None
    counted = {status: ends for status, ends in recent.ends_by_status.items() if status not in DECIDED}
    ends = sum(counted.values())
    abnormal = sum(number for status, number in counted.items() if status in ABNORMAL)
    share = abnormal / ends if ends and ends >= thresholds.min_ends else None
    found: list[tuple[str, float | None]] = [
        ("send_success", sends),
        ("abnormal_ends", share),
        ("zombies", numbers.zombies),
        ("observer_failures", recent.observer_failures),
        ("connections", numbers.open),
        ("hubs_away", hubs_away),
    ]
    reasons = tuple(reason for name, value in found for reason in _passed(name, value, thresholds))
    levels = {reason.level for reason in reasons}
    status: Level = "failing" if "failing" in levels else "degraded" if levels else "ok"
    return Verdict(status, reasons)


def _passed(name: str, value: float | None, thresholds: Thresholds) -> tuple[Reason, ...]:
    if value is None:
        return ()
    for level in _WORST_FIRST:
        limit = getattr(thresholds, f"{level}_{name}")
        if limit is not None and (value < limit if name == "send_success" else value > limit):
            return (Reason(name, level, round(value, 6), limit),)
    return ()


_WORST_FIRST: tuple[Literal["degraded", "failing"], ...] = ("failing", "degraded")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


THRESHOLDS = Thresholds()
