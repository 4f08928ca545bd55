"""Two and three real processes whose hubs share a real Redis; one of them dies in the middle of a broadcast."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from asgi_ws_guard.hub.client import HubClient, Received

from .clients import library_client
from .redis_server import RedisServer, redis_server  # noqa: F401 - a fixture
from .servers import UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

TIMEOUT_S = 30.0
MESSAGES = 300


@pytest.fixture
def processes(redis_server: RedisServer, tmp_path: Path) -> Iterator[list[Running]]:  # noqa: F811
    """Run three."""
    redis_server.flush()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(process(redis_server, tmp_path)) for _ in range(3)]


def process(server: RedisServer, folder: Path) -> Running:
    """Start one."""
    env = {"HUB_REDIS": server.url}
    return start(UVICORN_SANSIO, f"{PACKAGE}.hub_cluster_app:app", folder, env=env, python_path=[IMPORT_ROOT])


def send(client: ClientConnection, to: str, data: object) -> str:
    """Send, and give what became of it at Redis."""
    client.send(json.dumps({"to": to, "data": data}))
    return str(json.loads(client.recv(timeout=TIMEOUT_S))["remote"])


@contextlib.contextmanager
def member(running: Running, room: str) -> Iterator[ClientConnection]:
    """Be in a room that has no stream, and be heard of at every node."""
    with library_client(running.port, f"/plain/{room}") as client:
        assert client.recv(timeout=TIMEOUT_S) == "ready"
        yield client


def receive(client: ClientConnection, state: HubClient) -> Received:
    """Wait for something new of a stream, and answer."""
    while True:
        found, answer, _ = state.receive(client.recv(timeout=TIMEOUT_S))
        if answer is not None:
            client.send(answer)
        if found is not None:
            return found


def open_streams(client: ClientConnection, state: HubClient) -> str:
    """Ask for a stream, and tell how it begins."""
    for text in state.opening():
        client.send(text)
    return receive(client, state).kind


def test_a_process_that_is_killed_in_a_broadcast_harms_no_other(processes: list[Running]) -> None:
    """Members elsewhere get all that the others send, once and in order; what was its own is a beginning of it."""
    first, second, third = processes
    with member(first, "red") as one, member(second, "red") as two, member(third, "red") as doomed:
        with library_client(first.port, "/") as sender, library_client(third.port, "/") as victim:
            for number in range(MESSAGES):
                victim.send(json.dumps({"to": "room:red", "data": f"victim {number}"}))
            for number in range(MESSAGES):
                assert send(sender, "room:red", number) == "published"
                if number == MESSAGES // 3:
                    third.process.kill()
        for client in (one, two):
            got = [str(client.recv(timeout=TIMEOUT_S)) for _ in range(MESSAGES)]
            with contextlib.suppress(TimeoutError):
                while True:
                    got.append(str(client.recv(timeout=0.3)))
            assert [text for text in got if "victim" not in text] == [str(number) for number in range(MESSAGES)]
            of_victim = [text for text in got if "victim" in text]
            assert of_victim == [f"victim {number}" for number in range(len(of_victim))]
        del doomed


def test_the_users_of_a_process_that_is_killed_are_gone(processes: list[Running]) -> None:
    """After their time, at all other nodes; until then they are there."""
    first, second, third = processes
    with contextlib.ExitStack() as stack:
        for running in (second, third):
            client = stack.enter_context(library_client(running.port, "/"))
            assert open_streams(client, HubClient(["user:ann"])) == "started"
        deadline = time.monotonic() + TIMEOUT_S
        while first.ask("/presence/ann") != {"online": True, "number": 2}:
            assert time.monotonic() < deadline
        third.process.kill()
        while first.ask("/presence/ann") != {"online": True, "number": 1}:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_client_of_a_process_that_is_killed_goes_on_at_another(processes: list[Running]) -> None:
    """It gets the rest of its streams there, once and in order; what it had not acknowledged it knows."""
    first, second, third = processes
    state, got = HubClient(["room:stream"]), []
    with library_client(first.port, "/") as sender:
        with library_client(third.port, "/") as client:
            assert open_streams(client, state) == "started"
            for number in range(30):
                assert send(sender, "room:stream", number) == "published"
            got += [receive(client, state).data for _ in range(10)]
            third.process.kill()
        for number in range(30, 60):
            assert send(sender, "room:stream", number) == "published"
        with library_client(second.port, "/") as client:
            assert open_streams(client, state) == "resumed"
            got += [receive(client, state).data for _ in range(50)]
    assert got == list(range(60))


def test_a_flush_is_told(processes: list[Running], redis_server: RedisServer) -> None:  # noqa: F811
    """A live client hears that the history is gone, and goes on; one that comes back with its position as well."""
    state, late = HubClient(["room:stream"]), HubClient(["room:stream"])
    with library_client(processes[0].port, "/") as sender, library_client(processes[1].port, "/") as client:
        with library_client(processes[2].port, "/") as other:
            assert open_streams(client, state) == open_streams(other, late) == "started"
        redis_server.flush()
        assert send(sender, "room:stream", "new") == "published"
        assert [receive(client, state).kind for _ in range(2)] == ["gone", "message"]
        with library_client(processes[2].port, "/") as other:
            assert open_streams(other, late) == "gone"
            assert send(sender, "room:stream", "next") == "published"
            assert receive(other, late).data == receive(client, state).data == "next"
