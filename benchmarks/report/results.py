"""What was measured: the raw numbers of one run, its conditions, and their summary. It measures nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

Series = dict[str, list[float]]
"""dict: subject -> one number for each round; the numbers of one place belong to one round."""


class Summary(NamedTuple):
    """
    A series in three numbers.

    Attributes:
        median: The middle.
        low: The lower quartile.
        high: The upper quartile.
    """

    median: float
    low: float
    high: float


class Results:
    """
    The raw results of one run.

    Attributes:
        conditions: Machine, versions and date.
        tables: dict: name of a measurement -> its series.
    """

    def __init__(self, conditions: Mapping[str, Any], tables: Mapping[str, Series] | None = None) -> None:
        self.conditions = dict(conditions)
        self.tables: dict[str, Series] = {name: dict(series) for name, series in (tables or {}).items()}

    def note(self, table: str, subject: str, value: float) -> None:
        """Add the number of one round."""
        self.tables.setdefault(table, {}).setdefault(subject, []).append(value)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"conditions": self.conditions, "tables": self.tables}, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        found = json.loads(path.read_text("utf-8"))
        return cls(found["conditions"], found["tables"])


def summary(values: Sequence[float]) -> Summary:
    """Give the median and the quartiles."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return Summary(median(ordered), ordered[round(last / 4)], ordered[round(3 * last / 4)])


def ratios(series: Mapping[str, Sequence[float]], subject: str, reference: str) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(series[subject], series[reference], strict=True)]
