"""What became of one message at a hub, frozen for its sender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Remote = Literal["none", "published", "queued", "unavailable"]


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """
    What became of one message, at the moment when the hub had handed it to everybody.

    Members that left after the sending began, and before their turn came, are in none of the numbers.

    Attributes:
        sent: Connections whose server took it at once.
        queued: Connections in whose outbox it waits, or that are just being sent it.
        dropped: dict: reason -> number of messages that were dropped for it: itself, or in its favour an older one of
            the same outbox ("drop_oldest", "latest_by_key"). Reasons are `DropReason` values, and "send_failed".
        unknown: 1 when there is no such room, user or connection here, else 0.
        remote: What became of it at the backend: "none" without other processes, "published", "queued" until the
            backend is back, or "unavailable".
    """

    sent: int = 0
    queued: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0
    remote: Remote = "none"

    @property
    def dropped_total(self) -> int:
        """Number of messages that were dropped, for whatever reason."""
        return sum(self.dropped.values())


class Tally:
    """The same while it is being counted."""

    __slots__ = ("dropped", "queued", "sent", "unknown")

    def __init__(self) -> None:
        self.sent = 0
        self.queued = 0
        self.dropped: dict[str, int] = {}
        self.unknown = 0

    def drop(self, reason: str) -> None:
        """
        Count a dropped message.

        Args:
            reason: Why.
        """
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def report(self, remote: Remote) -> DeliveryReport:
        """
        Freeze it.

        Args:
            remote: What became of it at the backend.
        """
        return DeliveryReport(self.sent, self.queued, dict(self.dropped), self.unknown, remote)
