"""
The long run: ``make chaos``, or with options ``PYTHONPATH=tests python -m chaos --connections 20000 --seed 7``.

One server after the other, each with an equal share of the connections; the same seed makes the same plans. It writes
the faults and the plans of failing clients to a file, and exits with 1 when there are any.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from interop.servers import SERVERS, Server
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .plans import STYLES
from .runs import Result, Storm, run

CONNECTIONS = 100_000
ALL_SERVERS = ",".join(server.name for server in SERVERS)
SHOWN = 500
"""Characters of a fault on the screen; the file has all."""

console = Console(width=max(140, Console().width))


def main(
    connections: Annotated[int, typer.Option(min=1, help="How many, over all servers.")] = CONNECTIONS,
    seed: Annotated[int | None, typer.Option(help="Replays a run; without it one is drawn, and printed.")] = None,
    servers: Annotated[str, typer.Option(help="Names, separated by commas.")] = ALL_SERVERS,
    styles: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(STYLES),
    at_once: Annotated[int, typer.Option(min=1, help="Connections at any time.")] = 200,
    bare: Annotated[bool, typer.Option(help="Without the guard: what do the servers complain of?")] = False,
) -> None:
    """Storm the servers, and say what is left."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    chosen = _chosen(servers.split(","))
    wanted = _known_styles(styles.split(","))
    console.print(f"seed {seed}: {connections} connections over {', '.join(one.name for one in chosen)}")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    results = []
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=connections)
        for place, server in enumerate(chosen):
            first, last = (connections * at // len(chosen) for at in (place, place + 1))
            progress.update(bar, description=server.name)
            storm = Storm(seed, last - first, wanted, at_once, bare=bare)
            results.append(run(server, storm, folder, first, lambda: progress.advance(bar)))
    _report(results, seed, folder)
    sys.exit(not bare and any(result.faults for result in results))


def _chosen(names: list[str]) -> list[Server]:
    there = {server.name: server for server in SERVERS}
    for name in names:
        if name not in there:
            raise typer.BadParameter(f"{name} is none of {', '.join(there)}")
        if there[name].missing:
            raise typer.BadParameter(f"{name} needs {there[name].missing}, which is not installed")
    return [there[name] for name in names]


def _known_styles(names: list[str]) -> list[str]:
    for name in names:
        if name not in STYLES:
            raise typer.BadParameter(f"{name} is none of {', '.join(STYLES)}")
    return names


def _report(results: list[Result], seed: int, folder: Path) -> None:
    table = Table("server", "connections", "per s", "101", "denied", "left", "sends", "dropped", "own", "server's own")
    for column in ("memory MiB", "faults"):
        table.add_column(column)
    for result in results:
        count = sum(result.statuses.values())
        styles = [Counter(style) for style in result.after["styles"].values()]
        denied = count - result.statuses["101"] - result.statuses["None"]
        grown = (result.after["rss"] - result.before.get("rss", result.after["rss"])) / 1024**2
        numbers = (count, round(count / result.seconds), result.statuses["101"], denied, result.statuses["None"])
        sums = (sum(style[what] for style in styles) for what in ("attempted", "dropped"))
        rest = (result.own, sum(result.known.values()), f"{grown:+.1f}", len(result.faults))
        table.add_row(result.server, *(str(one) for one in (*numbers, *sums, *rest)))
    console.print(table)
    for result in results:
        for reason, number in result.known.items():
            console.print(f"{result.server}, {number} times: {reason}", soft_wrap=True)
        for fault in result.faults[:10]:
            console.print(f"[red]{result.server}[/]: ", end="")
            console.print(fault[-SHOWN:], markup=False, soft_wrap=True)
    report = folder / "faults.txt"
    report.write_text("\n\n".join(f"{result.server}: {fault}" for result in results for fault in result.faults))
    console.print(f"seed {seed}; logs and {report.name} are in {folder}")


if __name__ == "__main__":
    typer.run(main)
