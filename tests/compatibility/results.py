"""The results as data: what held where, with which versions, and when. It knows neither servers nor the page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .scenarios import FRAMEWORKS

COMMITTED = Path(__file__).parent / "results.json"
MODES = ("bare", "guarded")


@dataclass
class Results:
    """
    What a whole run found.

    Args:
        date: Of the run, as in ISO 8601.
        python: Version of the interpreter.
        versions: Distribution -> version, of the servers and the frameworks.
        left_out: Name of a framework -> why it did not run.
        held: Name of a framework -> name of a server -> mode -> names of the scenarios that held.
    """

    date: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    held: dict[str, dict[str, dict[str, list[str]]]] = field(default_factory=dict)

    def add(self, framework: str, server: str, mode: str, names: list[str]) -> None:
        """Add a cell."""
        self.held.setdefault(framework, {}).setdefault(server, {})[mode] = names

    def missing(self, framework: str, server: str, mode: str = "guarded") -> list[str]:
        """Name the scenarios of a cell that did not hold."""
        held = self.held[framework][server][mode]
        return [name for name in FRAMEWORKS[framework].scenarios if name not in held]

    def write(self, path: Path) -> None:
        """Write them as JSON, one line for each value."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(path: Path = COMMITTED) -> Results:
    """Read what `Results.write` wrote."""
    return Results(**json.loads(path.read_text()))
