"""
What `verify` found, drawn as tables and given as JSON.

Pure functions over results; nothing here connects or starts anything. Imported by `_verify_command.py` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from ._checks import Check, Level, Run
from ._serving import BARE
from ._verify_servers import OWN, Column

_STYLES = {
    Level.FAILED: "bold red",
    Level.WARNING: "yellow",
    Level.NOTE: "cyan",
    Level.UNCHECKED: "dim",
    Level.HELD: "green",
}
_LINES = {
    "tracebacks": "tracebacks in the log",
    "empty_error": 'log: send failed, error=""',
    "send_after_close": "log: send after close",
    "not_connected": "log: not connected",
    "other_errors": "log: other errors of the chat",
}
_ALWAYS = "tracebacks"


def as_dict(address: str, run: Run) -> dict[str, Any]:
    """Return the run against an address as JSON takes it."""
    return {"address": address, **run.as_dict()}


def as_table(address: str, run: Run) -> Table:
    """Draw the run against an address: a row for each probe, everything that was found in words."""
    table = Table(title=f"A bad client at {escape(address)}", show_lines=True)
    for name in ("probe", "", "what was found"):
        table.add_column(name, overflow="fold")
    for result in run.results:
        words = "\n".join(_in_colour(check) for check in result.checks)
        table.add_row(escape(result.probe), _word(result.level), words)
    return table


def as_comparison_dict(target: str, path: str, columns: Sequence[Column]) -> dict[str, Any]:
    """Return all columns as JSON takes them; without the path's query."""
    rows = [
        {
            "server": column.server,
            "version": column.version,
            "form": column.form,
            "error": column.error,
            "log": asdict(column.log),
            **({} if column.run is None else column.run.as_dict()),
        }
        for column in columns
    ]
    failed = sum(column.has_failed for column in columns)
    return {"application": target, "path": path.partition("?")[0], "failed": failed, "columns": rows}


def as_comparison(target: str, path: str, columns: Sequence[Column]) -> Table:
    """Draw the columns side by side, a row for each probe."""
    where = escape(f"{target} at {path.partition('?')[0]}")
    table = Table(title=f"A bad client, and {where}")
    table.add_column("probe", no_wrap=True)
    for column in columns:
        table.add_column(f"{column.server}\n{column.form}", justify="center", no_wrap=True)
    runs = [column.run for column in columns]
    names = [result.probe for result in next(run for run in runs if run is not None).results]
    for at, name in enumerate(names):
        table.add_row(escape(name), *("-" if run is None else _word(run.results[at].level) for run in runs))
    table.add_section()
    for field, what in _LINES.items():
        counts = [getattr(column.log, field) for column in columns]
        if field == _ALWAYS or any(counts):
            table.add_row(what, *(f"[bold red]{count}[/]" if count else "[green]0[/]" for count in counts))
    return table


def in_words(columns: Sequence[Column]) -> list[str]:
    """Say what is not held, one line each, in rich's markup; what is the same in several columns is said once."""
    said: dict[tuple[str, Check], list[str]] = {}
    for column in columns:
        for result in column.run.results if column.run is not None else ():
            for check in result.checks:
                if check.level in (Level.FAILED, Level.WARNING):
                    said.setdefault((result.probe, check), []).append(f"{column.server} {column.form}")
    lines = [
        f"[bold]{escape(probe)}[/]: {_in_colour(check)} [dim]({', '.join(where)})[/]"
        for (probe, check), where in said.items()
    ]
    lines += [f"[bold red]{escape(column.error)}[/]" for column in columns if column.error]
    if any(column.form == BARE for column in columns):
        lines.append("[dim]bare: without the guard there is no health, so what is left behind is not seen there.[/]")
    if any(column.form == OWN for column in columns):
        lines.append("[dim]own guard: the application brings a guard, so there is nothing to compare it with.[/]")
    return lines


def _word(level: Level) -> str:
    return f"[{_STYLES[level]}]{level.value}[/]"


def _in_colour(check: Check) -> str:
    return f"[{_STYLES[check.level]}]{escape(check.what)}[/]"
