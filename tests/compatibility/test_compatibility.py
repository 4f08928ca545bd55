"""
A part of the compatibility table: every framework on one server, two on all. ``make compatibility`` runs the whole.

What held with the guard when the table was made must hold now; what did not is a limit, and is not tried.
"""

from __future__ import annotations

import importlib.util

import pytest
from interop.servers import SERVERS, Server

from .limits import LIMITS, limit_of
from .lowest import lowest
from .page import PAGE, lost, make_page
from .results import read
from .runs import complaint, run
from .scenarios import FRAMEWORKS
from .stage import ON_PURPOSE

EVERYWHERE = ("raw", "starlette")
ELSEWHERE = [name for name in FRAMEWORKS if name not in EVERYWHERE]
RESULTS = read()


def _part(number: int) -> list[str]:
    """Deal the frameworks out to the servers; each gets those that are everywhere, and every sixth of the others."""
    dealt = [*EVERYWHERE, *ELSEWHERE[number :: len(SERVERS)]]
    return [name for name in dealt if all(map(importlib.util.find_spec, FRAMEWORKS[name].imports))]


@pytest.mark.parametrize(
    ("server", "frameworks"),
    [(server, _part(number)) for number, server in enumerate(SERVERS)],
    ids=lambda value: getattr(value, "name", None) or "-".join(value),
)
def test_what_held_with_the_guard_holds(server: Server, frameworks: list[str]) -> None:
    """Each scenario that the page counts for these cells holds now."""
    if server.missing:
        pytest.skip(f"{server.name} needs {server.missing}, which is not installed")
    expected = {name: RESULTS.held[name][server.name]["guarded"] for name in frameworks}
    assert run(server, expected, "guarded") == expected


def test_the_page_is_what_the_results_make() -> None:
    """Nobody edited it, and it was made again when the scenarios, the limits or the results changed."""
    assert PAGE.read_text() == make_page(RESULTS)


def test_every_cell_is_there() -> None:
    """The committed results are of a whole run: all frameworks on all servers."""
    assert list(RESULTS.held) == list(FRAMEWORKS)
    assert not RESULTS.left_out
    for cells in RESULTS.held.values():
        assert set(cells) == {server.name for server in SERVERS}


def test_every_limit_is_explained_and_is_one() -> None:
    """What is missing with the guard has a footnote, and is missing bare too; no footnote is about nothing."""
    limits = {one: limit_of(*one) for one in lost(RESULTS)}
    assert [one for one, limit in limits.items() if limit is None] == []
    for (framework, server, scenario), limit in limits.items():
        holds_bare = scenario not in RESULTS.missing(framework, server, "bare")
        assert holds_bare == (limit is not None and server in limit.holds_bare), (framework, server, scenario)
    assert set(LIMITS) == set(limits.values())


OWN = f"Traceback (most recent call last):\n  File 'app.py', line 1\n    boom()\nOnPurposeError: {ON_PURPOSE}\n"
OTHER = "Traceback (most recent call last):\n  File 'app.py', line 1\n    send()\nRuntimeError: late\n"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("INFO: fine\n", ""),
        (f"ERROR: Exception in ASGI application\n{OWN}", ""),
        (f"ERROR: one\nERROR: two\n{OWN}", "ERROR: one"),
        (f"ERROR: Exception in ASGI application\n{OTHER}", "ERROR: Exception in ASGI application"),
        (
            f"{OWN}\nDuring handling of the above exception, another exception occurred:\n\n{OTHER}",
            "RuntimeError: late",
        ),
        (OTHER, "RuntimeError: late"),
        ("Task exception was never retrieved\n", "Task exception was never retrieved"),
    ],
)
def test_what_a_log_complains_of(log: str, found: str) -> None:
    """A traceback, or a line of an error, that is not the application's own; its own comes with one line."""
    assert complaint(log) == found


def test_the_lowest_versions_are_stated_once() -> None:
    """Each server is left out below what pyproject.toml says, and uvicorn's sansio implementation below a later one."""
    bounds = lowest()
    assert {"asgiref", "structlog", "opentelemetry-api", "starlette", "quart"} < set(bounds)
    for server in SERVERS:
        assert server.since > (0,)
        if server.name != "uvicorn-sansio":
            assert bounds[server.distribution] == ".".join(str(number) for number in server.since)
