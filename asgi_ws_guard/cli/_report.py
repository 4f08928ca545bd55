"""
What the demo found: counted in a server's log, judged, and drawn side by side.

Pure functions over text and numbers; nothing here starts anything. Imported by the demo and by `_app.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

SEND = "Failed to send personal message"
RECEIVE = "WebSocket error"

# The three lines of the incident, as structlog's console renderer writes them; an empty text is bare or quoted,
# depending on the version of structlog.
EMPTY_ERROR = f'{SEND}  error=""'
SEND_AFTER_CLOSE = f"{SEND}  error='Cannot call \"send\" once a close message has been sent.'"
NOT_CONNECTED = f"{RECEIVE}  error='WebSocket is not connected. Need to call \"accept\" first.'"

_ERROR_LINE = re.compile(rf"({SEND}|{RECEIVE}) +error=(.*?)(?: room=\S+)?$", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class LogCounts:
    """How often a server's log holds what should not be there."""

    empty_error: int
    send_after_close: int
    not_connected: int
    other_errors: int
    tracebacks: int

    @classmethod
    def of(cls, text: str) -> LogCounts:
        """Count in the *text* of a log."""
        errors = [(line[1], line[2].strip("'\"")) for line in _ERROR_LINE.finditer(text)]
        empty = errors.count((SEND, ""))
        closed = sum(what == SEND and error.startswith("Cannot call") for what, error in errors)
        parked = sum(what == RECEIVE and "is not connected" in error for what, error in errors)
        return cls(
            empty_error=empty,
            send_after_close=closed,
            not_connected=parked,
            other_errors=len(errors) - empty - closed - parked,
            tracebacks=text.count(_TRACEBACK),
        )


@dataclass(frozen=True)
class Column:
    """
    One run of the incident application.

    Attributes:
        log: What its log holds.
        handlers_alive: Handlers that still ran after all clients had left and the time to settle was over.
        tasks_alive: asyncio tasks at that time, less those of the idle server before the first client.
        viewers_cut: Connections that were lost though nobody refreshed them.
        raised: Sends that raised in the application.
        forwarded: Messages that the server took.
        failed: Messages that neither went out nor were known to be late: the first to meet a lost peer, for one.
        dropped: Late sends that were dropped, reason -> count; empty without the guard.
    """

    log: LogCounts
    handlers_alive: int
    tasks_alive: int
    viewers_cut: int
    raised: int
    forwarded: int
    failed: int
    dropped: Mapping[str, int]

    @property
    def send_success_rate(self) -> float:
        """The share of all messages that the server took, 0 to 1, as metrics and health have it."""
        return self.forwarded / max(1, self.forwarded + self.failed + sum(self.dropped.values()))

    def findings(self) -> dict[str, int]:
        """Return what a clean run has none of: what -> count."""
        return {
            EMPTY_ERROR: self.log.empty_error,
            SEND_AFTER_CLOSE: self.log.send_after_close,
            NOT_CONNECTED: self.log.not_connected,
            "other errors in the application's log": self.log.other_errors,
            "tracebacks in the server's log": self.log.tracebacks,
            "handlers still alive afterwards": self.handlers_alive,
            "asyncio tasks still alive afterwards": self.tasks_alive,
            "connections of viewers cut": self.viewers_cut,
            "sends that raised in the application": self.raised,
        }


@dataclass(frozen=True)
class Report:
    """Both runs, and what they prove."""

    refreshes: int
    seed: int
    bare: Column
    guarded: Column

    def problems(self) -> list[str]:
        """
        Return why the demo failed, one sentence each; empty when it proved its point.

        It fails when the guarded run is not clean, and also when the bare one is: then nothing was proven.
        """
        problems = [f"With the guard: {count} x {what}." for what, count in self.guarded.findings().items() if count]
        bare = self.bare.findings()
        problems += [
            f"Without the guard the incident did not happen: no {line}."
            for line in (EMPTY_ERROR, SEND_AFTER_CLOSE, NOT_CONNECTED)
            if not bare[line]
        ]
        if not sum(self.guarded.dropped.values()):
            problems.append("With the guard there was no late send to drop.")
        return problems

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        problems = self.problems()
        columns = {
            name: asdict(column) | {"send_success_rate": column.send_success_rate}
            for name, column in (("bare", self.bare), ("guarded", self.guarded))
        }
        head = {"refreshes": self.refreshes, "seed": self.seed}
        return head | columns | {"clean": not problems, "problems": problems}


def as_table(report: Report) -> Table:
    """Draw both runs side by side."""
    table = Table(title=f"The incident application on uvicorn, {report.refreshes} refreshes")
    table.add_column()
    table.add_column("without the guard", justify="right")
    table.add_column("with the guard", justify="right")
    columns = (report.bare, report.guarded)
    guarded = report.guarded.findings()
    for what, count in report.bare.findings().items():
        table.add_row(what, _bad(count), _bad(guarded[what]))
    table.add_section()
    for reason in sorted(report.guarded.dropped) or ["none"]:
        count = report.guarded.dropped.get(reason, 0)
        table.add_row(f"late sends dropped: {reason}", "-", str(count))
    table.add_row("messages the server took", *(str(column.forwarded) for column in columns))
    table.add_row("messages that failed", *(str(column.failed) for column in columns))
    rates = (f"{column.send_success_rate:.2%}" for column in columns)
    table.add_row("send success rate (taken of all)", *rates)
    return table


def _bad(count: int) -> str:
    """Mark a count that should be zero."""
    return f"[bold red]{count}[/]" if count else "[green]0[/]"
