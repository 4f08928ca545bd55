"""Origin and Auth on real servers, with real clients: who comes in, what a denial says, and that no token is echoed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi_ws_guard.plugins.auth import Tickets

from .clients import RawPeer, library_client
from .probe_auth import SECRET, TOKEN
from .servers import DAPHNE, GRANIAN, HOST, HYPERCORN, UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

SERVERS = (UVICORN_SANSIO, HYPERCORN, GRANIAN, DAPHNE)
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run the application on one server."""
    folder = tmp_path_factory.mktemp("auth")
    with start(request.param, f"{PACKAGE}.probe_auth:app", folder, python_path=[IMPORT_ROOT]) as one:
        yield one


def knock(running: Running, path: str, **asked: Any) -> tuple[dict[str, Any], str | None]:
    """Come in; give what the application said, and the subprotocol that was chosen."""
    with library_client(running.port, path, **asked) as client:
        return json.loads(client.recv(timeout=5)), client.subprotocol


def denial(running: Running, path: str, **asked: Any) -> tuple[int, str, dict[str, str]]:
    """Be denied; give the status, the reason in the body and the headers."""
    with pytest.raises(InvalidStatus) as caught, library_client(running.port, path, **asked):
        pass
    response = caught.value.response
    assert TOKEN.encode() not in (response.body or b"")
    assert TOKEN not in str(response.headers)
    reason = json.loads(response.body)["error"] if response.body and response.body[:1] == b"{" else ""
    return response.status_code, reason, dict(response.headers.raw_items())


def test_a_page_of_the_same_host_comes_in_and_another_does_not(running: Running) -> None:
    """By Origin and Host as the server hands them on; a client without an origin and a cookie comes in."""
    own = {"origin": f"http://{HOST}:{running.port}"}
    assert knock(running, "/origin", headers=own)[0]["subject"] is None
    assert knock(running, "/origin")[0]["subject"] is None
    for wrong, reason in (
        ({"origin": "http://evil.example"}, "not_same_origin"),
        ({"origin": "http://user@evil.example/"}, "malformed_origin"),
        ({"cookie": "a=b"}, "missing_origin"),
    ):
        status, told, _ = denial(running, "/origin", headers=wrong)
        assert status == 403
        assert told == ("" if running.server is DAPHNE else reason)


def test_two_origins_are_denied(running: Running) -> None:
    """Whether the server hands both on, or refuses by itself."""
    own = f"http://{HOST}:{running.port}"
    with RawPeer(running.port, "/origin", headers={"Origin": own, "origin": "http://evil.example"}) as peer:
        assert peer.answer().status in (400, 403)


def test_a_token_comes_in_by_header_cookie_and_subprotocol(running: Running) -> None:
    """The application knows who it is; of the subprotocols it sees and the client is answered the prefix alone."""
    assert knock(running, "/header", headers=BEARER)[0]["subject"] == "ann"
    pair = {"cookie": f"session={TOKEN}", "origin": f"http://{HOST}:{running.port}"}
    assert knock(running, "/cookie", headers=pair)[0]["subject"] == "ann"
    said, chosen = knock(running, "/subprotocol", subprotocols=["bearer", TOKEN])
    assert said == {"subject": "ann", "subprotocols": ["bearer"], "seen": []}
    assert chosen == "bearer"


def test_a_ticket_comes_in_once(running: Running) -> None:
    """The second time it is a replay, with the challenge of RFC 6750."""
    ticket = Tickets(SECRET).mint("ann")
    assert knock(running, f"/ticket?ticket={ticket}")[0]["subject"] == "ann"
    _expect_denial(running, f"/ticket?ticket={ticket}", "replayed", {})


def test_a_json_web_token_comes_in_until_it_expires(running: Running) -> None:
    """A good one, an expired one, a forged one."""
    key, now = OctKey.import_key(SECRET), int(time.time())

    def bearer(end: int, tail: str = "") -> dict[str, str]:
        token = joserfc_jwt.encode({"alg": "HS256"}, {"sub": "ann", "aud": "chat", "exp": end}, key)
        return {"authorization": f"Bearer {token}{tail}"}

    assert knock(running, "/jwt", headers=bearer(now + 60))[0]["subject"] == "ann"
    _expect_denial(running, "/jwt", "expired", bearer(now - 1))
    _expect_denial(running, "/jwt", "bad_signature", bearer(now + 60, "AAAA"))


def _expect_denial(running: Running, path: str, reason: str, headers: dict[str, str]) -> None:
    status, told, answered = denial(running, path, headers=headers)
    if running.server is DAPHNE:  # it can send nothing but 403
        assert (status, told) == (403, "")
        return
    assert (status, told) == (401, reason)
    lowered = {name.lower(): value for name, value in answered.items()}
    assert lowered["www-authenticate"] == 'Bearer error="invalid_token"'


def test_the_first_message_comes_in_or_closes(running: Running) -> None:
    """With the token the application begins; with another one the client is closed with 4401 and the reason."""
    with library_client(running.port, "/first") as client:
        client.send(TOKEN)
        assert json.loads(client.recv(timeout=5))["subject"] == "ann"
    with library_client(running.port, "/first") as client:
        client.send("wrong")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=5)
        assert caught.value.rcvd is not None
        said = "" if running.server is DAPHNE else "rejected"  # daphne 4.2 sends no reason with a code
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, said)


@pytest.mark.parametrize(
    ("path", "message", "code"),
    [("/broken", TOKEN, 1011), ("/cancelled", TOKEN, 1011), ("/first", "x" * 9000, 1009)],
)
def test_a_first_message_that_nobody_can_judge_closes(running: Running, path: str, message: str, code: int) -> None:
    """An authenticator that raises, a message too long: the connection ends, on daphne by the private code."""
    with library_client(running.port, path) as client:
        client.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == (code + 3000 if running.server is DAPHNE else code)


def test_an_authenticator_that_is_cancelled_denies(running: Running) -> None:
    """By somebody else than the server: the client has an answer, as of any other failure."""
    status, reason, _ = denial(running, "/cancelled-early", headers=BEARER)
    assert (status, reason) == ((403, "") if running.server is DAPHNE else (500, "failed"))
