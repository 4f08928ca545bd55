"""
The command `verify` and its options: an address, or an application on the installed servers.

It reads the command line, shows progress, prints, and turns what was found into an exit status. Imported by `_app.py`
only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ._address import VerifyError, find_address
from ._probes import PROBES
from ._run import NAMES
from ._service import Settings
from ._verify import begin_at, chosen, steps
from ._verify import verify as run_probes
from ._verify_report import as_comparison, as_comparison_dict, as_dict, as_table, in_words
from ._verify_servers import compare, make_plan

MOST_CONNECTIONS = 500  # one source address; a service must not take the check for an attack
MOST_SECONDS = 60.0
_ANY_WIDTH = 10_000
SPARE_FILES = 64  # what this process has open besides connections

_TARGET_HELP = "ws://host:port/path of a running service, or package.module:app"


def verify(
    target: Annotated[str, typer.Argument(metavar="TARGET", help=_TARGET_HELP)],
    path: Annotated[str | None, typer.Option(help="Of the websocket, for an application.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help=f"For an application: one of {', '.join(NAMES)}; may be repeated; without it all installed."),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(help="Address of the health, for a service; else /ws-health/health is tried on the same port."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.5, max=MOST_SECONDS, help="How long the service may take for any one thing.")
    ] = 5.0,
    connections: Annotated[
        int, typer.Option(min=1, max=MOST_CONNECTIONS, help="How many vanish at once; never are more open.")
    ] = 100,
    origin: Annotated[str | None, typer.Option(help="Header Origin of ordinary connections.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' of every opening handshake; may be repeated.")
    ] = None,
    message: Annotated[str, typer.Option(help="Text of the messages, which the application should understand.")] = "{}",
    strict_origin: Annotated[
        bool, typer.Option("--strict-origin", help="A foreign origin that is accepted is a failure.")
    ] = False,
    half_open_s: Annotated[
        float | None,
        typer.Option(min=0.5, max=MOST_SECONDS, help="It is a failure when a silent peer is kept for so long."),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this one of {', '.join(PROBES)}; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """
    Be a bad client, and say what holds.

    TARGET is a running service, or an application that is started here on each installed server, without and with the
    guard. Nothing but the address is spoken to: no redirect is followed and no proxy used. Each of nine probes is over
    after twelve times the timeout (and --half-open-s) at the latest, the whole run 25 seconds later. The exit status is
    1 when a probe failed (with the guard), 2 when there was nothing to probe.
    """
    settings = Settings(timeout_s, connections, strict_origin, half_open_s, message, tuple(probe or ()))
    try:
        chosen(settings.probes)
        _check_open_files(connections)
        if "://" in target:
            _refuse({"--path": path, "--server": server}, "an application")
            failed = _verify_address(target, settings, health, origin, header or [], as_json=as_json)
        else:
            _refuse({"--health": health}, "an address")
            failed = _verify_application(target, path, server or [], settings, origin, header or [], as_json=as_json)
    except VerifyError as error:
        typer.secho(f"asgi-ws-guard: {error}", err=True, fg="red")
        raise typer.Exit(2) from None
    if failed:
        raise typer.Exit(1)


def _verify_address(
    url: str, settings: Settings, health: str | None, origin: str | None, headers: Sequence[str], *, as_json: bool
) -> int:
    """Probe a running service and print; return how many probes failed."""
    address = find_address(url, timeout_s=settings.timeout_s, origin=origin, headers=headers)
    begin = begin_at(address, health, settings.timeout_s)
    with _progress(steps(settings)) as advance:
        run = asyncio.run(run_probes(begin, settings, advance))
    if as_json:
        typer.echo(json.dumps(as_dict(address.shown, run), indent=2))
    else:
        Console().print(as_table(address.shown, run))
    return run.failed


def _verify_application(
    target: str,
    path: str | None,
    servers: Sequence[str],
    settings: Settings,
    origin: str | None,
    headers: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Start an application, probe it and print; return how many columns failed that should not."""
    if path is None:
        raise VerifyError(f"{target}: --path is missing, the path of its websocket, such as --path /ws")
    plan = make_plan(target, path, servers, origin=origin, headers=headers)
    with _progress(plan.runs * steps(settings)) as advance:
        columns = compare(plan, settings, advance)
    if as_json:
        typer.echo(json.dumps(as_comparison_dict(target, path, columns), indent=2))
    else:
        console = Console()
        together = as_comparison(target, path, columns)
        if Console(width=_ANY_WIDTH).measure(together).maximum <= console.width:
            console.print(together)
        else:
            for name in plan.servers:
                console.print(as_comparison(target, path, [one for one in columns if one.server == name]))
        for line in in_words(columns):
            console.print(line, highlight=False)
    return sum(column.has_failed for column in columns)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on stderr, where that is a terminal; give what advances it."""
    console = Console(stderr=True)
    bars = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*bars, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("starting", total=steps)
        yield lambda what: progress.update(bar, advance=1, description=f"{what}: done")


def _refuse(options: dict[str, object], what: str) -> None:
    for name, value in options.items():
        if value:
            raise VerifyError(f"{name} is for {what}")


def _check_open_files(connections: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and connections + SPARE_FILES > limit:
        raise VerifyError(
            f"{connections} connections need {connections + SPARE_FILES} open files: ulimit -n is {limit}"
        )
