"""Limits on real servers: what clients see of a drop, a delay, a close and a denial."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from .clients import library_client, watch
from .probe_limits import BURST, DELAYED_PER_S
from .servers import GRANIAN, HYPERCORN, UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE


@pytest.fixture(scope="module", params=[UVICORN_SANSIO, HYPERCORN, GRANIAN], ids=lambda server: server.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give the probe on each server in turn."""
    folder = tmp_path_factory.mktemp("limits")
    with start(request.param, f"{PACKAGE}.probe_limits:app", folder, python_path=[IMPORT_ROOT]) as running:
        yield running


def denial(server: Running, path: str, **headers: str) -> tuple[int, str | None, object]:
    """Connect, expect a denial, and give status, Retry-After and the document."""
    with pytest.raises(InvalidStatus) as raised, library_client(server.port, path, headers=headers):
        pass
    response = raised.value.response
    return response.status_code, response.headers.get("retry-after"), json.loads(response.body or b"")


def test_drop_then_close(server: Running) -> None:
    """The burst comes back, three more are lost, and the fourth closes."""
    with library_client(server.port, "/drop") as client:
        for number in range(BURST + 4):
            client.send(str(number))
        seen = watch(client)
    assert (seen.code, seen.reason) == (1008, "too_many_messages")
    assert seen.messages == tuple(map(str, range(BURST)))


def test_delay(server: Running) -> None:
    """All messages come back, in order, no faster than the rate."""
    with library_client(server.port, "/delay") as client:
        started_s = time.monotonic()
        for number in range(7):
            client.send(str(number))
        assert [client.recv(5) for _ in range(7)] == list(map(str, range(7)))
        assert time.monotonic() - started_s >= 6 / DELAYED_PER_S - 0.002


def test_close(server: Running) -> None:
    """Bytes over the rate close with the code that was chosen."""
    with library_client(server.port, "/close") as client:
        client.send("x" * 10)
        client.send("y")
        seen = watch(client)
    assert (seen.code, seen.reason, seen.messages) == (1013, "too_many_bytes", ("x" * 10,))


def test_size(server: Running) -> None:
    """A message that is too large closes with 1009; what counts are bytes of UTF-8."""
    with library_client(server.port, "/size") as client:
        client.send("ääääß")
        client.send("ääääßx")
        seen = watch(client)
    assert (seen.code, seen.reason, seen.messages) == (1009, "message_too_big", ("ääääß",))


def test_one_address(server: Running) -> None:
    """The second connection of an address is denied until the first has left, wherever the proxy's word is read."""
    with library_client(server.port, "/address", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.1"}):
        answer = denial(server, "/address", **{"X-Forwarded-For": "7.7.7.7, 192.0.2.1"})
        assert answer == (429, "5", {"error": "connections_per_address", "status": 429})
        with library_client(server.port, "/address", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.2"}) as other:
            other.send("hello")
            assert other.recv(5) == "hello"
    deadline = time.monotonic() + 10
    while True:  # the server hears of the close a moment after the client
        try:
            with library_client(server.port, "/address", headers={"X-Forwarded-For": "192.0.2.1"}):
                break
        except InvalidStatus:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_total(server: Running) -> None:
    """One too many for the process is 503, with the Retry-After that was chosen."""
    with library_client(server.port, "/total"):
        assert denial(server, "/total") == (503, "7", {"error": "connections", "status": 503})


def test_attempts(server: Running) -> None:
    """Attempts beyond the burst are 429, with the time until the next."""
    for _ in range(2):
        with library_client(server.port, "/attempts"):
            pass
    status, retry_after, document = denial(server, "/attempts")
    assert (status, document) == (429, {"error": "attempts_per_address", "status": 429})
    assert 500 < int(retry_after or 0) <= 600
