"""Health on real servers: the numbers are exactly what real clients did, mounted and at the guard's own path."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from versions import at_least

from .clients import RawPeer, library_client
from .probe_health import TOKEN
from .servers import DAPHNE, GRANIAN, HOST, HYPERCORN, UVICORN_SANSIO, Running, Server, start
from .sites import IMPORT_ROOT, PACKAGE

TEMPLATE = "/rooms/{room}" if at_least("starlette", 1, 7) else None  # older ones do not tell
SERVERS = (UVICORN_SANSIO, HYPERCORN, GRANIAN, DAPHNE)
AT = ("/ws-health", "/mounted")
BEARER = {"Authorization": f"Bearer {TOKEN}"}

# what the server says of a client that closes with 4321, and of a reset; the bare servers' tests have the same values
CLIENT_CLOSE = {"uvicorn-sansio": 4321, "hypercorn": 1006, "granian": 4321, "daphne": 4321}
RESET = {"uvicorn-sansio": 1005, "hypercorn": 1006, "granian": 1005, "daphne": 1006}


@dataclass
class Answer:
    """What came back to one request."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The document."""
        return json.loads(self.raw)


def ask(running: Running, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    """Make one request."""
    connection = http.client.HTTPConnection(HOST, running.port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def until(running: Running, is_so: Callable[[dict[str, int]], bool]) -> None:
    """Wait until the connections are as expected."""
    deadline = time.monotonic() + 10
    while not is_so(ask(running, "/ws-health").body["connections"]):
        assert time.monotonic() < deadline, ask(running, "/ws-health/stats").body
        time.sleep(0.05)


@contextlib.contextmanager
def serving(server: Server, name: str, folder: Any, arguments: tuple[str, ...] = ()) -> Iterator[Running]:
    """Run one of the applications."""
    if server.missing:
        pytest.skip(f"{server.name} needs {server.missing}, which is not installed")
    with start(
        server, f"{PACKAGE}.probe_health:{name}", folder, python_path=[IMPORT_ROOT], arguments=arguments
    ) as running:
        yield running


def counts(running: Running, at: str) -> dict[str, int]:
    """How many connections there are, without what only the time changes."""
    found: dict[str, int] = ask(running, f"{at}/").body["connections"]
    found.pop("oldest_s")
    return {name: number for name, number in found.items() if number}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_the_numbers_are_what_the_clients_did(server: Server, tmp_path: Any) -> None:
    """Clients come, echo and leave in every way; both places tell the same, to the last message."""
    with serving(server, "app", tmp_path) as running, contextlib.ExitStack() as stack:
        assert [counts(running, at) for at in AT] == [{}, {}]
        clients = [
            stack.enter_context(library_client(running.port, f"/rooms/{number}?token=s3cret-query"))
            for number in (1, 2, 3)
        ]
        peer = stack.enter_context(RawPeer(running.port, "/rooms/4?token=s3cret-query"))
        peer.accepted()
        for client in clients:
            for text in ("one", "two"):
                client.send(text)
                assert client.recv(timeout=10) == text
        until(running, lambda found: found["open"] == 4)
        assert [counts(running, at) for at in AT] == [{"open": 4, "opened": 4, "accepted": 4}] * 2
        check_records(running)

        clients[0].close(4321, "s3cret-reason")
        clients[1].send("close")
        clients[2].send("raise")
        peer.reset()
        with RawPeer(running.port, "/private/5") as stranger:
            assert stranger.answer().status == 403
        until(running, lambda found: found["closed"] == 4 and found["denied"] == 1)
        over = {"opened": 5, "accepted": 4, "denied": 1, "closed": 4}
        assert [counts(running, at) for at in AT] == [over] * 2
        for at in AT:
            check_stats(ask(running, f"{at}/stats").body, server.name)
            assert ask(running, f"{at}/connections", headers=BEARER).body == {"connections": [], "next": None}


def check_records(running: Running) -> None:
    """Four live connections, in pages, to those who have the token; nothing secret to anybody."""
    books = [{"received": 2, "sent": 2, "attempted": 3, "forwarded": 3}] * 3
    books += [{"received": 0, "sent": 0, "attempted": 1, "forwarded": 1}]
    for at in AT:
        first = ask(running, f"{at}/connections?limit=3", headers=BEARER)
        second = ask(running, f"{at}/connections?limit=3&after={first.body['next']}", headers=BEARER)
        records = [*first.body["connections"], *second.body["connections"]]
        assert (len(first.body["connections"]), second.body["next"]) == (3, None)
        assert [one["number"] for one in records] == [1, 2, 3, 4]
        assert [one["path"] for one in records] == ["/rooms/1", "/rooms/2", "/rooms/3", "/rooms/4"]
        assert {(one["route"], one["state"], one["client"][0]) for one in records} == {(TEMPLATE, "open", HOST)}
        found = [{name: one["books"][name] for name in books[0]} for one in records]
        assert found == books
        public = [ask(running, f"{at}/"), ask(running, f"{at}/stats"), ask(running, f"{at}/connections")]
        assert [one.status for one in public] == [200, 200, 401]
        for one in public:
            assert not [record for record in records if record["connection_id"].encode() in one.raw]
            assert b"/rooms/1" not in one.raw
            assert HOST.encode() not in one.raw
        assert (b"/rooms/{room}" in public[1].raw) is (TEMPLATE is not None)
        for one in (*public, first, second):
            assert b"s3cret" not in one.raw
            assert one.headers["cache-control"] == "no-store"


def check_stats(stats: dict[str, Any], name: str) -> None:
    """Four accepts, six echoes, one close and one denial were sent, eight texts received; each end is what it was."""
    messages = {"received": 8, "sent": 6, "attempted": 12, "forwarded": 12, "failed": 0, "refused": 0, "dropped": {}}
    assert stats["messages"] == {**messages, "success_rate": 1.0}
    codes = Counter(str(code) for code in (CLIENT_CLOSE[name], RESET[name], 4001, 1011))
    assert stats["close_codes"] == codes
    left = Counter(["going_away", "normal_closure" if CLIENT_CLOSE[name] == 4321 else "going_away"])
    assert stats["ends_by_status"] == {**left, "app_close": 1, "app_error": 1, "denied": 1}
    assert stats["recent"]["ends_by_status"] == stats["ends_by_status"]
    assert stats["ends_by_initiator"] == {"client": 2, "application": 3}
    assert b"s3cret" not in json.dumps(stats).encode()


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_http_around_it(server: Server, tmp_path: Any) -> None:
    """HEAD has no body, other methods are refused, what is not below the path is the application's."""
    with serving(server, "app", tmp_path) as running:
        for at in AT:
            head = ask(running, f"{at}/health", method="HEAD")
            assert (head.status, head.raw) == (200, b"")
            post = ask(running, f"{at}/health", method="POST")
            assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")
            assert ask(running, f"{at}/nothing").status == 404
            assert ask(running, f"{at}/connections?limit=0", headers=BEARER).status == 400
            wrong = ask(running, f"{at}/connections", headers={"Authorization": "Bearer guess"})
            assert (wrong.status, wrong.headers["www-authenticate"]) == (401, "Bearer")
        assert ask(running, "/").raw == b"home"
        assert ask(running, "/ws-healthy").status == 404


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_served_alone(server: Server, tmp_path: Any) -> None:
    """A server starts it, with its lifespan, and stops it; websockets are denied."""
    arguments = ("--lifespan", "on") if server is UVICORN_SANSIO else ()
    with serving(server, "alone", tmp_path, arguments) as running:
        assert ask(running, "/health").body["status"] == "ok"
        assert ask(running, "/connections", headers=BEARER).status == 404
        with RawPeer(running.port, "/health") as peer:
            assert peer.answer().status == 403
        log = running.log.lower()  # before the stop: hypercorn's own ends with a traceback
    assert not [word for word in ("traceback", "lifespan error", "lifespan failed", "not supported") if word in log], (
        log
    )
