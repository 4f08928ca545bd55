"""What the demo counts in a log, when it fails, and what it shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import typer
from rich.console import Console

from asgi_ws_guard.cli._app import show
from asgi_ws_guard.cli._report import Column, LogCounts, Report, as_table

EMPTY = "2026-11-01 10:00:00 [error    ] Failed to send personal message error="
CLOSED = (
    "2026-11-01 10:00:00 [error    ] Failed to send personal message "
    "error='Cannot call \"send\" once a close message has been sent.'"
)
NOT_CONNECTED = (
    "2026-11-01 10:00:00 [error    ] WebSocket error                "
    "error='WebSocket is not connected. Need to call \"accept\" first.' room=global_monitor"
)
TRACEBACK = "Traceback (most recent call last):"

NOTHING = LogCounts(empty_error=0, send_after_close=0, not_connected=0, other_errors=0, tracebacks=0)
CLEAN = Column(
    log=NOTHING,
    handlers_alive=0,
    tasks_alive=0,
    viewers_cut=0,
    raised=0,
    forwarded=90,
    failed=0,
    dropped={"client_disconnected": 10},
)
DIRTY_LOG = LogCounts(empty_error=20, send_after_close=34, not_connected=20, other_errors=0, tracebacks=4)
DIRTY = Column(
    log=DIRTY_LOG, handlers_alive=0, tasks_alive=0, viewers_cut=0, raised=20, forwarded=60, failed=20, dropped={}
)
PROVEN = Report(refreshes=20, seed=1, bare=DIRTY, guarded=CLEAN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (EMPTY, replace(NOTHING, empty_error=1)),
        (EMPTY + "''", replace(NOTHING, empty_error=1)),
        (CLOSED, replace(NOTHING, send_after_close=1)),
        (NOT_CONNECTED, replace(NOTHING, not_connected=1)),
        (EMPTY + "'something else'", replace(NOTHING, other_errors=1)),
        (EMPTY.replace("Failed to send personal message", "WebSocket error"), replace(NOTHING, other_errors=1)),
        (TRACEBACK, replace(NOTHING, tracebacks=1)),
        ("INFO:     connection closed", NOTHING),
    ],
)
def test_a_line_is_counted_as_what_it_is(line: str, expected: LogCounts) -> None:
    """Each line of the incident has its own counter, and so has what looks like it but is not."""
    assert LogCounts.of(f"INFO:     before\n{line}\nINFO:     after\n") == expected


def test_all_lines_of_a_log_are_counted() -> None:
    """The counters add up over a whole log."""
    log = "\n".join([EMPTY] * 3 + [CLOSED] * 2 + [NOT_CONNECTED] + [TRACEBACK] * 2)
    assert LogCounts.of(log) == LogCounts(
        empty_error=3, send_after_close=2, not_connected=1, other_errors=0, tracebacks=2
    )


def test_a_clean_guarded_and_a_dirty_bare_column_prove_the_point() -> None:
    """There is no problem, and the JSON says so."""
    assert PROVEN.problems() == []
    assert PROVEN.as_dict()["clean"] is True


@pytest.mark.parametrize("field", ["empty_error", "send_after_close", "not_connected", "other_errors", "tracebacks"])
def test_anything_in_the_guarded_log_is_a_problem(field: str) -> None:
    """One line of the incident, one other error, or one traceback is enough."""
    log = LogCounts(**{**NOTHING.__dict__, field: 1})
    (problem,) = replace(PROVEN, guarded=replace(CLEAN, log=log)).problems()
    assert problem.startswith("With the guard: 1 x ")


@pytest.mark.parametrize(
    ("guarded", "what"),
    [
        (replace(CLEAN, handlers_alive=2), "2 x handlers still alive"),
        (replace(CLEAN, tasks_alive=3), "3 x asyncio tasks still alive"),
        (replace(CLEAN, viewers_cut=1), "1 x connections of viewers cut"),
        (replace(CLEAN, raised=5), "5 x sends that raised"),
        (replace(CLEAN, dropped={}), "no late send to drop"),
    ],
)
def test_what_is_left_alive_or_cut_is_a_problem(guarded: Column, what: str) -> None:
    """The sentence names what was found, and how many."""
    (problem,) = replace(PROVEN, guarded=guarded).problems()
    assert what in problem


@pytest.mark.parametrize("field", ["empty_error", "send_after_close", "not_connected"])
def test_a_bare_run_without_the_incident_proves_nothing(field: str) -> None:
    """The demo fails as well when a line of the incident does not appear without the guard."""
    log = LogCounts(**{**DIRTY_LOG.__dict__, field: 0})
    (problem,) = replace(PROVEN, bare=replace(DIRTY, log=log)).problems()
    assert problem.startswith("Without the guard the incident did not happen")


def test_the_table_shows_both_runs_side_by_side() -> None:
    """Lines, drops by reason and the success rates are all on it."""
    output = io.StringIO()
    Console(file=output, width=160, color_system=None).print(as_table(PROVEN))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.getvalue().splitlines()]
    assert ['Failed to send personal message  error=""', "20", "0"] in rows
    assert ["late sends dropped: client_disconnected", "-", "10"] in rows
    assert ["send success rate (taken of all)", "75.00%", "90.00%"] in rows


def test_no_send_at_all_is_no_success() -> None:
    """A run in which nothing was sent has no rate to be proud of, and no division by zero."""
    assert replace(CLEAN, forwarded=0, dropped={}).send_success_rate == 0.0


def test_a_problem_ends_the_command_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The report is printed all the same, and the sentence goes to stderr."""
    report = replace(PROVEN, guarded=replace(CLEAN, handlers_alive=1))
    with pytest.raises(typer.Exit) as exit_info:
        show(report, as_json=True)
    assert exit_info.value.exit_code == 1
    output, errors = capsys.readouterr()
    assert json.loads(output)["problems"] == errors.splitlines()


def test_a_proven_point_ends_the_command_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is raised, and nothing goes to stderr."""
    show(PROVEN, as_json=False)
    output, errors = capsys.readouterr()
    assert "with the guard" in output
    assert errors == ""
