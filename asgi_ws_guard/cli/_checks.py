"""
What `verify` has to say: checks, the results of the probes, and a whole run; all of them frozen.

It checks nothing itself. Imported by the modules of `verify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Level(str, Enum):
    """How a check went, the worst first."""

    FAILED = "failed"
    WARNING = "warning"
    NOTE = "note"
    UNCHECKED = "unchecked"
    HELD = "held"


_ORDER = list(Level)


@dataclass(frozen=True)
class Check:
    """
    One thing that was looked at.

    Attributes:
        level: FAILED when the service did not stand it; WARNING when somebody should decide whether it is meant; NOTE
            when it is only worth knowing; UNCHECKED when it could not be checked; else HELD.
        what: In words.
    """

    level: Level
    what: str


@dataclass(frozen=True)
class Result:
    """
    What one probe found.

    Attributes:
        probe: Its name.
        checks: What was looked at, in order.
        took_s: How long it took, in seconds.
    """

    probe: str
    checks: tuple[Check, ...]
    took_s: float = 0.0

    @property
    def level(self) -> Level:
        """Return the worst of the checks; a note, or what was not checked, does not outweigh what held."""
        levels = {check.level for check in self.checks}
        if Level.HELD in levels:
            levels -= {Level.NOTE, Level.UNCHECKED}
        return min(levels, key=_ORDER.index)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        checks = [{"level": check.level.value, "what": check.what} for check in self.checks]
        return {"probe": self.probe, "level": self.level.value, "took_s": round(self.took_s, 3), "checks": checks}


@dataclass(frozen=True)
class Run:
    """
    All probes against one service.

    Attributes:
        health: Where its health was read; None: nowhere.
        results: One of each probe.
    """

    health: str | None
    results: tuple[Result, ...]

    @property
    def failed(self) -> int:
        """Count the probes that failed."""
        return self.count(Level.FAILED)

    def count(self, level: Level) -> int:
        """Count the probes of a level."""
        return sum(result.level is level for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "health": self.health,
            "failed": self.failed,
            "warnings": self.count(Level.WARNING),
            "probes": [result.as_dict() for result in self.results],
        }


def held(what: str) -> Check:
    """Say that something held."""
    return Check(Level.HELD, what)


def note(what: str) -> Check:
    """Say something that is worth knowing."""
    return Check(Level.NOTE, what)


def unchecked(what: str) -> Check:
    """Say what could not be checked."""
    return Check(Level.UNCHECKED, what)


def failed(what: str) -> Check:
    """Say that something did not hold."""
    return Check(Level.FAILED, what)
