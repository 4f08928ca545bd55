"""
What an idle connection costs in memory behind the guard, over a two-coroutine pass-through.

Run it with ``python -m benchmarks.memory``. A connection is idle when its handler waits in `receive`. Bytes are counted
by `tracemalloc` in one process; rounds of all subjects are interleaved, and the median is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import tracemalloc
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from ._subjects import WRAPPERS, connected, scope, silence_logs, verdict

BUDGET_BYTES = 1536
SETTLE_S = 0.6
"""Longer than the watch needs to see that the handlers do receive."""


async def idle_app(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and receive until the disconnect."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def per_connection(wrap: Any, connections: int) -> float:
    """
    Measure the memory of idle connections.

    Args:
        wrap: Makes the subject of an application.
        connections: How many there are at once.

    Returns:
        Bytes per connection, those of the task, the scope and the server's queue included.
    """
    app = wrap(idle_app)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    inboxes, tasks = [], []
    for _ in range(connections):
        inbox, task = connected(app, scope())
        inboxes.append(inbox)
        tasks.append(task)
    await asyncio.sleep(SETTLE_S)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for inbox in inboxes:
        inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await asyncio.gather(*tasks)
    return (after - before) / connections


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000, help="idle connections at once")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    options = parser.parse_args()
    silence_logs()
    found: dict[str, list[float]] = {name: [] for name in WRAPPERS}
    for _ in range(options.rounds):
        for name, wrap in WRAPPERS.items():
            found[name].append(asyncio.run(per_connection(wrap, options.connections)))
    title = f"Memory of an idle connection (CPython {platform.python_version()}, {options.connections} connections)"
    table = Table("subject", "bytes", "over the pass-through", "budget", title=title)
    for name, sizes in found.items():
        over = median(sizes) - median(found["pass-through"])
        table.add_row(
            name, f"{median(sizes):.0f}", f"{over:+.0f}", verdict(over, BUDGET_BYTES) if "guard" in name else ""
        )
    Console().print(table)


if __name__ == "__main__":
    main()
