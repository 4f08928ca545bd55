"""
A real SIGTERM on real servers with 200 live connections: who sees what, what is left, and when the process is gone.

Everything of one server happens in one process and one drain, which the tests look at from several sides.
Measured with uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.7 and daphne 4.2.3.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .clients import Answer, RawPeer
from .probe_drain import DRAIN
from .servers import DAPHNE, GRANIAN, HOST, HYPERCORN, UVICORN_SANSIO, Running, Server, http_status, start
from .sites import IMPORT_ROOT, PACKAGE

ECHOES, SILENT, PUSHED = 190, 5, 1
LIVE = ECHOES + SILENT + PUSHED + 4  # with two that end by themselves, one that is parked, and one that is stubborn
EXIT_S = 8.0  # far more than the drain takes, far less than for ever
PATIENCE = ("--timeout-graceful-shutdown", "1")  # uvicorn waits for ever for a client that does not read
# hypercorn 0.18 waits for every transport before its --graceful-timeout begins, and from 3.12 on that is for ever.
WAITS_FOR_READERS = sys.version_info >= (3, 12)
KILLED = "Killed 1 pending application instances"

_HYPERCORN = replace(
    HYPERCORN,
    command=("-m", "hypercorn", "--bind", HOST + ":{port}", "--graceful-timeout", "1", "{app}"),
)
SITES: dict[str, tuple[Server, tuple[str, ...]]] = {
    "uvicorn": (UVICORN_SANSIO, PATIENCE),
    "uvicorn-workers": (UVICORN_SANSIO, (*PATIENCE, "--workers", "2")),
    "hypercorn": (_HYPERCORN, ()),
    "granian": (GRANIAN, ()),
    "daphne": (DAPHNE, ()),
}


@dataclass
class Drained:
    """
    What came of one SIGTERM.

    Args:
        name: Of the site.
        seen: Code and reason, without the number of seconds, that clients saw by path. Dict: path -> Counter.
        waits_s: The seconds that the close reasons asked for.
        stranger: The answer to a handshake in the drain.
        http: The status of an HTTP request in the drain.
        exit_status: Of the process, negative for a signal; None when it had to be killed.
        took_s: Seconds from the signal to the end of the process.
        log: What it printed.
    """

    name: str
    seen: dict[str, Counter[tuple[int | None, str | None]]]
    waits_s: list[int]
    stranger: Answer
    http: int | None
    exit_status: int | None
    took_s: float
    log: str

    @property
    def sends_any_code(self) -> bool:
        """Tell whether the server can send registered codes, close reasons and denials; daphne cannot."""
        return self.name != "daphne"

    @property
    def ends(self) -> Counter[tuple[str, str]]:
        """Count the handlers by path and end."""
        lines = [line[line.index('{"probe"') :] for line in self.log.splitlines() if '{"probe"' in line]
        records = [json.loads(line)["probe"] for line in lines]
        return Counter((record["path"], record["end"]) for record in records)

    @property
    def report(self) -> Counter[str]:
        """Sum up the reports of all processes."""
        found: Counter[str] = Counter()
        for text in re.findall(r"DrainReport\(([^)]*)\)", self.log):
            for name, value in re.findall(r"(\w+)=(\d+)[,)]", text + ")"):
                found[name] += int(value)
        return found


async def _visit(port: int, path: str, opened: asyncio.Semaphore) -> tuple[str, int | None, str | None]:
    async with connect(
        f"ws://{HOST}:{port}{path}", proxy=None, ping_interval=None, compression=None, open_timeout=20, close_timeout=1
    ) as client:
        opened.release()
        try:
            while True:
                await client.recv()
        except ConnectionClosed:
            return path, client.close_code, client.close_reason


async def _drain(name: str, running: Running) -> Drained:
    """Connect everybody, send SIGTERM, and wait for the end of the process."""
    opened = asyncio.Semaphore(0)
    paths = ["/echo"] * ECHOES + ["/polite", "/polite", "/parked", "/stubborn"]
    visits = [asyncio.create_task(_visit(running.port, path, opened)) for path in paths]
    with ExitStack() as peers:
        raw = [(path, 4096 if path == "/push" else None) for path in ["/echo"] * SILENT + ["/push"] * PUSHED]
        for path, size in raw:  # the last one is the one that does not read
            peer = peers.enter_context(RawPeer(running.port, path, receive_buffer_bytes=size))
            await asyncio.to_thread(peer.accepted)
        for _ in visits:
            await asyncio.wait_for(opened.acquire(), 20)
        await asyncio.sleep(0.2)  # what is pushed fills the buffers
        since_s = time.monotonic()
        os.kill(running.process.pid, signal.SIGTERM)
        await asyncio.to_thread(_wait_for, "draining ", running, 2 if name == "uvicorn-workers" else 1)
        stranger = peers.enter_context(RawPeer(running.port, "/echo"))
        answer = await asyncio.to_thread(stranger.answer, whole=True)
        status = await asyncio.to_thread(http_status, running.port, "/", timeout_s=2.0)
        seen = await asyncio.gather(*visits)
        if name == "hypercorn" and WAITS_FOR_READERS:
            await asyncio.to_thread(_wait_for, "drained: ", running, 1)
            peer.leave()
        exit_status = await asyncio.to_thread(_exit_status, running)
        took_s = time.monotonic() - since_s
    waits = [int(reason.partition("=")[2]) for _, _, reason in seen if reason and reason.startswith("retry_after=")]
    by_path: dict[str, Counter[tuple[int | None, str | None]]] = {}
    for path, code, reason in seen:
        by_path.setdefault(path, Counter())[code, (reason or "").partition("=")[0]] += 1
    return Drained(name, by_path, waits, answer, status, exit_status, took_s, running.log)


def _wait_for(text: str, running: Running, number: int) -> None:
    deadline = time.monotonic() + EXIT_S
    while running.log.count(text) < number:
        assert time.monotonic() < deadline, running.log
        time.sleep(0.02)


def _exit_status(running: Running) -> int | None:
    deadline = time.monotonic() + EXIT_S
    while running.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return running.process.poll()


@pytest.fixture(scope="module", params=list(SITES))
def drained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drained:
    """Drain each server in turn."""
    server, arguments = SITES[request.param]
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    folder: Path = tmp_path_factory.mktemp("drain")
    app_path = f"{PACKAGE}.probe_drain:guarded"
    with start(server, app_path, folder, python_path=[IMPORT_ROOT], arguments=arguments) as running:
        return asyncio.run(_drain(request.param, running))


def test_each_client_sees_the_code(drained: Drained) -> None:
    """1012 with a hint when to come again, for each client another; daphne sends 4012, and no reason."""
    code, reason = (1012, "retry_after") if drained.sends_any_code else (4012, "")
    assert drained.seen["/echo"] == {(code, reason): ECHOES}
    assert drained.seen["/parked"] == drained.seen["/stubborn"] == {(code, reason): 1}
    if drained.sends_any_code:
        least_s, most_s = DRAIN.retry_after_s
        assert set(drained.waits_s) == set(range(least_s, most_s + 1))


def test_a_handler_that_is_told_ends_by_itself(drained: Drained) -> None:
    """With its own code."""
    assert drained.seen["/polite"] == {(4001, "mine" if drained.sends_any_code else ""): 2}


def test_a_stranger_is_denied_while_the_server_still_listens(drained: Drained) -> None:
    """503 with Retry-After, 403 on daphne; HTTP requests are answered as ever."""
    assert drained.http == 200
    if not drained.sends_any_code:
        assert drained.stranger.status == 403
        return
    assert drained.stranger.status == 503
    assert json.loads(drained.stranger.body) == {"error": "draining", "status": 503}
    least_s, most_s = DRAIN.retry_after_s
    assert least_s <= int(drained.stranger.headers["retry-after"]) <= most_s


def test_the_process_exits_in_time_and_no_handler_is_left(drained: Drained) -> None:
    """By what the server itself does with the signal, after the drain; its lifespan ends as ever."""
    assert drained.exit_status == (-signal.SIGTERM if drained.name == "uvicorn" else 0), drained.log
    assert drained.took_s >= DRAIN.deadline_s + DRAIN.stop_s
    ends = drained.ends
    assert sum(number for (path, _), number in ends.items() if path not in ("/stubborn", "lifespan")) == LIVE - 1
    # granian leaves it with its loop; so does daphne 4.2, whose `kill_all_applications` ends with a KeyError, when its
    # `application_checker` has looked since the end of a handler whose client is still there
    leaves_it = drained.name == "granian" or (drained.name == "daphne" and KILLED not in drained.log)
    assert ends["/stubborn", "cancelled"] == (0 if leaves_it else 1)
    assert ends["/echo", "returned"] == ECHOES + SILENT
    assert ends["/polite", "returned"] == 2
    assert ends["/parked", "cancelled"] == 1
    lifespans = {"daphne": 0, "uvicorn-workers": 2}
    assert ends["lifespan", "shutdown"] == lifespans.get(drained.name, 1)


def test_the_report_accounts_for_everybody(drained: Drained) -> None:
    """A client that does not answer the close holds nobody up; one that does not read, its own handler alone."""
    pushed = 0 if drained.sends_any_code else PUSHED  # daphne's sends do not wait for the peer
    expected: dict[str, Any] = {
        "closed": ECHOES + SILENT + pushed,
        "ended": 2,
        "cancelled": 1 + PUSHED - pushed,
        "running": 1,
        "denied": 1,
    }
    assert drained.report == expected
    assert "1 handlers swallowed their cancellation and still run: connections " in drained.log


@pytest.mark.parametrize("name", [name for name in SITES if name != "uvicorn-workers"])
def test_a_policy_that_never_answers_denies_at_the_deadline(name: str, tmp_path: Path) -> None:
    """503 with Retry-After, 403 on daphne; the server hears of no cancellation, and logs none."""
    server, arguments = SITES[name]
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    app_path = f"{PACKAGE}.probe_drain:asking"
    with start(server, app_path, tmp_path, python_path=[IMPORT_ROOT], arguments=arguments) as running:
        with RawPeer(running.port, "/echo") as stranger:
            _wait_for('"asked"', running, 1)
            os.kill(running.process.pid, signal.SIGTERM)
            answer = stranger.answer(whole=True)
        assert _exit_status(running) is not None
        assert answer.status == (403 if name == "daphne" else 503)
        assert ("retry-after" in answer.headers) == (name != "daphne")
        assert "in admit" not in running.log
