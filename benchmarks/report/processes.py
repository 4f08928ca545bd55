"""The processes of a run: those that measure and answer, and the servers; each ends with its ``with`` block."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

SERVERS = {
    "uvicorn": ("-m", "uvicorn", "{app}", "--port", "{port}", "--log-level", "error"),
    "hypercorn": ("-m", "hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "--log-level", "error"),
    "granian": (
        *("-m", "granian", "{app}", "--interface", "asgi", "--ws", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", "{port}", "--log-level", "error", "--backlog", "2048"),
    ),
}
"""dict: server -> arguments. One process, everything else as the server has it by default."""
_ROOT = Path(__file__).resolve().parents[2]
_STARTS_WITHIN_S = 30.0


class Asked:
    """
    A process that answers.

    Args:
        arguments: Those of the interpreter.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, measure: str, **options: Any) -> Any:
        """
        Ask for one measurement, and wait for it.

        Raises:
            RuntimeError: The process is gone.
        """
        reader, writer = self._process.stdout, self._process.stdin
        if reader is None or writer is None:
            raise RuntimeError("the process has no pipes")
        with contextlib.suppress(BrokenPipeError):
            writer.write(json.dumps({"measure": measure, **options}) + "\n")
            writer.flush()
        line = reader.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended at {measure} {options}")
        return json.loads(line)

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Server:
    """
    A real server with the echo behind one subject.

    Args:
        server: One of `SERVERS`.
        subject: One of `subjects.SUBJECTS`.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, server: str, subject: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        target = {"app": "benchmarks.report.site:app", "port": self.port}
        self._process = subprocess.Popen(
            [sys.executable, *(one.format(**target) for one in SERVERS[server])],
            cwd=_ROOT,
            env={**os.environ, "BENCH_SUBJECT": subject, "PYTHONPATH": str(_ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """
        Wait until it listens.

        Raises:
            RuntimeError: It does not.
        """
        ends_s = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < ends_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self._process.args!r} does not answer")

    def resident_bytes(self) -> int:
        """Give the resident memory of the server and of its workers (Linux)."""
        return sum(_resident_bytes(pid) for pid in _family(self._process.pid))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us; give the number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
