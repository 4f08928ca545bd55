"""
The commands of `asgi-ws-guard` and their options.

It reads the command line, prints, and turns results into an exit status; the work is done by one module per command.
Imported by `asgi_ws_guard.__main__` only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from typing import Annotated

import typer
from rich.console import Console

from .._exceptions import ConfigurationError
from ._demo import run_demo
from ._doctor import DoctorError, examine
from ._findings import as_dict as findings_as_dict
from ._findings import as_table as findings_as_table
from ._findings import critical
from ._report import Report, as_table
from ._run import NAMES, RunError, become, command
from ._server import ServerError
from ._verify_command import verify

app = typer.Typer(
    help="One WebSocket contract on every ASGI server and in every framework.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(verify)

_TARGET_HELP = "package.module:app, or package.module:create()"


def _show_version(value: bool) -> None:
    """Print the version of the installed distribution and leave, when *value* says so."""
    if not value:
        return
    try:
        version = importlib.metadata.version("asgi-ws-guard")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    typer.echo(f"asgi-ws-guard {version}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """One WebSocket contract on every ASGI server and in every framework."""


@app.command()
def demo(
    refreshes: Annotated[
        int,
        typer.Option(min=4, max=500, help="How often the clients refresh the page in each run."),
    ] = 30,
    seed: Annotated[int, typer.Option(help="Seed for the order and the pace of the refreshes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run a faulty chat on uvicorn, without and with the guard, and compare."""
    if importlib.util.find_spec("fastapi") is None:
        typer.secho("The demo runs a FastAPI application: pip install fastapi", err=True, fg="red")
        raise typer.Exit(2)
    try:
        report = run_demo(refreshes=refreshes, seed=seed, console=Console(stderr=True))
    except ServerError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from None
    show(report, as_json=as_json)


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="APPLICATION", help=_TARGET_HELP)],
    server_options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTIONS", help="The server's own options, after --.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(NAMES)}; without it the first of these that is installed."),
    ] = None,
) -> None:
    """Start an application, behind the guard, with a server's own command line."""
    try:
        process = command(target, server, server_options or [])
    except (RunError, ConfigurationError) as error:
        typer.secho(f"asgi-ws-guard: {error}", err=True, fg="red")
        raise typer.Exit(2) from None
    raise typer.Exit(become(process))


@app.command()
def doctor(
    target: Annotated[str, typer.Argument(metavar="APPLICATION", help=_TARGET_HELP)],
    connections: Annotated[
        int | None, typer.Option(min=1, help="How many connections one server process shall hold.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Look at an application, the installed servers and this machine, and say what will go wrong."""
    try:
        findings = examine(target, connections)
    except DoctorError as error:
        typer.secho(f"asgi-ws-guard: {error}", err=True, fg="red")
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(findings_as_dict(target, findings), indent=2))
    else:
        Console().print(findings_as_table(target, findings))
    if critical(findings):
        raise typer.Exit(1)


def show(report: Report, *, as_json: bool) -> None:
    """
    Print the report, and the problems to stderr.

    Raises:
        typer.Exit: with status 1 when there is a problem.
    """
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        Console().print(as_table(report))
    problems = report.problems()
    for problem in problems:
        typer.secho(problem, err=True, fg="red")
    if problems:
        raise typer.Exit(1)
