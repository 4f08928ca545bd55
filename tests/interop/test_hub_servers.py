"""
The hub on real servers: a storm of refreshes, resets and a peer that reads nothing, while a room is sent to.

Seen with uvicorn 0.54.0 (three implementations), hypercorn 0.18.0, granian 2.8.7 and daphne 4.2.3.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .clients import RawPeer, library_client
from .servers import GRANIAN, HYPERCORN, SERVERS, UVICORN_SANSIO, Running, Server, start
from .sites import IMPORT_ROOT, PACKAGE

MESSAGES, SIZE = 200, 48 * 1024
TIMEOUT_S = 30.0
STORMY = (UVICORN_SANSIO, HYPERCORN, GRANIAN)
"""Three ways of `send`: it waits for its transport, for a task of the connection, for another thread. uvicorn's other
two wait as the first does, and daphne never waits: that it takes a message without a task is all there is to see."""


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve the hub on each server in turn."""
    server: Server = request.param
    with start(server, f"{PACKAGE}.hub_app:app", tmp_path_factory.mktemp("hub"), python_path=[IMPORT_ROOT]) as serving:
        yield serving


def state_when(running: Running, **expected: object) -> Any:
    """Wait until the hub is as expected, and give its state; give the last one when the time is over."""
    deadline = time.monotonic() + TIMEOUT_S
    state = running.ask("/state")
    while any(state[name] != value for name, value in expected.items()) and time.monotonic() < deadline:
        time.sleep(0.05)
        state = running.ask("/state")
    return state


def read_all(running: Running, ready: threading.Barrier) -> list[int]:
    """Be a good member, and give the numbers that came."""
    with library_client(running.port, "/red") as client:
        ready.wait(TIMEOUT_S)
        return [int(str(client.recv(timeout=TIMEOUT_S)).partition(":")[0]) for _ in range(MESSAGES)]


def refresh(running: Running, seed: int, over: threading.Event) -> int:
    """Come, read a little, and go in one of the ways in which pages go, again and again; give how often."""
    choose, visits = random.Random(seed), 0
    while not over.is_set():
        with RawPeer(running.port, "/red") as page:
            page.accepted()
            visits += 1
            if choose.random() < 0.7:
                page.read(choose.random() * 0.02)
            getattr(page, choose.choice(["reset", "leave"]))()
    return visits


@pytest.mark.parametrize("running", STORMY, ids=lambda server: server.name, indirect=True)
def test_a_storm_harms_nobody_else(running: Running) -> None:
    """Who stays gets every message once and in order; nobody dead is left, no task, no line of an error in the log."""
    ready, over = threading.Barrier(3), threading.Event()
    with ThreadPoolExecutor(8) as threads, RawPeer(running.port, "/red", receive_buffer_bytes=4096) as stalled:
        stalled.accepted()
        readers = [threads.submit(read_all, running, ready) for _ in range(2)]
        ready.wait(TIMEOUT_S)
        state_when(running, connections=3)
        storm = [threads.submit(refresh, running, seed, over) for seed in range(2)]
        try:
            sums = running.ask(f"/send/red/{MESSAGES}/{SIZE}")
        finally:
            over.set()
        assert [reader.result() for reader in readers] == [list(range(MESSAGES))] * 2
        visits = sum(page.result() for page in storm)
        assert state_when(running, connections=0)["timed_out"] >= 1
    assert visits > 5
    assert sums["sent"] + sums["queued"] >= 2 * MESSAGES
    state = state_when(running, connections=0, work=0)
    assert (state["connections"], state["rooms"], state["work"], state["waiting"]) == (0, [], 0, 0)
    assert state["left"] == visits + 3  # once each
    assert "Traceback" not in running.log
    assert "a send of a hub failed" not in running.log


@pytest.mark.parametrize("running", SERVERS, ids=lambda server: server.name, indirect=True)
def test_a_message_is_taken_without_a_task(running: Running) -> None:
    """By every server but granian, which makes each sender wait for another thread; it arrives all the same."""
    before = state_when(running, connections=0)
    with library_client(running.port, "/blue") as client:
        state_when(running, connections=1)
        queued = 5 if running.server.name == "granian" else 0
        assert running.ask("/send/blue/5/10") == {"sent": 5 - queued, "queued": queued, "dropped": 0}
        assert [str(client.recv(timeout=TIMEOUT_S))[0] for _ in range(5)] == list("01234")
    after = state_when(running, connections=0)
    assert (after["queued"] - before["queued"], after["sent"] - before["sent"]) == (queued, 5)
