"""
One run: start a server, let the storm over it, wait until it is quiet, and compare it with what it was before.

It gives the faults that it finds as text, and prints nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop.servers import HOST, Running, Server, start

from .clients import Outcome, storm
from .complaints import complaints
from .known import known
from .plans import plans

PACKAGE = __name__.rpartition(".")[0]
IMPORT_ROOT = Path(__file__).resolve().parents[PACKAGE.count(".") + 1]
WARM_UP_FROM = 10**9  # numbers that no client of a run has
QUIET_S = 90.0  # uvicorn waits 20 s for the answer to a close, and Twisted 60 s for more of an HTTP request
POLL_S = 0.1
ANSWER_S = 30.0
ARGUMENTS = {"daphne": ("--application-close-timeout", "120")}
"""daphne 4.2 kills after 10 s who still works on what had arrived, which takes longer on a loaded machine."""
LASTING = {"report_to_monitor": 2}
"""Tasks that the first connections start, and that stay."""
TOLERANCES = {
    "descriptors": 0,
    # those of others that come with time: caches of regular expressions, of types, of interned routes
    "everything": 6000,
    # what an allocator keeps of a storm, in bytes; a rest of 3 KiB of each connection shows after 16,000
    "rss": 48 * 1024 * 1024,
}

Figures = dict[str, Any]


@dataclass
class Result:
    """
    What a run has shown.

    Args:
        server: Name of the server.
        faults: What must not be; empty after a good run.
        statuses: dict: outcome of the handshake -> number of clients.
        known: dict: why -> number of complaints that are the server's own.
        own: Number of complaints about what was raised on purpose.
        seconds: What the storm took.
        before: Figures behind the warm-up, before the storm.
        after: Figures when it was quiet again.
    """

    server: str
    faults: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    own: int = 0
    seconds: float = 0.0
    before: Figures = field(default_factory=dict)
    after: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Storm:
    """
    What a run is to be.

    Args:
        seed: Everything is drawn from it.
        count: Number of clients.
        styles: Which applications they go to.
        at_once: How many there are at any time.
        warm_up: Clients before the figures that the end is compared with.
        bare: Without the guard: nothing but the log is judged, to see what the servers complain of by themselves; and
            what memory they keep.
    """

    seed: int
    count: int
    styles: Sequence[str]
    at_once: int = 200
    warm_up: int = 200
    bare: bool = False


def run(server: Server, plan: Storm, folder: Path, first: int, done: Callable[[], None]) -> Result:
    """
    Make one run.

    Args:
        server: One of the table.
        plan: What it is to be.
        folder: For the log.
        first: Number of the first client.
        done: Called after each client.
    """
    result = Result(server.name)
    env = {
        "CHAOS_SEED": str(plan.seed),
        "CHAOS_SERVER": server.name,
        "PYTHONMALLOC": "malloc",  # which gives all back that is free; CPython's own keeps up to 40 MiB after a storm
        "CHAT_INTERVAL_S": "0.02",
        "CHAT_DATABASE_S": "0.001",
        **({"CHAOS_BARE": "1"} if plan.bare else {}),
    }
    arguments = ARGUMENTS.get(server.name, ())
    app = f"{PACKAGE}.served:app"
    with start(server, app, folder, env=env, python_path=[IMPORT_ROOT], arguments=arguments) as running:
        fresh = figures(running, "")
        fresh["tasks"] |= LASTING
        warming = plans(plan.seed, plan.warm_up, plan.styles, WARM_UP_FROM)
        _send(running, warming, plan.at_once, lambda outcome: _judge(outcome, result, plan))
        result.before = figures(running, "?memory") if plan.bare else quiet(running, fresh)
        result.faults += [] if plan.bare else [f"warm-up: {fault}" for fault in left(fresh, result.before)]
        began = time.monotonic()

        def note(outcome: Outcome) -> None:
            result.statuses[str(outcome.status)] += 1
            _judge(outcome, result, plan)
            done()

        _send(running, plans(plan.seed, plan.count, plan.styles, first), plan.at_once, note)
        result.seconds = time.monotonic() - began
        result.after = figures(running, "?memory") if plan.bare else quiet(running, result.before)
        result.faults += [] if plan.bare else left(result.before, result.after) + unbalanced(result.after)
    judge_log(result, running.log_path)
    return result


def _judge(outcome: Outcome, result: Result, plan: Storm) -> None:
    if outcome.fault and not plan.bare:
        result.faults.append(f"client: {outcome.fault}: {outcome.plan}")


def _send(running: Running, some: Any, at_once: int, note: Callable[[Outcome], None]) -> None:
    asyncio.run(storm(running.port, some, at_once, note))


def quiet(running: Running, before: Figures) -> Figures:
    """
    Wait until there is no more than there was before, or until it takes too long.

    Args:
        running: The server.
        before: What there was.

    Returns:
        The figures then.
    """
    deadline = time.monotonic() + QUIET_S
    while True:
        now = figures(running, "?memory")
        if not left(before, now) or time.monotonic() > deadline:
            return now
        time.sleep(POLL_S)


def figures(running: Running, query: str) -> Figures:
    """
    Ask a server for its figures.

    Args:
        running: The server.
        query: With its question mark.
    """
    connection = http.client.HTTPConnection(HOST, running.port, timeout=ANSWER_S)
    try:
        connection.request("GET", f"/figures{query}", headers={"Connection": "close"})
        given: Figures = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return given


def left(before: Figures, after: Figures) -> list[str]:
    """
    Name what is left of a storm.

    Args:
        before: The figures without it.
        after: The figures behind it.
    """
    found = []
    for name, style in after["styles"].items():
        found += [
            f"{name}: {what} left: {style[what]}" for what in ("handlers", "sessions", "admitted") if style.get(what)
        ]
    for what in ("tasks", "objects"):
        grown = Counter[str](after[what]) - Counter[str](before.get(what, after[what]))
        if grown:
            found.append(f"{what} left: {dict(grown)}, of {after['waits'] if what == 'tasks' else 'these'}")
    if after["spans_open"] or after["spans_started"] != after["spans_ended"]:
        found.append(f"spans left: {after['spans_open']}, {after['spans_started']} and {after['spans_ended']}")
    for gauge in ("websocket.server.connection.active", "asgi_ws_guard.zombies"):
        if after["gauges"].get(gauge):
            found.append(f"{gauge} is {after['gauges'][gauge]}")
    for what, tolerance in TOLERANCES.items():
        if what in before and after[what] > before[what] + tolerance:
            found.append(f"{what}: {after[what]}, before {before[what]}")
    return found


def unbalanced(after: Figures) -> list[str]:
    """
    Name the books that do not agree with what was counted beside them.

    Args:
        after: The figures of a quiet server.
    """
    found = []
    for name, style in after["styles"].items():
        counts = Counter(style["counts"])
        pairs = {
            "websocket.send that the server took": (style["sent"], counts["taken"]),
            "websocket.receive that the server delivered": (style["received"], counts["delivered"]),
        }
        if name == "raw":  # a framework's refusals go down to the guard beside what is counted below it
            pairs["calls of send"] = (style["attempted"], counts["attempted"])
        for what, (told, seen) in pairs.items():
            if told != seen:
                found.append(f"{name}: {what}: the books say {told}, there were {seen}")
        if style["attempted"] < counts["attempted"]:
            found.append(f"{name}: {style['attempted']} attempted in the books, {counts['attempted']} seen")
    told = sum(style["attempted"] for style in after["styles"].values())
    if after["gauges"].get("asgi_ws_guard.sends", 0) != told:
        found.append(f"asgi_ws_guard.sends: {after['gauges'].get('asgi_ws_guard.sends')}, in the books {told}")
    return found


def judge_log(result: Result, path: Path) -> None:
    """
    Sort what the log complains of into the server's own, what was raised on purpose, and faults.

    Args:
        result: Where it is written down.
        path: The log.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for complaint in complaints(lines):
            reason = known(result.server, complaint)
            if reason is not None:
                result.known[reason.why] += 1
            elif complaint.is_own:
                result.own += 1
            else:
                result.faults.append(f"log: {complaint.text}")
