"""
Start an application on any of the servers that `run` knows, on a free port of the loopback interface, and end it again.

The server's own options are the least that it takes; what is wrong with a name is said by `_run.py`. Imported by
`_verify_servers.py` only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._environment import variable_of
from ._run import Command, command
from ._server import HOST, START_TIMEOUT_S, STOP_TIMEOUT_S, ServerError

HEALTH_PATH = "/ws-health"
PORT_ATTEMPTS = 3  # another process can take the port between our look and the server's bind
POLL_S = 0.02
BARE = "bare"

_OPTIONS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": lambda port: ["--host", HOST, "--port", str(port), "--no-use-colors"],
    "hypercorn": lambda port: ["--bind", f"{HOST}:{port}", "--graceful-timeout", "0"],
    "daphne": lambda port: ["--bind", HOST, "--port", str(port), "--verbosity", "1"],
    "granian": lambda port: ["--host", HOST, "--port", str(port), "--workers", "1"],
}


@contextlib.contextmanager
def serving(target: str, server: str, form: str, log: Path) -> Iterator[int]:
    """
    Run an application on a server for the length of a `with` block.

    Args:
        target: The application.
        server: One of NAMES.
        form: BARE, or anything else for the guard.
        log: File for what the process writes.

    Returns:
        A context manager that gives the port.

    Raises:
        ServerError: It did not start.
    """
    environment = {name: text for name, text in os.environ.items() if name != "FORCE_COLOR"}
    environment |= {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", variable_of("health_path"): HEALTH_PATH}
    for attempt in range(1, PORT_ATTEMPTS + 1):
        port = _free_port()
        process = command(target, server, _OPTIONS[server](port), environment)
        with _process(_in_form(process, form), log) as started:
            if _answers(started, port):
                yield port
                return
        if attempt == PORT_ATTEMPTS or "in use" not in read_log(log).lower():
            break
    tail = read_log(log).strip().splitlines() or ["it wrote nothing"]
    raise ServerError(f"did not start: {tail[-1]}")


def _in_form(process: Command, form: str) -> Command:
    """Let the server import the bare application instead of the guarded one."""
    if form != BARE:
        return process
    arguments = [
        "asgi_ws_guard.cli._verify_bare:app" if one == "asgi_ws_guard.wrap:app" else one for one in process.arguments
    ]
    return Command(arguments, process.environment)


@contextlib.contextmanager
def _process(process: Command, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, the leader of a group of its own, to which its workers belong; end the group by its id."""
    own_group: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    with log.open("wb") as output:
        started = subprocess.Popen(
            process.arguments,
            env=process.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **own_group,
        )
    try:
        yield started
    finally:
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(STOP_TIMEOUT_S)
        if own_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(started.pid, signal.SIGKILL)
        started.kill()
        started.wait()


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the process listens; False when it ends, or does not in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return process.poll() is None
        time.sleep(POLL_S)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def read_log(log: Path) -> str:
    """Return what a server has written so far."""
    return log.read_text("utf-8", "replace") if log.exists() else ""
