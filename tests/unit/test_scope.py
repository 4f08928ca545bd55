"""Scopes: whole, copied, and frozen without an error whatever the server gives (G10)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from asgi_ws_guard import Handshake
from asgi_ws_guard._adapter import HANDLE_KEY
from asgi_ws_guard._scope import can_deny, handshake_of, whole_scope

FULL: dict[str, Any] = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "2",
    "scheme": "wss",
    "path": "/chat/é",
    "raw_path": b"/chat/%C3%A9",
    "query_string": b"token=1",
    "root_path": "/root",
    "headers": [(b"host", b"example.org"), (b"cookie", b"a=b")],
    "client": ("10.0.0.1", 5000),
    "server": ("10.0.0.2", 443),
    "subprotocols": ["chat", "superchat"],
    "extensions": {"websocket.http.response": {}},
    "state": {"shared": 1},
    "path_params": {"room": "x"},
    "app": object(),
}

DEFAULTS: dict[str, Any] = {
    "asgi": {"version": "2.0", "spec_version": "2.0"},
    "scheme": "ws",
    "http_version": "1.1",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "subprotocols": [],
    "extensions": {},
    "client": None,
    "server": None,
}

DAPHNE: dict[str, Any] = {
    "type": "websocket",
    "path": "/ws",
    "raw_path": b"/ws",
    "headers": [(b"host", b"127.0.0.1")],
    "query_string": b"",
    "client": ["127.0.0.1", 40000],
    "server": ["127.0.0.1", 8000],
    "subprotocols": [],
    "asgi": {"version": "3.0"},
}
"""What daphne 4.2 gives: no ``scheme``, no ``http_version``, no ``spec_version``, no extensions."""


def test_a_whole_scope_is_copied() -> None:
    """Nothing is missing, so nothing is added; the copy is another dict, what is in it is shared as ASGI says."""
    whole = whole_scope(FULL)
    assert whole == FULL
    assert whole is not FULL
    assert all(whole[key] is FULL[key] for key in FULL)


@pytest.mark.parametrize("missing", sorted(DEFAULTS))
def test_one_key_is_missing(missing: str) -> None:
    """Each optional key that is left out gets its default; the others stay, and the server's scope is not changed."""
    scope = {key: value for key, value in FULL.items() if key != missing}
    before = dict(scope)
    whole = whole_scope(scope)
    expected = FULL["path"].encode() if missing == "raw_path" else DEFAULTS[missing]
    assert whole == {**scope, missing: expected}
    assert type(whole[missing]) is type(expected)
    assert scope == before
    assert missing not in scope


@pytest.mark.parametrize("none", sorted(DEFAULTS))
def test_one_key_is_none(none: str) -> None:
    """None is as good as missing: an application that relies on the default must not meet it."""
    whole = whole_scope({**FULL, none: None})
    expected = FULL["path"].encode() if none == "raw_path" else DEFAULTS[none]
    assert whole == {**FULL, none: expected}


def test_an_empty_scope() -> None:
    """Even a scope without anything becomes whole; what belongs to a server that supports it is not invented."""
    assert whole_scope({}) == DEFAULTS
    assert "state" not in whole_scope({"type": "websocket"})


def test_the_scope_of_daphne() -> None:
    """What daphne leaves out is there, and what it says stays."""
    given = copy.deepcopy(DAPHNE)
    whole = whole_scope(given)
    assert given == DAPHNE
    assert whole == {
        **DAPHNE,
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "scheme": "ws",
        "http_version": "1.1",
        "root_path": "",
        "extensions": {},
    }
    assert not can_deny(whole)
    assert handshake_of(whole).scheme == "ws"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"version": "3.0", "spec_version": "2.3"}, {"version": "3.0", "spec_version": "2.3"}),
        ({"version": "3.0"}, {"version": "3.0", "spec_version": "2.0"}),
        ({"spec_version": "2.4"}, {"version": "2.0", "spec_version": "2.4"}),
        ({"version": "3.0", "extra": 1}, {"version": "3.0", "spec_version": "2.0", "extra": 1}),
        ({}, {"version": "2.0", "spec_version": "2.0"}),
        (None, {"version": "2.0", "spec_version": "2.0"}),
        ("3.0", {"version": "2.0", "spec_version": "2.0"}),
    ],
)
def test_the_versions(given: object, expected: dict[str, object]) -> None:
    """Both versions are there, those that the server told stay, and its own dict is not changed."""
    before = copy.deepcopy(given)
    assert whole_scope({**FULL, "asgi": given})["asgi"] == expected
    assert given == before


