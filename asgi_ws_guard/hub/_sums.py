"""What a hub counts, as plain integers that any thread may read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Sums:
    """
    What a hub has counted since it was made, as it saw it; what a policy dropped the guard's books alone know.

    Attributes:
        sent: Messages that a server took, at once or later.
        queued: Messages that were put into an outbox, or that a server did not take at once.
        waiting: Messages that are in outboxes now.
        waiting_bytes: Bytes of their payloads.
        dropped: dict: reason -> number of messages; `DropReason` values, and "send_failed".
        closed: Connections that were closed because their outbox was full.
        timed_out: Connections that were ended because a send took too long.
        leave_failures: Calls of ``on_leave`` that raised.
        resumes: dict: `ResumeState` value -> number of connections that asked to come into a stream.
    """

    sent: int = 0
    queued: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    closed: int = 0
    timed_out: int = 0
    leave_failures: int = 0
    resumes: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count a dropped message."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def resume(self, state: str) -> None:
        """Count an answer to a connection that asked to come into a stream."""
        self.resumes[state] = self.resumes.get(state, 0) + 1

    def add(self, other: Sums) -> None:
        """Add what another hub has counted."""
        self.sent += other.sent
        self.queued += other.queued
        self.waiting += other.waiting
        self.waiting_bytes += other.waiting_bytes
        self.closed += other.closed
        self.timed_out += other.timed_out
        self.leave_failures += other.leave_failures
        for reason, number in other.dropped.copy().items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number
        for state, number in other.resumes.copy().items():
            self.resumes[state] = self.resumes.get(state, 0) + number
