"""The secure chat on a real uvicorn: who is let in, who is not, and that its log holds no secret."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from asgi_ws_guard.cli._server import HOST, Server, running_server
from asgi_ws_guard.plugins.auth import Tickets

SECRET = "s3cr3t-of-the-secure-chat-example"
TARGET = "examples.secure_chat:app"
TIMEOUT_S = 10.0
FOREIGN = {"Origin": "https://evil.example"}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the example for all tests of this module; its log is looked through at the end."""
    log = tmp_path_factory.mktemp("chat") / "log"
    with running_server(TARGET, log=log, environment={"CHAT_SECRET": SECRET}) as server:
        yield server


def post(server: Server, path: str, body: object = None, cookie: str = "") -> tuple[int, str, str]:
    """Post JSON. Gives the status, the body, and the cookie that was set."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"} | ({"Cookie": cookie} if cookie else {})
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), (answer.getheader("set-cookie") or "").partition(";")[0]


def log_in(server: Server, name: str) -> str:
    """Log in, and give the cookie."""
    status, _, cookie = post(server, "/login", {"name": name})
    assert status == 200
    return cookie


def fetch_ticket(server: Server, cookie: str) -> str:
    """Fetch a ticket, as the page does."""
    status, body, _ = post(server, "/ticket", cookie=cookie)
    assert status == 200
    return str(json.loads(body)["ticket"])


def mint(name: str, *, expires_unix_s: float | None = None) -> str:
    """Mint a ticket as the example would."""
    return Tickets(SECRET, lifetime_s=15, audience="chat").mint(name, expires_unix_s=expires_unix_s, path="/chat")


def enter(server: Server, ticket: str | None, headers: Mapping[str, str] | None = None) -> ClientConnection:
    """Open a WebSocket with a ticket."""
    return connect(
        f"ws://{HOST}:{server.port}/chat",
        subprotocols=None if ticket is None else [Subprotocol("ticket"), Subprotocol(ticket)],
        additional_headers=headers,
        open_timeout=TIMEOUT_S,
        close_timeout=TIMEOUT_S,
        proxy=None,
    )


def refused(
    server: Server, ticket: str | None, headers: Mapping[str, str] | None = None
) -> tuple[int, str, str | None]:
    """Be denied. Gives the status, the reason in the body, and Retry-After."""
    with pytest.raises(InvalidStatus) as denied:
        enter(server, ticket, headers)
    answer = denied.value.response
    return answer.status_code, json.loads(answer.body)["error"], answer.headers.get("retry-after")


def test_who_logs_in_can_talk(chat: Server) -> None:
    """The page, the login, the ticket and the talk, in the name under which one logged in."""
    cookie = log_in(chat, "ada")
    origin = {"Origin": f"http://{HOST}:{chat.port}", "Cookie": cookie}
    with enter(chat, fetch_ticket(chat, cookie), origin) as ada, enter(chat, mint("bob")) as bob:
        assert ada.subprotocol == "ticket"
        ada.send("hello")
        said = {"user": "ada", "text": "hello"}
        assert [json.loads(one.recv(TIMEOUT_S)) for one in (ada, bob)] == [said, said]


def test_a_ticket_needs_a_login(chat: Server) -> None:
    """The endpoint mints for nobody else."""
    assert post(chat, "/ticket")[0] == 401


def test_a_foreign_page_is_denied(chat: Server) -> None:
    """403, cookie or not, although the ticket is good; the ticket is not used up by it."""
    ticket = mint("ada")
    assert refused(chat, ticket, FOREIGN) == (403, "not_same_origin", None)
    assert refused(chat, ticket, {**FOREIGN, "Cookie": log_in(chat, "ada")}) == (403, "not_same_origin", None)
    with enter(chat, ticket) as ada:
        assert ada.subprotocol == "ticket"


def test_who_shows_no_good_ticket_is_denied(chat: Server) -> None:
    """401 for none, one of another secret, and one of another service."""
    assert refused(chat, None) == (401, "no_token", None)
    assert refused(chat, Tickets("another secret of 16", audience="chat").mint("ada"))[:2] == (401, "bad_signature")
    assert refused(chat, Tickets(SECRET, audience="mail").mint("ada"))[:2] == (401, "bad_signature")


def test_a_ticket_is_good_once(chat: Server) -> None:
    """401 for the second one who shows it."""
    ticket = mint("ada")
    with enter(chat, ticket):
        pass
    assert refused(chat, ticket)[:2] == (401, "replayed")


def test_a_connection_ends_with_its_session(chat: Server) -> None:
    """4401 when the session is over that the ticket was minted in."""
    with enter(chat, mint("ada", expires_unix_s=time.time() + 0.5)) as ada, pytest.raises(ConnectionClosed):
        ada.recv(TIMEOUT_S)
    assert ada.close_code == 4401


def test_a_flood_is_held_back_and_loses_nothing(chat: Server) -> None:
    """Ten messages beyond the burst take the second that the rate says, and all of them arrive."""
    with enter(chat, mint("ada")) as ada:
        began_s = time.monotonic()
        for number in range(30):
            ada.send(str(number))
        heard = [json.loads(ada.recv(TIMEOUT_S))["text"] for _ in range(30)]
        took_s = time.monotonic() - began_s
    assert heard == [str(number) for number in range(30)]
    assert took_s >= 0.9


def test_a_large_message_ends_its_connection_alone(chat: Server) -> None:
    """1009, and the others go on."""
    with enter(chat, mint("ada")) as ada, enter(chat, mint("bob")) as bob:
        ada.send("x" * 4097)
        with pytest.raises(ConnectionClosed):
            ada.recv(TIMEOUT_S)
        assert ada.close_code == 1009
        bob.send("still here")
        assert json.loads(bob.recv(TIMEOUT_S))["text"] == "still here"


def test_one_user_has_five_connections(chat: Server) -> None:
    """429 with Retry-After for the sixth; another user is let in."""
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(enter(chat, mint("eve")))
        status, reason, retry_after = refused(chat, mint("eve"))
        assert (status, reason, retry_after) == (429, "connections_per_identity", "5")
        stack.enter_context(enter(chat, mint("bob")))


def test_too_many_attempts_are_denied(tmp_path: Path) -> None:
    """429 with Retry-After, also for those who know no ticket: guessing is not free."""
    with running_server(TARGET, log=tmp_path / "log", environment={"CHAT_SECRET": SECRET}) as server:
        answers: list[tuple[int, str, str | None]] = []
        while not answers or (answers[-1][0] == 401 and len(answers) < 600):  # one more comes free each second
            answers.append(refused(server, None))
        *before, (status, reason, retry_after) = answers
        assert len(before) >= 60
        assert set(before) == {(401, "no_token", None)}
        assert (status, reason) == (429, "attempts_per_address")
        assert int(retry_after or 0) >= 1


def test_the_first_message_can_be_the_ticket(tmp_path: Path) -> None:
    """Who says the wrong one is closed with 4401, who says the right one talks; nobody hears of either message."""
    way = {"CHAT_SECRET": SECRET, "CHAT_AUTH": "first_message"}
    with running_server(TARGET, log=tmp_path / "log", environment=way) as server:
        with enter(server, None) as stranger:
            stranger.send(json.dumps({"ticket": mint("eve")[:-1]}))
            with pytest.raises(ConnectionClosed):
                stranger.recv(TIMEOUT_S)
        assert stranger.close_code == 4401
        with enter(server, None) as ada:
            ada.send(json.dumps({"ticket": mint("ada")}))
            ada.send("hello")
            assert json.loads(ada.recv(TIMEOUT_S)) == {"user": "ada", "text": "hello"}


def test_a_program_shows_its_token_in_a_header(tmp_path: Path) -> None:
    """A JSON Web Token opens where the example is told so; one for somebody else does not."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    def bearer(audience: str) -> dict[str, str]:
        claims = {"iss": "https://id.example.org", "aud": audience, "sub": "robot", "exp": int(time.time()) + 60}
        return {"Authorization": f"Bearer {jwt.encode({'alg': 'HS256'}, claims, OctKey.import_key(SECRET))}"}

    way = {"CHAT_SECRET": SECRET, "CHAT_AUTH": "jwt"}
    with running_server(TARGET, log=tmp_path / "log", environment=way) as server:
        assert refused(server, None, bearer("mail"))[:2] == (401, "claims")
        with enter(server, None, bearer("chat")) as robot:
            robot.send("hello")
            assert json.loads(robot.recv(TIMEOUT_S)) == {"user": "robot", "text": "hello"}


