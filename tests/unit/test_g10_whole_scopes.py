"""G10: whole scopes: what a server omits gets the default of ASGI, and the server's own scope is never changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from asgi_ws_guard import Handshake, Opened, WebSocketGuardMiddleware
from asgi_ws_guard._scope import handshake_of, whole_scope
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

DEFAULTS: dict[str, Any] = {
    "asgi": {"version": "2.0", "spec_version": "2.0"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/ws",
    "raw_path": b"/ws",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": None,
    "server": None,
    "subprotocols": [],
    "extensions": {},
}
GIVEN: dict[str, Any] = {
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "2",
    "scheme": "wss",
    "path": "/é",
    "raw_path": b"/%C3%A9",
    "query_string": b"token=secret",
    "root_path": "/app",
    "headers": [(b"host", b"example.org")],
    "client": ("10.0.0.1", 5),
    "server": ("10.0.0.2", 80),
    "subprotocols": ["chat"],
    "extensions": {"websocket.http.response": {}},
    "state": {"x": 1},
    "own": object(),
}


def _seen_by_the_application(scope: dict[str, Any]) -> dict[str, Any]:
    """Call a guarded application with a scope; give what it saw."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        scope["path"] = "/changed by the application"

    async def main() -> None:
        server = ScriptedServer()
        server.scope = scope
        await server.call(WebSocketGuardMiddleware(app, observers=(Recorder(),)))

    run(main)
    seen[0].pop("asgi_ws_guard.connection")
    return seen[0]


@pytest.mark.parametrize("missing", ["gone", "None"])
def test_every_optional_key_gets_its_default(missing: str) -> None:
    """A scope of two keys, or of many None, is whole for the application (daphne: no ``scheme``, Quart: HTTP 500)."""
    scope: dict[str, Any] = {"type": "websocket", "path": "/ws"}
    if missing == "None":
        scope |= {key: None for key in DEFAULTS if key != "path"}
    before = copy.deepcopy(scope)
    assert _seen_by_the_application(scope) == {"type": "websocket", **DEFAULTS}
    assert scope == before


def test_a_scope_without_a_path_has_one() -> None:
    """Even the one key that is never optional has a default: the guard raises nothing on the server's side."""
    assert _seen_by_the_application({"type": "websocket"})["path"] == "/"


def test_what_a_server_gives_is_not_touched() -> None:
    """Every given key is the server's own object; the server's scope is the same afterwards."""
    scope = {"type": "websocket", **GIVEN}
    before = dict(scope)
    seen = _seen_by_the_application(scope)
    assert seen == before
    assert all(seen[key] is before[key] for key in before)
    assert scope == before


@pytest.mark.parametrize(
    ("asgi", "whole"),
    [
        ({"version": "3.0"}, {"version": "3.0", "spec_version": "2.0"}),
        ({"spec_version": "2.1", "x": 1}, {"version": "2.0", "spec_version": "2.1", "x": 1}),
        ("3.0", {"version": "2.0", "spec_version": "2.0"}),
    ],
)
def test_half_an_asgi_key_is_completed(asgi: object, whole: dict[str, object]) -> None:
    """Daphne gives a version and no ``spec_version``."""
    assert whole_scope({"type": "websocket", "asgi": asgi})["asgi"] == whole


def test_two_connections_share_no_default() -> None:
    """A list that one application changes is not the next one's default."""
    first, second = whole_scope({"type": "websocket"}), whole_scope({"type": "websocket"})
    first["headers"].append((b"x", b"y"))
    first["extensions"]["x"] = {}
    first["subprotocols"].append("x")
    assert (second["headers"], second["extensions"], second["subprotocols"]) == ([], {}, [])


def test_the_handshake_is_the_frozen_scope() -> None:
    """Observers and policies get what the client asked for, and its `repr` hides what may be secret."""
    handshake = handshake_of(whole_scope({"type": "websocket", **GIVEN}))
    assert handshake == Handshake(
        path="/é",
        query_string=b"token=secret",
        headers=((b"host", b"example.org"),),
        client=("10.0.0.1", 5),
        server=("10.0.0.2", 80),
        scheme="wss",
        http_version="2",
        subprotocols=("chat",),
        can_deny=True,
    )
    assert "secret" not in repr(handshake)
    assert "example" not in repr(handshake)


def test_a_malformed_scope_raises_nothing() -> None:
    """Whatever a server puts in, the connection opens, and the handshake holds plain defaults instead."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        server.scope = {
            "type": "websocket",
            "path": 5,
            "query_string": "a=b",
            "headers": [1, 2],
            "client": "nobody",
            "server": ["unix", None],
            "subprotocols": 7,
            "scheme": 8,
        }

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()

        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=(seen,)))
        handshake = seen.one(Opened).handshake
        assert (handshake.path, handshake.query_string, handshake.headers) == ("5", b"a=b", ())
        assert (handshake.client, handshake.server, handshake.subprotocols) == (None, ("unix", None), ())

    run(main)
