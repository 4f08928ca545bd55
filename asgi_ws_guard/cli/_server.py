"""
Start uvicorn in its own process on a free port of the loopback interface, and end it again.

It knows one server and nothing of what runs on it. Imported by the demo, and by the tests of the examples.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0  # a cold import of a framework on a busy machine
STOP_TIMEOUT_S = 5.0  # uvicorn waits for its connections; then it is killed
POLL_S = 0.02

# What holds the package, and in a checkout the examples: the parent of asgi_ws_guard/.
APP_DIR = Path(__file__).resolve().parents[2]

_LISTENING = re.compile(r"Uvicorn running on http://[^:]+:(\d+)")


class ServerError(RuntimeError):
    """The server did not start, or ended on its own; the text says what its log ends with."""


@dataclass(frozen=True)
class Server:
    """A running uvicorn."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running_server(
    target: str,
    *,
    log: Path,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """
    Run `uvicorn target` for the length of a `with` block.

    The server chooses its port itself and names it in its log: no port can be taken between choice and start.

    Args:
        target: What uvicorn shall import, `module:name`.
        log: File for everything that the process writes; created, or overwritten.
        arguments: More arguments for uvicorn.
        environment: Variables to set in addition to those of this process.

    Returns:
        A context manager that gives the running Server, and ends it by its process id.

    Raises:
        ServerError: The process ended, or did not listen within START_TIMEOUT_S.
    """
    command = [sys.executable, "-m", "uvicorn", target, "--app-dir", str(APP_DIR)]
    command += ["--host", HOST, "--port", "0", "--no-use-colors", *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    variables |= {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables)
    try:
        yield Server(_wait_for_port(process, log), log, process)
    finally:
        _stop(process)


def _wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port that the log names, or raise ServerError."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        text = log.read_text("utf-8", "replace")
        if found := _LISTENING.search(text):
            return int(found[1])
        if ended:
            tail = "\n".join(text.splitlines()[-5:])
            raise ServerError(f"uvicorn ended with status {process.returncode}:\n{tail}")
        time.sleep(POLL_S)
    raise ServerError(f"uvicorn did not listen within {START_TIMEOUT_S:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process: politely first."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
