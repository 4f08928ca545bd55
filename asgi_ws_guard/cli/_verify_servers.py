"""
`asgi-ws-guard verify package.module:app`: the application on each server, without and with the guard.

It starts each server on a free port of the loopback interface, runs the probes against it, counts in its log, and ends
it by its process id. Imported by `_verify_command.py` and `_verify_report.py`.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._layers import is_guarded
from ._address import VerifyError, find_address
from ._checks import Run
from ._doctor import DoctorError, import_application
from ._health_reader import HealthReader
from ._report import LogCounts
from ._run import SERVERS, RunError, command
from ._server import HOST, START_TIMEOUT_S, ServerError
from ._service import Settings
from ._serving import BARE, HEALTH_PATH, read_log, serving
from ._verify import Begin, verify

GUARDED, OWN = "guarded", "own guard"


@dataclass(frozen=True)
class Column:
    """
    One server with one form of the application.

    Attributes:
        server: Its name.
        version: Its version.
        form: BARE, GUARDED, or OWN for an application that brings its guard.
        run: What the probes found; None when there was nothing to probe.
        error: Why not.
        log: What the server's log holds of the time of the probes.
    """

    server: str
    version: str
    form: str
    run: Run | None
    error: str
    log: LogCounts

    @property
    def has_failed(self) -> bool:
        """Tell whether something failed that should not."""
        return self.form != BARE and (self.run is None or self.run.failed > 0)


@dataclass(frozen=True)
class Plan:
    """
    What to start.

    Attributes:
        target: The application, ``package.module:app``.
        path: Of its websocket, with the query.
        servers: Names of the servers.
        forms: Of the application, one column of each per server.
        origin: Header ``Origin`` of ordinary connections.
        headers: Of the opening handshake, each ``Name: value``.
    """

    target: str
    path: str
    servers: tuple[str, ...]
    forms: tuple[str, ...]
    origin: str | None = None
    headers: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """How many columns there will be."""
        return len(self.servers) * len(self.forms)


def make_plan(
    target: str, path: str, servers: Sequence[str], *, origin: str | None = None, headers: Sequence[str] = ()
) -> Plan:
    """
    See that there is such an application and that the servers are installed.

    Args:
        target: The application.
        path: Of its websocket; begins with a slash.
        servers: Names; empty: all that are installed.
        origin: As in `Plan`.
        headers: As in `Plan`.

    Raises:
        VerifyError: Something of it is wrong.
    """
    if not path.startswith("/") or path.startswith("//"):
        raise VerifyError(f"--path {path!r}: expected a path that begins with /, such as /ws")
    names = tuple(dict.fromkeys(servers)) or tuple(server.name for server in SERVERS if server.is_installed)
    try:
        for name in names or (None,):
            command(target, name, [])
        application = import_application(target)
    except (RunError, DoctorError) as error:
        raise VerifyError(str(error)) from None
    forms = (OWN,) if is_guarded(application) else (BARE, GUARDED)
    return Plan(target, path, names, forms, origin, tuple(headers))


def compare(plan: Plan, settings: Settings, advance: Callable[[str], None] = lambda what: None) -> list[Column]:
    """
    Run the probes against each server and form.

    Args:
        plan: What to start.
        settings: How hard to try.
        advance: Called after each step with what was done.

    Raises:
        VerifyError: Nowhere was there anything to probe.
    """
    columns = []
    with tempfile.TemporaryDirectory(prefix="asgi-ws-guard-") as folder:
        for server in plan.servers:
            for form in plan.forms:
                log = Path(folder, f"{server}-{form.replace(' ', '-')}.log")
                columns.append(_run_column(plan, server, form, log, settings, advance))
    if all(column.run is None for column in columns):
        raise VerifyError(columns[0].error)
    return columns


def _run_column(
    plan: Plan, server: str, form: str, log: Path, settings: Settings, advance: Callable[[str], None]
) -> Column:
    run, error, skipped = None, "", 0

    def started() -> None:
        nonlocal skipped
        skipped = len(read_log(log))  # what a server says while it starts is not the probes' doing

    try:
        with serving(plan.target, server, form, log) as port:
            url = f"ws://{HOST}:{port}{plan.path}"
            address = find_address(url, timeout_s=settings.timeout_s, origin=plan.origin, headers=plan.headers)
            health = None
            if form == GUARDED:
                health = HealthReader(f"http://{HOST}:{port}{HEALTH_PATH}/health", settings.timeout_s)
            begin = Begin(address, health, health is not None, START_TIMEOUT_S, started)
            run = asyncio.run(verify(begin, settings, lambda probe: advance(f"{server} {form}: {probe}")))
            text = read_log(log)
    except (ServerError, VerifyError) as problem:
        text = read_log(log)
        error = f"{server}, {form}: {problem}"
    version = importlib.metadata.version(server)
    return Column(server, version, form, run, error, LogCounts.of(text[skipped:]))
