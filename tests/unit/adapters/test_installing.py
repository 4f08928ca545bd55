"""Applying adapters and taking them back: once, only what is known, only what is imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blacksheep  # noqa: F401 - the frameworks are imported, as an application would have done
import falcon.asgi
import litestar  # noqa: F401
import pytest
import quart  # noqa: F401
from starlette.websockets import WebSocket

from asgi_ws_guard import ConfigurationError, WebSocketGuardMiddleware, adapters
from asgi_ws_guard._adapter import HANDLE_KEY, FrameworkAdapter, Patch, has_ended
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.adapters import KNOWN, Waiting, install, is_imported, uninstall
from asgi_ws_guard.adapters import starlette as starlette_adapter
from asgi_ws_guard.testing import ScriptedServer, run

OWN = WebSocket.send
REPLACED = {
    "blacksheep": "WebSocket.receive",
    "falcon": "WebSocket",
    "litestar": "WebSocket.send_wrapper",
    "quart": "ASGIWebsocketConnection.close_connection",
    "starlette": "WebSocket.send",
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


def guard(**options: Any) -> WebSocketGuardMiddleware:
    return WebSocketGuardMiddleware(application, observers=(), **options)


def applied(name: str) -> bool:
    """Tell whether a framework is not as it was."""
    owner: Any = sys.modules[KNOWN[name][0]]
    for part in REPLACED[name].split("."):
        owner = getattr(owner, part)
    code = getattr(owner, "__code__", None)
    return code is not None and "asgi_ws_guard" in code.co_filename


def test_the_table_names_every_file() -> None:
    """A new adapter is a row in `KNOWN` and a file, and each row has a file."""
    files = {path.stem for path in Path(adapters.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_auto_applies_what_is_imported(name: str) -> None:
    """The default of a guard."""
    assert not applied(name)
    guard()
    assert applied(name)
    uninstall(name)
    assert not applied(name)
    assert all(applied(other) for other in KNOWN if other != name)


def test_none_and_some() -> None:
    """Nothing for (), the named ones for names, beside callables."""
    called: list[int] = []
    guard(adapters=())
    assert not any(applied(name) for name in KNOWN)
    guard(adapters=["quart", lambda: called.append(1)])
    assert [name for name in KNOWN if applied(name)] == ["quart"]
    assert called == [1]


@pytest.mark.parametrize("value", [["flask"], ["quart", "auto"], [""], ["Starlette"], "starlette", ["quart", 5]])
def test_an_unknown_name(value: Any) -> None:
    """The error names the adapters that there are, and nothing was applied."""
    with pytest.raises(ConfigurationError) as caught:
        guard(adapters=value)
    assert "names: blacksheep, falcon, litestar, quart, starlette" in str(caught.value)
    assert not applied("quart")


def test_once_however_many_guards() -> None:
    """What the second guard finds is not wrapped again, and one `uninstall` is enough."""
    guard()
    first = WebSocket.send
    guard()
    assert install("starlette")
    assert WebSocket.send is first
    uninstall()
    assert WebSocket.send is OWN
    uninstall()
    assert WebSocket.send is OWN


def test_uninstalled_it_stays_out_until_a_new_guard() -> None:
    """A guard that was built before does not apply it again at its next connection."""
    guarded = guard()
    uninstall()

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(guarded)

    run(main)
    assert WebSocket.send is OWN
    guard()
    assert WebSocket.send is not OWN


def test_a_framework_that_is_imported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its adapter before the next connection of each guard, whether named or not."""
    module = sys.modules["starlette.websockets"]
    monkeypatch.delitem(sys.modules, "starlette.websockets")
    guarded = guard(adapters=["starlette"])
    assert not is_imported("starlette")
    assert WebSocket.send is OWN

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(guarded)

    run(main)
    assert WebSocket.send is OWN
    monkeypatch.setitem(sys.modules, "starlette.websockets", module)
    run(main)
    assert WebSocket.send is not OWN


def test_a_framework_that_is_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module without its class yet is waited for."""
    module = sys.modules["starlette.websockets"]
    monkeypatch.setitem(sys.modules, "starlette.websockets", types.ModuleType("starlette.websockets"))
    waiting = Waiting(["starlette"])
    waiting.look()
    assert WebSocket.send is OWN
    monkeypatch.setitem(sys.modules, "starlette.websockets", module)
    waiting.look()
    assert WebSocket.send is not OWN


def test_no_framework_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard leaves `sys.modules` as it is where no framework is there."""
    for module, _ in KNOWN.values():
        monkeypatch.delitem(sys.modules, module)
    guard()
    assert not {module for module, _ in KNOWN.values()} & set(sys.modules)


