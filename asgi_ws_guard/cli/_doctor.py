"""
`asgi-ws-guard doctor`: static advice about an application, the servers that can run it, and this machine.

It imports the application and sends nothing to anybody. Imported by `_app.py`, and for `import_application` by
`_verify_servers.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping

from .._environment import guard
from .._exceptions import ConfigurationError
from .._target import TargetError, load_application
from ._doctor_application import advise_application
from ._doctor_servers import advise_servers
from ._findings import Finding, Level

SPARE_FILES = 64  # what a server, its log files, its libraries and a database pool have open besides connections


class DoctorError(Exception):
    """The application cannot be imported; the text says why."""


def examine(target: str, connections: int | None) -> list[Finding]:
    """
    Import an application and look at it, at the servers and at this machine.

    Args:
        target: The application, ``package.module:app``.
        connections: How many connections one process shall hold; None: unknown.

    Returns:
        The findings.

    Raises:
        DoctorError: There is no such application, or its module does not let itself be imported.
    """
    app = import_application(target)
    return [
        *_variables(app, os.environ),
        *advise_servers(),
        *advise_application(app),
        *_open_files(connections),
    ]


def import_application(target: str) -> Callable[..., object]:
    """
    Import an application as a server would, from the current folder too.

    Raises:
        DoctorError: There is none of that name, or its module does not let itself be imported.
    """
    sys.path.insert(0, os.getcwd())  # as the servers do
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the application prints is no finding
            return load_application(target)
    except TargetError as error:
        raise DoctorError(f"{target!r} is wrong: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}"
        raise DoctorError(f"{target!r} cannot be imported: {type(error).__name__} at {where}: {error}") from None


def _variables(app: Callable[..., object], environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        guard(app, environment)
    except ConfigurationError as error:
        yield Finding(
            Level.CRITICAL,
            error.option,
            str(error),
            "`asgi_ws_guard.wrap` ends the server at its start.",
            f"unset {error.option}, or correct it",
        )


def _open_files(connections: int | None) -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    what = f"this process may open {soft} files (ulimit -n; at most {hard})"
    needed = None if connections is None else connections + SPARE_FILES
    if needed is not None and needed > soft:
        yield Finding(
            Level.CRITICAL,
            "open files",
            what,
            f"{connections} connections need about {needed}: the server will refuse those above.",
            f"ulimit -n {needed} before the server starts, or LimitNOFILE= in its systemd unit",
        )
    else:
        yield Finding(Level.NOTE, "open files", what, "Every connection takes one.")
