"""
One run: start a server with some of the frameworks, visit all their scenarios, and judge what came of them.

All scenarios run at once. What a log holds cannot be told apart then, so that a run whose log is not clean is repeated
with one framework, and at last with one scenario at a time.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from interop.servers import Running, Server, http_status, start

from .hall import END_PATH, FRAMEWORKS_VARIABLE, SETTLE_PATH
from .scenarios import APP_CODE, BOUND_S, FRAMEWORKS, INTERNAL_ERROR, LINGER_S, SCENARIOS, TOLD, Framework, Scenario
from .stage import ON_PURPOSE
from .visits import Seen, visit

Held = dict[str, list[str]]
"""Name of a framework -> names of the scenarios that held, in the order of the scenarios."""

IMPORT_ROOT = Path(__file__).resolve().parents[1]
APP = f"{__name__.rpartition('.')[0]}.hall:app"
GUARD = {"ASGI_WS_GUARD_APP": APP, "ASGI_WS_GUARD_LINGER_S": str(LINGER_S), "ASGI_WS_GUARD_OBSERVERS": "none"}
_COMPLAINT = re.compile(
    r"ERROR|CRITICAL|never retrieved|never awaited|was destroyed but|Exception in |Exception inside|Unhandled"
)
_TRACEBACK = "Traceback (most recent call last)"

Case = tuple[str, str]
"""A framework and a scenario."""


def run(server: Server, wanted: Mapping[str, Sequence[str]], mode: str, *, verbose: bool = False) -> Held:
    """
    Run some scenarios of some frameworks.

    Args:
        server: Which.
        wanted: Name of a framework -> names of scenarios; the frameworks share one process of the server.
        mode: ``bare`` or ``guarded``.
        verbose: Print why a scenario does not hold.

    Returns:
        What held.
    """
    cases = [(framework, scenario) for framework, scenarios in wanted.items() for scenario in scenarios]
    problems = asyncio.run(_at_once(server, wanted, cases, mode))
    if problems is None and len(wanted) > 1:
        return {name: run(server, {name: wanted[name]}, mode, verbose=verbose)[name] for name in wanted}
    if problems is None:
        problems = asyncio.run(_one_by_one(server, wanted, cases, mode))
    if verbose:
        for framework, scenario in cases:
            if problems[framework, scenario]:
                print(f"    {server.name} {mode} {framework} {scenario}: {problems[framework, scenario]}")
    return {
        framework: [scenario for scenario in scenarios if not problems[framework, scenario]]
        for framework, scenarios in wanted.items()
    }


async def _at_once(
    server: Server, frameworks: Iterable[str], cases: Sequence[Case], mode: str
) -> dict[Case, str] | None:
    """Run all cases together; None when the log holds something that belongs to one of them."""
    with tempfile.TemporaryDirectory() as folder, _serve(server, frameworks, mode, Path(folder)) as running:
        found = await asyncio.gather(*(_try(running, case, mode) for case in cases))
        http_status(running.port, SETTLE_PATH, timeout_s=BOUND_S[mode])
        return None if complaint(running.log) else dict(zip(cases, found, strict=True))


async def _one_by_one(server: Server, frameworks: Iterable[str], cases: Sequence[Case], mode: str) -> dict[Case, str]:
    found: dict[Case, str] = {}
    with tempfile.TemporaryDirectory() as folder, _serve(server, frameworks, mode, Path(folder)) as running:
        for case in cases:
            before = len(running.log)
            problem = await _try(running, case, mode)
            http_status(running.port, SETTLE_PATH, timeout_s=BOUND_S[mode])
            found[case] = problem or complaint(running.log[before:])
            http_status(running.port, END_PATH, timeout_s=BOUND_S[mode])
            http_status(running.port, SETTLE_PATH, timeout_s=BOUND_S[mode])
    return found


def _serve(server: Server, frameworks: Iterable[str], mode: str, folder: Path) -> Running:
    env = {FRAMEWORKS_VARIABLE: ",".join(frameworks), "PYTHONWARNINGS": "ignore"}
    if mode == "bare":
        return start(server, APP, folder, env=env, python_path=[IMPORT_ROOT])
    return start(server, "asgi_ws_guard.wrap:app", folder, env={**env, **GUARD}, python_path=[IMPORT_ROOT])


async def _try(running: Running, case: Case, mode: str) -> str:
    """Visit a scenario, and say what did not hold apart from the log; empty when all did."""
    framework, scenario = FRAMEWORKS[case[0]], SCENARIOS[case[1]]
    tag = f"{case[0]}-{case[1]}"
    clock = asyncio.get_running_loop()
    deadline = clock.time() + BOUND_S[mode]
    seen = await visit(framework, scenario, running.port, tag, BOUND_S[mode])
    if not _saw(framework, scenario, seen):
        return f"the client saw {seen}"
    missing = _missing(running, scenario, tag)
    while missing and clock.time() < deadline and missing != [TOLD]:
        await asyncio.sleep(0.05)
        missing = _missing(running, scenario, tag)
    return f"not said: {', '.join(missing)}" if missing else ""


def _saw(framework: Framework, scenario: Scenario, seen: Seen) -> bool:
    if scenario.sees == APP_CODE:
        return seen == framework.closes_with
    return seen == (framework.fails_with if scenario.sees == INTERNAL_ERROR else scenario.sees)


def _missing(running: Running, scenario: Scenario, tag: str) -> list[str]:
    log = running.log
    return [word for word in scenario.says if f"SAID {tag} {word}\n" not in log]


def complaint(log: str) -> str:
    """
    Find what a log holds that it should not.

    Args:
        log: Of a server and its application.

    Returns:
        The first line of an error, or the last one of a traceback, that the application did not raise on purpose.
    """
    parts = log.split(_TRACEBACK)
    for number, part in enumerate(parts):
        if number and ON_PURPOSE not in part:
            return next((line for line in part.splitlines()[1:] if re.match(r"[\s|]*[\w.]+(:|$)", line)), _TRACEBACK)
        lines = [line for line in part.splitlines() if _COMPLAINT.search(line) and ON_PURPOSE not in line]
        own = number + 1 < len(parts) and ON_PURPOSE in parts[number + 1]
        if lines and not (own and len(lines) == 1):
            return lines[0]
    return ""