def test_a_deployment_asks_everybody_to_come_again(tmp_path: Path) -> None:
    """On SIGTERM 1012 and when to come again; the process ends by itself."""
    with running_server(TARGET, log=tmp_path / "log", environment={"CHAT_SECRET": SECRET}) as server:
        with enter(server, mint("ada")) as ada:
            server.process.terminate()
            with pytest.raises(ConnectionClosed):
                ada.recv(TIMEOUT_S)
        assert ada.close_code == 1012
        assert re.fullmatch(r"retry_after=\d+", ada.close_reason or "")
        server.process.wait(TIMEOUT_S)
        log = server.log.read_text()
    assert "Application shutdown complete" in log
    assert "Traceback" not in log


def test_no_secret_is_in_the_log(chat: Server) -> None:
    """Neither ticket, cookie, secret nor name, in the log of uvicorn and guard with their defaults."""
    cookie, ticket = log_in(chat, "mallory-the-name"), mint("mallory-the-name")
    with enter(chat, ticket, {"Cookie": cookie, "Origin": f"http://{HOST}:{chat.port}"}) as mallory:
        mallory.send("mallory-the-text")
        mallory.recv(TIMEOUT_S)
    assert refused(chat, ticket)[0] == 401
    assert refused(chat, mint("mallory-the-name"), {**FOREIGN, "Cookie": cookie})[0] == 403
    log = chat.log.read_text()
    for line in ("websocket accepted", "websocket closed", "websocket rejected", '"WebSocket /chat" [accepted]'):
        assert line in log
    secrets = (SECRET, ticket, ticket.rpartition(".")[2], cookie.partition("=")[2], "mallory-the")
    assert [secret for secret in secrets if secret in log] == []
    assert "Traceback" not in log
