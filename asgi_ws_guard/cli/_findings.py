"""
What `doctor` has to say: findings, their table and their JSON.

It finds nothing itself. Imported by the modules of `doctor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rich.markup import escape
from rich.table import Table


class Level(str, Enum):
    """How much a finding matters, the worst first."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTE = "note"


_ORDER = list(Level)
_STYLES = {Level.CRITICAL: "bold red", Level.WARNING: "yellow", Level.NOTE: "green"}


@dataclass(frozen=True)
class Finding:
    """
    One piece of advice.

    Attributes:
        level: CRITICAL when websockets cannot work like this, WARNING when something will go wrong one day, else NOTE.
        subject: A server, a framework, a middleware, a limit.
        what: What was found.
        why: What it does to websocket connections.
        remedy: What to do; empty when there is nothing to do.
    """

    level: Level
    subject: str
    what: str
    why: str
    remedy: str = ""


def critical(findings: Sequence[Finding]) -> int:
    """Count the findings with which websockets cannot work."""
    return sum(finding.level is Level.CRITICAL for finding in findings)


def as_dict(target: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    rows = [asdict(finding) | {"level": finding.level.value} for finding in sort(findings)]
    return {"application": target, "critical": critical(findings), "findings": rows}


def as_table(target: str, findings: Sequence[Finding]) -> Table:
    """Draw the findings, the worst first."""
    table = Table(title=f"What to know about WebSockets of {escape(target)}", show_lines=True)
    for name in ("", "subject", "what", "why", "remedy"):
        table.add_column(name, overflow="fold")
    for finding in sort(findings):
        style = _STYLES[finding.level]
        texts = (finding.subject, finding.what, finding.why, finding.remedy or "-")
        table.add_row(f"[{style}]{finding.level.value}[/]", *map(escape, texts))
    return table


def sort(findings: Sequence[Finding]) -> list[Finding]:
    """Put the worst first, and leave the order otherwise."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))