def test_the_key_of_the_handle() -> None:
    """The key that the documentation names; a scope gets it from the session and not from here."""
    assert HANDLE_KEY == "asgi_ws_guard.connection"
    assert HANDLE_KEY not in whole_scope({})


def test_no_default_is_shared() -> None:
    """Two connections do not share a list or dict that was filled in."""
    one, two = whole_scope({}), whole_scope({})
    for key in ("asgi", "headers", "subprotocols", "extensions"):
        assert one[key] is not two[key]


def test_a_handshake() -> None:
    """All that observers and policies may know, frozen into plain tuples."""
    assert handshake_of(whole_scope(FULL)) == Handshake(
        path="/chat/é",
        query_string=b"token=1",
        headers=((b"host", b"example.org"), (b"cookie", b"a=b")),
        client=("10.0.0.1", 5000),
        server=("10.0.0.2", 443),
        scheme="wss",
        http_version="2",
        subprotocols=("chat", "superchat"),
        can_deny=True,
    )
    assert handshake_of(whole_scope({})) == Handshake("/", b"", (), None, None, "ws", "1.1", (), can_deny=False)


def test_a_handshake_is_a_snapshot() -> None:
    """What the application does to its scope later does not change the handshake."""
    scope = whole_scope(copy.copy(FULL))
    scope["headers"] = [[b"a", b"b"]]
    scope["subprotocols"] = ["chat"]
    handshake = handshake_of(scope)
    scope["headers"][0][1] = b"changed"
    scope["headers"].append((b"c", b"d"))
    scope["subprotocols"].append("more")
    assert handshake.headers == ((b"a", b"b"),)
    assert handshake.subprotocols == ("chat",)


def test_headers_that_can_be_read_once() -> None:
    """ASGI lets headers be any iterable: reading them for the handshake must not take them from the application."""
    whole = whole_scope({**FULL, "headers": iter(FULL["headers"])})
    assert handshake_of(whole).headers == tuple(FULL["headers"])
    assert list(whole["headers"]) == FULL["headers"]


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ({"websocket.http.response": {}}, True),
        ({"websocket.http.response": None}, True),
        ({"tls": {}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_denial_extension(extensions: object, expected: bool) -> None:
    """The server can send a denial response if it says so, whatever the value is."""
    assert can_deny({"extensions": extensions}) is expected
    assert handshake_of(whole_scope({**FULL, "extensions": extensions})).can_deny is expected


def test_no_extensions_at_all() -> None:
    """A scope without the key is one of a server without extensions."""
    assert can_deny({}) is False


MALFORMED: list[tuple[str, Any, str, Any]] = [
    # key, what the server gives, attribute of the handshake, what it becomes
    ("path", 5, "path", "5"),
    ("path", b"/x", "path", "b'/x'"),
    ("query_string", "a=b", "query_string", b"a=b"),
    ("query_string", "€", "query_string", b"?"),
    ("query_string", 7, "query_string", b"7"),
    ("scheme", 5, "scheme", "5"),
    ("http_version", 1.1, "http_version", "1.1"),
    ("headers", 5, "headers", ()),
    ("headers", "no headers", "headers", ()),
    ("headers", [b"host"], "headers", ()),
    ("headers", [(b"a", b"b", b"c")], "headers", ()),
    ("headers", [None], "headers", ()),
    ("headers", {"host": "x"}, "headers", ()),
    ("headers", [("host", "é€")], "headers", ((b"host", b"\xe9?"),)),
    ("headers", [(b"length", 5)], "headers", ((b"length", b"5"),)),
    ("client", "10.0.0.1", "client", None),
    ("client", ("10.0.0.1",), "client", None),
    ("client", ("::1", 5000, 0, 0), "client", None),
    ("client", 5, "client", None),
    ("client", [], "client", None),
    ("server", ["unix.sock", None], "server", ("unix.sock", None)),
    ("server", {}, "server", None),
    ("subprotocols", "chat", "subprotocols", ()),
    ("subprotocols", 5, "subprotocols", ()),
    ("subprotocols", (b"chat", 5), "subprotocols", ("b'chat'", "5")),
    ("extensions", [], "can_deny", False),
    ("extensions", "tls", "can_deny", False),
    ("extensions", 5, "can_deny", False),
    ("extensions", True, "can_deny", False),
]


@pytest.mark.parametrize(("key", "given", "attribute", "expected"), MALFORMED)
def test_a_malformed_scope(key: str, given: Any, attribute: str, expected: Any) -> None:
    """Whatever is malformed becomes a plain default: never an exception of ours on the server's side."""
    handshake = handshake_of(whole_scope({**FULL, key: given}))
    assert getattr(handshake, attribute) == expected
    hash(handshake.headers)