def test_installing_by_hand_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing."""
    with pytest.raises(ConfigurationError, match="name='flask' is not allowed"):
        install("flask")
    monkeypatch.delitem(sys.modules, "quart.asgi")
    with pytest.raises(ConfigurationError, match="an adapter whose framework is imported"):
        install("quart")


@pytest.mark.parametrize(
    ("version", "known"),
    [
        *[(one, True) for one in ("0.40.0", "0.40", "0.52.1", "1.0.0", "1.10.0", "1.99", "1.2.0rc1", "1.3.post1")],
        *[(one, False) for one in ("0.39.2", "0.9", "2.0.0", "2.0.0rc1", "2", "10.0", "unknown", "")],
    ],
)
def test_an_unknown_version_is_left_alone(
    version: str, known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning, however many guards there are, and nothing is changed."""
    monkeypatch.setattr(importlib.metadata, "version", lambda distribution: version)
    with caplog.at_level(logging.WARNING, "asgi_ws_guard"):
        guard(adapters=["starlette"])
        guard(adapters=["starlette"])
        assert install("starlette") is known
    assert (WebSocket.send is not OWN) is known
    texts = [f"the adapter for starlette is left out: it knows 0.40 to below 2, not {version}"]
    assert [record.getMessage() for record in caplog.records] == ([] if known else texts)
    assert {record.name for record in caplog.records} <= {"asgi_ws_guard"}


def test_a_framework_without_a_version(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A vendored or frozen framework has no metadata: what is not known is left alone."""

    def absent(distribution: str) -> str:
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert not install("starlette")
    assert WebSocket.send is OWN
    assert "not None" in caplog.text


@pytest.mark.parametrize(
    ("name", "module", "attribute"),
    [
        ("starlette", "starlette.websockets", "WebSocketState"),
        ("litestar", "litestar.connection.websocket", "WebSocket.send_wrapper"),
        ("quart", "quart.asgi", "ASGIWebsocketConnection.close_connection"),
        ("falcon", "falcon.asgi.ws", "_WebSocketState"),
        ("blacksheep", "blacksheep.server.websocket", "WebSocket._send_message"),
    ],
)
def test_a_framework_that_is_built_differently(
    name: str, module: str, attribute: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where an attribute is missing nothing at all is replaced, with the same warning."""
    owner: Any = sys.modules[module]
    *path, last = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    monkeypatch.delattr(owner, last)
    before = dict(vars(owner))
    assert not install(name)
    assert dict(vars(owner)) == before
    assert f"the adapter for {name} is left out" in caplog.text


def test_somebody_else_replaced_it_since(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their function stays, with a warning; the other attributes are restored."""
    receive = WebSocket.receive
    install("starlette")
    ours: Callable[..., Any] = WebSocket.send

    async def theirs(self: WebSocket, message: Any) -> None:
        await ours(self, message)

    monkeypatch.setattr(WebSocket, "send", theirs)
    uninstall("starlette")
    assert WebSocket.send is theirs
    assert WebSocket.receive is receive
    assert "the adapter for starlette leaves send in place" in caplog.text
    WebSocket.send = OWN  # type: ignore[method-assign]
    monkeypatch.undo()
    WebSocket.send = OWN  # type: ignore[method-assign]


def test_an_inherited_attribute_is_inherited_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the owner did not have itself it does not have afterwards."""

    class Child(WebSocket):
        """Inherits everything."""

    adapter = FrameworkAdapter("starlette", (0,), (99,), lambda: (Patch(Child, "send", OWN),))
    monkeypatch.setattr(starlette_adapter, "ADAPTER", adapter)
    install("starlette")
    assert "send" in vars(Child)
    uninstall()
    assert "send" not in vars(Child)


def test_what_counts_as_late() -> None:
    """Only the scope of a guarded connection that has ended."""

    class Handle:
        initiator: object = None

    handle = Handle()
    assert not has_ended({})
    assert not has_ended({HANDLE_KEY: None})
    assert not has_ended({HANDLE_KEY: handle})
    handle.initiator = "client"
    assert has_ended({HANDLE_KEY: handle})


def test_falcon_is_seen_when_its_app_is_there() -> None:
    """`falcon` alone, without `falcon.asgi`, is no framework to adapt."""
    assert is_imported("falcon")
    assert KNOWN["falcon"][0] == falcon.asgi.App.__module__
