"""The demo's servers: started on a free port, ended by their process id, with a clear word when they do not start."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_ws_guard.cli._demo import read_stats
from asgi_ws_guard.cli._pages import refresh_pages
from asgi_ws_guard.cli._server import HOST, ServerError, running_server

TARGET = "asgi_ws_guard.cli._demo_server:bare"


def test_it_listens_inside_the_block_and_is_gone_after(tmp_path: Path) -> None:
    """The port answers while the block runs, and the process has ended when it is left."""
    with running_server(TARGET, log=tmp_path / "log", arguments=["--factory"]) as server:
        socket.create_connection((HOST, server.port), timeout=5).close()
        assert server.process.poll() is None
    assert server.process.returncode is not None


def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    """Each server has a port of its own."""
    with (
        running_server(TARGET, log=tmp_path / "one", arguments=["--factory"]) as one,
        running_server(TARGET, log=tmp_path / "two", arguments=["--factory"]) as two,
    ):
        assert one.port != two.port


def test_it_is_ended_when_the_block_raises(tmp_path: Path) -> None:
    """An exception inside leaves no process behind."""
    with (
        pytest.raises(ZeroDivisionError),
        running_server(TARGET, log=tmp_path / "log", arguments=["--factory"]) as server,
    ):
        raise ZeroDivisionError
    assert server.process.returncode is not None


def test_a_target_that_does_not_exist_is_reported_with_the_log(tmp_path: Path) -> None:
    """The error says what uvicorn said."""
    with (
        pytest.raises(ServerError, match=re.escape('Could not import module "no_such_module"')),
        running_server("no_such_module:app", log=tmp_path / "log"),
    ):
        pass


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Give a port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield taken.getsockname()[1]


def test_clients_that_nobody_serves_give_up_with_one_error(dead_port: int) -> None:
    """A server that has died in the middle of the demo is reported, and no client is left."""
    with pytest.raises(ServerError, match="gave up with 4 refreshes to go"):
        asyncio.run(refresh_pages(dead_port, refreshes=8, seed=1, advance=lambda: None))


def test_stats_that_nobody_gives_are_one_error(dead_port: int) -> None:
    """The same for the question after the refreshes."""
    with pytest.raises(ServerError, match="does not tell how it is"):
        read_stats(dead_port)
