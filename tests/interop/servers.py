"""
Start the real ASGI servers as processes of their own, on a free loopback port.

Knows how each server is called and how it is ended; knows nothing of the applications and of what the tests expect.
Anything under tests, the examples' tests included, may import it.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from versions import at_least

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0  # granian and daphne need 1 to 2 s; a loaded machine far more
STOP_TIMEOUT_S = 3.0  # between SIGTERM and SIGKILL
PORT_ATTEMPTS = 3  # another process can take the port between our look and the server's bind


@dataclass(frozen=True)
class Server:
    """
    One way to serve an ASGI application.

    Args:
        name: The name in test ids and in the tables of expectations.
        distribution: The distribution on PyPI, for the version.
        command: Arguments after the interpreter; ``{port}`` and ``{app}`` are filled in.
        modules: Modules that must be importable, or the server is left out with a reason.
        since: The lowest version of it that is supported; tests with an older one are left out.
    """

    name: str
    distribution: str
    command: tuple[str, ...]
    modules: tuple[str, ...]
    since: tuple[int, ...] = (0,)

    @property
    def missing(self) -> str:
        """Name the first module that cannot be imported; empty when the server can run."""
        return next((module for module in self.modules if not _importable(module)), "")

    @property
    def version(self) -> str:
        """Return the installed version."""
        return importlib.metadata.version(self.distribution)

    @property
    def is_too_old(self) -> bool:
        """Tell whether the installed version is below the supported ones."""
        return not self.missing and not at_least(self.distribution, *self.since)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _uvicorn(name: str, ws: str, *modules: str, since: tuple[int, ...] = (0, 35)) -> Server:
    command = ("-m", "uvicorn", "{app}", "--host", HOST, "--port", "{port}", "--ws", ws)
    return Server(name, "uvicorn", command, ("uvicorn", *modules), since)


_HYPERCORN = ("-m", "hypercorn", "--bind", HOST + ":{port}", "--graceful-timeout", "0", "{app}")

UVICORN_SANSIO = _uvicorn(
    "uvicorn-sansio",
    "websockets-sansio",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "websockets.server",
    since=(0, 52, 1),  # before, it waits for no room in the buffers, and tells nobody of a reset
)
UVICORN_WSPROTO = _uvicorn("uvicorn-wsproto", "wsproto", "wsproto")
UVICORN_LEGACY = _uvicorn(
    "uvicorn-legacy",
    "websockets",
    "uvicorn.protocols.websockets.websockets_impl",
    "websockets.legacy",
)
HYPERCORN = Server("hypercorn", "hypercorn", _HYPERCORN, ("hypercorn",), (0, 17))
HYPERCORN_TRIO = Server("hypercorn-trio", "hypercorn", (*_HYPERCORN, "-k", "trio"), ("hypercorn", "trio"), (0, 17))
GRANIAN = Server(
    "granian",
    "granian",
    (
        *("-m", "granian", "--interface", "asgi", "--ws", "--workers", "1"),
        *("--host", HOST, "--port", "{port}", "{app}"),
    ),
    ("granian",),
    (2, 7, 3),
)
DAPHNE = Server(
    "daphne",
    "daphne",
    ("-m", "daphne", "--bind", HOST, "--port", "{port}", "--verbosity", "1", "{app}"),
    ("daphne",),
    (4, 1),
)

SERVERS = (UVICORN_SANSIO, UVICORN_WSPROTO, UVICORN_LEGACY, HYPERCORN, GRANIAN, DAPHNE)


@dataclass
class Running:
    """
    A server that answers; ends with the ``with`` block, or with `stop`.

    Args:
        server: What was started.
        port: Its port on 127.0.0.1.
        log_path: File that holds its stdout and stderr.
        process: The process; the leader of a session of its own, which its workers belong to.
    """

    server: Server
    port: int
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def ws_url(self) -> str:
        """Return the address without a path, for a websocket client."""
        return f"ws://{HOST}:{self.port}"

    @property
    def http_url(self) -> str:
        """Return the address without a path, for an HTTP client."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """Return what the server and the application have printed so far."""
        return self.log_path.read_text("utf-8", "replace")

    def ask(self, path: str, timeout_s: float = 30.0) -> Any:
        """Ask for a page, and read it as JSON."""
        with urllib.request.urlopen(f"{self.http_url}{path}", timeout=timeout_s) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """
        End the server and its workers: SIGTERM, then SIGKILL.

        Only the process group that `start` created is signalled, by its id.
        """
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start(
    server: Server,
    app_path: str,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    python_path: Sequence[Path] = (),
    arguments: Sequence[str] = (),
) -> Running:
    """
    Start *server* with the application and wait until it answers HTTP.

    Args:
        server: One of the table.
        app_path: ``module:attribute``.
        folder: Existing folder for the log file; also the working directory.
        env: Environment variables on top of the present ones.
        python_path: Folders to import the application from, before the repository itself.
        arguments: More command line options, put before the application.

    Returns:
        Running: to be stopped by the caller.

    Raises:
        RuntimeError: The server ended or did not answer in time; the text holds its log.
    """
    for attempt in range(1, PORT_ATTEMPTS + 1):
        running = _spawn(server, app_path, folder, env or {}, python_path, arguments)
        try:
            answers = _wait_until_answering(running)
        except BaseException:
            running.stop()
            raise
        if answers:
            return running
        running.stop()
        if attempt == PORT_ATTEMPTS or "in use" not in running.log.lower():
            break
    raise RuntimeError(f"{server.name} did not start:\n{running.log}")


def _spawn(
    server: Server,
    app_path: str,
    folder: Path,
    env: Mapping[str, str],
    python_path: Sequence[Path],
    arguments: Sequence[str],
) -> Running:
    port = free_port()
    words = [word.format(port=port, app=app_path) for word in server.command]
    at = words.index(app_path)
    command = [sys.executable, *words[:at], *arguments, *words[at:]]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (*python_path, REPOSITORY)),
        "PYTHONUNBUFFERED": "1",
        **env,
    }
    log_path = folder / f"{server.name}-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(server, port, log_path, process)


def free_port() -> int:
    """Return a port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_answering(running: Running) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            return False
        if http_status(running.port, "/", timeout_s=2.0) is not None:
            return running.process.poll() is None
        time.sleep(0.05)
    return False


def http_status(port: int, path: str, *, timeout_s: float) -> int | None:
    """
    Make one GET request.

    Args:
        port: Port on 127.0.0.1.
        path: Path with the query.
        timeout_s: Limit for connecting and for each read, in seconds.

    Returns:
        int: the status; None when there was no valid answer in time.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return response.status
    finally:
        connection.close()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
