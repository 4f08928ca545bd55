"""
Who may come in, on every server: the same denial for a client, a token that is not echoed, a first message.

Measured with uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.7 and daphne 4.2.3.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from .clients import RawPeer, Seen, library_client, watch
from .probe_admission import TIMEOUT_S, TOKEN
from .servers import SERVERS, Running, Server, start
from .sites import IMPORT_ROOT, PACKAGE

SLACK_S = 3.0  # for a busy machine


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give each server with the application."""
    server: Server = request.param
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    folder = tmp_path_factory.mktemp(f"admission-{server.name}")
    with start(server, f"{PACKAGE}.probe_admission:app", folder, python_path=[IMPORT_ROOT]) as running:
        yield running


DENIALS = [
    ("/who", 401, b'{"error": "no_token", "status": 401}', {"www-authenticate": 'Bearer realm="chat"'}),
    ("/busy", 429, b'{"error": "too_many", "status": 429}', {"retry-after": "7"}),
    ("/text", 503, b"come back later", {"content-type": "text/plain; charset=utf-8"}),
    ("/broken", 500, b"", {"content-length": "0"}),
]


@pytest.mark.parametrize(("path", "status", "body", "headers"), DENIALS, ids=[one[0] for one in DENIALS])
def test_a_denial_is_the_same_everywhere(
    running: Running, path: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    """
    Status, body and headers arrive unchanged on uvicorn, hypercorn and granian.

    daphne has no denial response: its client gets 403 and nothing else.
    """
    with RawPeer(running.port, path) as peer:
        answer = peer.answer(whole=True)
    if running.server.name == "daphne":
        assert answer.status == 403
        return
    assert (answer.status, answer.body) == (status, body)
    if body.startswith(b"{"):
        headers = {**headers, "content-type": "application/json"}
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert answer.headers["content-length"] == str(len(body))


def test_a_token_among_the_subprotocols_is_hidden_and_answered(running: Running) -> None:
    """The client's offer is answered without the token, which neither the application nor a log ever sees."""
    with library_client(running.port, "/offer", subprotocols=["bearer", TOKEN]) as client:
        assert client.subprotocol == "bearer"
        header = "" if running.server.name == "uvicorn-wsproto" else "bearer"  # which keeps it out of the headers
        assert client.recv(timeout=5) == f"ann ['bearer'] {header}"
    assert TOKEN not in running.log


def test_a_first_message_opens(running: Running) -> None:
    """The token is swallowed, the application goes on with the identity, what follows is echoed in order."""
    with library_client(running.port, "/first") as client:
        client.send(TOKEN)
        for text in ("a", "b", "c"):
            client.send(text)
        assert [client.recv(timeout=5) for _ in range(4)] == ["ann [] ", "a", "b", "c"]
    assert TOKEN not in running.log


def closed(running: Running, reason: str) -> Seen:
    """Give what a client sees that is not let in; daphne sends no reason."""
    return Seen("close", 4401, "" if running.server.name == "daphne" else reason)


def test_a_wrong_first_message_closes(running: Running) -> None:
    """Nothing of the application reaches a stranger, and nothing of the stranger the application."""
    with library_client(running.port, "/first") as client:
        client.send("guess")
        with contextlib.suppress(ConnectionClosed):  # it may be closed already
            client.send("a")
        assert watch(client, timeout_s=5) == closed(running, "who?")


def test_who_says_nothing_is_closed_in_time(running: Running) -> None:
    """4401, by the deadline of the policy that wants the first message."""
    began_s = time.monotonic()
    with library_client(running.port, "/first") as client:
        assert watch(client, timeout_s=TIMEOUT_S + SLACK_S) == closed(running, "first_message_timeout")
    assert TIMEOUT_S <= time.monotonic() - began_s < TIMEOUT_S + SLACK_S


def test_who_leaves_before_saying_anything_leaves_nothing(running: Running) -> None:
    """The server goes on, and a next client is served; no traceback stands in its log."""
    with RawPeer(running.port, "/first") as peer:
        peer.accepted()
        peer.reset()
    with library_client(running.port, "/first") as client:
        client.send(TOKEN)
        assert client.recv(timeout=5) == "ann [] "
    lines = running.log.replace("ValueError: a bug in a policy", "").splitlines()
    assert [line for line in lines if "was never" in line or "RuntimeError" in line or "Task exception" in line] == []
