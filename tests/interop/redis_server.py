"""
A real Redis server on a free loopback port, with its data in a temporary folder: to start, kill, start again and empty.

It keeps nothing on disk, so that one that was killed comes back empty, unless it is asked to keep what it confirmed.
The client is a socket and the protocol RESP.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .programs import find_program
from .servers import HOST, free_port

INSTALL = "apt-get install redis-server"
START_TIMEOUT_S = 20.0


class RedisServer:
    """
    A Redis that is running, or was.

    Args:
        folder: Existing folder for its log.
        keeps: Whether what it has confirmed survives `kill`.
    """

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        self._keeps = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ("--appendonly", "no")
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, for clients."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        log_path = self._folder / "redis.log"
        command = [
            find_program("redis-server", INSTALL),
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--save",
            "",
            *self._keeps,
        ]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis does not answer:\n{log_path.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut does: SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it, and start one on the same port."""
        self.kill()
        self.start()

    def flush(self) -> None:
        """Forget all keys."""
        assert self.ask("FLUSHALL") == "+OK"

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, *words: str) -> str:
        """
        Send one command.

        Args:
            words: The command and its arguments.

        Returns:
            The answer as RESP writes it, without the last line end: ``+OK``, ``:3``.
        """
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            return connection.recv(65_536).decode().removesuffix("\r\n")


@contextlib.contextmanager
def running_redis(folder: Path, *, keeps: bool = False) -> Iterator[RedisServer]:
    """
    Run a Redis.

    Args:
        folder: Existing folder for its log.
        keeps: As for `RedisServer`.
    """
    server = RedisServer(folder, keeps=keeps)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run one Redis for a module of tests."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server
