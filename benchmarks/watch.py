"""
What watching idle connections costs: the processor time of a process in which nothing happens.

Run it with ``python -m benchmarks.watch``. A connection is idle when its handler waits in `receive`; one that only
waits for something else is read for by a task of the guard.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from asgi_ws_guard import Allow, Deadlines, Identity, WebSocketGuardMiddleware

from ._subjects import WRAPPERS, App, connected, scope, spread, verdict

BUDGET_PERCENT = 1.0
SETTLE_S = 4.0
"""Longer than the handshakes take, and the watch to see who receives."""


class AllTimeouts:
    """A policy with every deadline there is; none of them comes while it is measured."""

    def __init__(self, send_s: float) -> None:
        self.send_s = send_s

    def admit(self, handshake: Any) -> Allow:
        """Let everybody in."""
        deadlines = Deadlines(handshake_s=10.0, idle_s=60.0, max_age_s=3600.0, send_s=self.send_s)
        return Allow(identity=Identity("user", expires_unix_s=time.time() + 3600.0), deadlines=deadlines)


def _timed(send_s: float) -> Callable[[App], App]:
    return lambda app: WebSocketGuardMiddleware(app, observers=(), policies=(AllTimeouts(send_s),))


SUBJECTS: dict[str, Callable[[App], App]] = {
    "pass-through": WRAPPERS["pass-through"],
    "guard": WRAPPERS["guard, no observer"],
    "guard, all timeouts": _timed(10.0),
    "guard, all timeouts, send deadline of 0.1 s": _timed(0.1),
}


async def receiving_app(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and receive until the disconnect."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def waiting_app(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and wait for the end without receiving."""
    await receive()
    await send({"type": "websocket.accept"})
    await scope["benchmark.over"].wait()


async def idle_share(app: Any, connections: int, window_s: float) -> float:
    """
    Measure a process whose connections are idle.

    Args:
        app: An application, behind the subject.
        connections: How many there are at once.
        window_s: Seconds to measure.

    Returns:
        Processor time, in percent of one core.
    """
    over, inboxes, tasks = asyncio.Event(), [], []
    for _ in range(connections):
        inbox, task = connected(app, {**scope(), "benchmark.over": over})
        inboxes.append(inbox)
        tasks.append(task)
    await asyncio.sleep(SETTLE_S)
    started_s, cpu_s = time.perf_counter(), time.thread_time()
    await asyncio.sleep(window_s)
    share = (time.thread_time() - cpu_s) / (time.perf_counter() - started_s)
    over.set()
    for inbox in inboxes:
        inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await asyncio.gather(*tasks)
    return 100 * share


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections at once")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved rounds")
    parser.add_argument(
        "--window",
        type=float,
        default=15.0,
        help="seconds to measure; a quarter of the idle deadline has every connection looked at once",
    )
    options = parser.parse_args()
    title = f"Watching {options.connections} idle connections (CPython {platform.python_version()})"
    table = Table(
        "subject", "handlers", "% of a core (quartiles)", "us per connection and second", "budget", title=title
    )
    handlers: dict[str, App] = {"receive": receiving_app, "wait for something else": waiting_app}
    found: dict[tuple[str, str], list[float]] = {(name, kind): [] for kind in handlers for name in SUBJECTS}
    for _ in range(options.rounds):
        for (name, kind), shares in found.items():
            app = SUBJECTS[name](handlers[kind])
            shares.append(asyncio.run(idle_share(app, options.connections, options.window)))
    for (name, kind), shares in found.items():
        each_us = 1e4 * median(shares) / options.connections
        budget = verdict(median(shares), BUDGET_PERCENT) if name.startswith("guard") else ""
        table.add_row(name, kind, spread(shares), f"{each_us:.2f}", budget)
    Console().print(table)


if __name__ == "__main__":
    main()
