"""
The demo: the incident application on a real uvicorn, once as it is and once behind the guard.

It starts, drives and measures; what the numbers mean is the business of `_report.py`. Imported by `_app.py` only.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ._demo_server import STATS_PATH
from ._pages import refresh_pages
from ._report import Column, LogCounts, Report
from ._server import HOST, Server, ServerError, running_server

SETTLE_TIMEOUT_S = 5.0  # how long handlers and tasks may take to end once all clients have left
POLL_S = 0.05

# A broadcast each 50 ms and a database call of 80 ms: one or two broadcasts meet each dead connection.
CHAT_ENVIRONMENT = {"CHAT_INTERVAL_S": "0.05", "CHAT_DATABASE_S": "0.08"}


def run_demo(*, refreshes: int, seed: int, console: Console) -> Report:
    """
    Run the incident application without and with the guard, and compare.

    Args:
        refreshes: How often the clients refresh the page in each run.
        seed: Seed for the order and the pace of the refreshes, the same in both runs.
        console: Where the progress bar goes.

    Returns:
        The report on both runs.

    Raises:
        ServerError: uvicorn did not start, or did not serve its clients.
    """
    bars = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*bars, TimeElapsedColumn(), console=console) as progress,
        tempfile.TemporaryDirectory(prefix="asgi-ws-guard-") as folder,
    ):

        def run(name: str, description: str) -> Column:
            bar = progress.add_task(description, total=refreshes)
            log = Path(folder, f"{name}.log")
            return _run_column(name, log, refreshes, seed, lambda: progress.advance(bar))

        bare = run("bare", "without the guard")
        guarded = run("guarded", "with the guard")
    return Report(refreshes, seed, bare, guarded)


def _run_column(name: str, log: Path, refreshes: int, seed: int, advance: Callable[[], None]) -> Column:
    """Run the factory *name* of the demo's server module, and measure."""
    target = f"asgi_ws_guard.cli._demo_server:{name}"
    with running_server(target, log=log, arguments=["--factory"], environment=CHAT_ENVIRONMENT) as server:
        idle_tasks = read_stats(server.port)["tasks"]
        viewers_cut = asyncio.run(refresh_pages(server.port, refreshes=refreshes, seed=seed, advance=advance))
        stats = _settle(server, idle_tasks)
    counts = LogCounts.of(log.read_text("utf-8", "replace"))
    # The sends that Starlette refuses itself reach the log, but no counter below it.
    raised = stats["raised"] + counts.send_after_close
    books = stats.get("books", {"forwarded": stats["returned"], "failed": raised, "refused": 0, "dropped": {}})
    return Column(
        log=counts,
        handlers_alive=stats["handlers"],
        tasks_alive=max(0, stats["tasks"] - idle_tasks),
        viewers_cut=viewers_cut,
        raised=raised,
        forwarded=books["forwarded"],
        failed=books["failed"] + books["refused"],
        dropped=books["dropped"],
    )


def _settle(server: Server, idle_tasks: int) -> dict[str, Any]:
    """Return the stats once nothing is left of the clients, or what is left at the deadline."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    stats = read_stats(server.port)
    while (stats["handlers"] or stats["tasks"] > idle_tasks) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        stats = read_stats(server.port)
    return stats


def read_stats(port: int) -> dict[str, Any]:
    """Ask the server process what is alive in it; ServerError when it does not answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=SETTLE_TIMEOUT_S)
    try:
        connection.request("GET", STATS_PATH, headers={"Connection": "close"})
        stats: dict[str, Any] = json.load(connection.getresponse())
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"The server does not tell how it is: {error!r}") from error
    finally:
        connection.close()
    return stats
