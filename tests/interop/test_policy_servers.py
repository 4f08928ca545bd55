"""
Deadlines and gates on real servers: what the client is told, and when its handler has its disconnect.

All visits of one server are made at once, as each of them mostly waits.
Measured with uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.7 and daphne 4.2.3.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from .clients import RawPeer, Seen, library_client, watch
from .probe_policies import DEADLINE_S, DELAY_S, SEND_S
from .servers import DAPHNE, GRANIAN, HYPERCORN, UVICORN_SANSIO, Running, Server, start
from .sites import IMPORT_ROOT, PACKAGE

SLACK_S = 2.0  # for a busy machine, and the watch's tick
RECORD_S = 5.0  # a record is printed within this time


def _watched(path: str, *texts: str) -> Callable[[int], Seen]:
    def visit(port: int) -> Seen:
        with library_client(port, path) as client:
            for text in texts:
                client.send(text)
            return watch(client, timeout_s=DEADLINE_S + DELAY_S + SLACK_S)

    return visit


def _knock(port: int) -> tuple[int | None, bytes]:
    with RawPeer(port, "/handshake") as peer:
        answer = peer.answer(whole=True)
        return answer.status, answer.body


def _stall(port: int) -> None:
    with RawPeer(port, "/stalled", receive_buffer_bytes=4096) as peer:
        peer.accepted()
        time.sleep(DEADLINE_S + SEND_S + 0.7)


VISITS: dict[str, Callable[[int], Any]] = {
    "/handshake": _knock,
    "/idle": _watched("/idle"),
    "/parked": _watched("/parked"),
    "/age": _watched("/age"),
    "/expired": _watched("/expired"),
    "/stalled": _stall,
    "/gate": _watched("/gate", "a", "drop", "wait!", "b", "close!", "c"),
}


@dataclass
class Visited:
    """
    What came of the visits.

    Args:
        name: The server's name.
        seen: What each client saw. Dict: path -> whatever its visit returned.
        running: The process.
    """

    name: str
    seen: dict[str, Any]
    running: Running

    def record(self, path: str) -> dict[str, Any]:
        """Give what the handler of a path printed at its end."""
        deadline = time.monotonic() + RECORD_S
        while time.monotonic() < deadline:
            lines = [json.loads(line) for line in self.running.log.splitlines() if line.startswith('{"probe"')]
            for line in lines:
                if line["probe"]["path"] == path:
                    found: dict[str, Any] = line["probe"]
                    return found
            time.sleep(0.05)
        raise AssertionError(f"the handler of {path} goes on:\n{self.running.log}")


@pytest.fixture(
    scope="module", params=[UVICORN_SANSIO, HYPERCORN, GRANIAN, DAPHNE], ids=lambda server: str(server.name)
)
def visited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    """Make every visit on each server in turn."""
    server: Server = request.param
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    folder = tmp_path_factory.mktemp("policies")
    app_path = f"{PACKAGE}.probe_policies:guarded"
    with start(server, app_path, folder, python_path=[IMPORT_ROOT]) as running:
        with ThreadPoolExecutor(len(VISITS)) as pool:
            visits = {path: pool.submit(visit, running.port) for path, visit in VISITS.items()}
            seen = {path: visit.result() for path, visit in visits.items()}
        yield Visited(server.name, seen, running)


def _sent(name: str, code: int) -> int:
    """Give the code that a client gets: daphne sends no registered one but 1000."""
    return 3000 + code if name == "daphne" and 1000 < code < 3000 else code


def _told(name: str, reason: str) -> str:
    """Give the close reason that a client gets: daphne sends none."""
    return "" if name == "daphne" else reason


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("/idle", 4000, "idle"), ("/parked", 4000, "idle"), ("/age", 1012, "max_age"), ("/expired", 4401, "expired")],
)
def test_a_deadline_closes(visited: Visited, path: str, code: int, reason: str) -> None:
    """The client sees code and reason; the handler has its disconnect in time, whether it receives or not."""
    assert visited.seen[path] == Seen("close", _sent(visited.name, code), _told(visited.name, reason))
    record = visited.record(path)
    assert record["code"] == code
    assert DEADLINE_S - 0.1 <= record["took_s"] <= DEADLINE_S + SLACK_S


def test_a_handshake_that_takes_too_long_is_denied(visited: Visited) -> None:
    """With 503 where the server can answer, 403 on daphne; the handler has its disconnect."""
    status, body = visited.seen["/handshake"]
    assert status == (403 if visited.name == "daphne" else 503)
    if visited.name != "daphne":
        assert json.loads(body) == {"error": "handshake_timeout", "status": 503}
    record = visited.record("/handshake")
    assert record["code"] == 1006
    assert record["took_s"] <= DEADLINE_S + SLACK_S


def test_a_close_behind_a_peer_that_does_not_read_ends(visited: Visited) -> None:
    """The send deadline ends the send and the close that waits behind it; daphne's sends never wait."""
    record = visited.record("/stalled")
    assert DEADLINE_S - 0.1 <= record["took_s"] <= DEADLINE_S + SEND_S + SLACK_S


def test_a_gate_is_obeyed(visited: Visited) -> None:
    """What is dropped never arrives, what is delayed comes later, and the close ends all."""
    assert visited.seen["/gate"] == Seen(
        "close", 4009, _told(visited.name, "asked"), ("echo a", "echo wait!", "echo b")
    )
    record = visited.record("/gate")
    assert (record["got"], record["code"]) == (["a", "wait!", "b"], 4009)
    assert DELAY_S - 0.1 <= record["took_s"] <= DELAY_S + SLACK_S
