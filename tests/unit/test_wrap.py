"""`asgi_ws_guard.wrap`: made at import, from the environment. Real servers: tests/interop/test_from_outside.py."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send

HERE = __name__


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


@pytest.fixture(autouse=True)
def _not_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import it anew, and leave nothing behind."""
    monkeypatch.delenv("ASGI_WS_GUARD_APP", raising=False)
    sys.modules.pop("asgi_ws_guard.wrap", None)
    yield
    sys.modules.pop("asgi_ws_guard.wrap", None)


def wrap() -> Any:
    """Import the module, as a server does."""
    return importlib.import_module("asgi_ws_guard.wrap")


def test_the_application_is_there_after_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the module's dictionary, where hypercorn looks; guarded, with the options of the environment."""
    monkeypatch.setenv("ASGI_WS_GUARD_APP", f"{HERE}:app")
    monkeypatch.setenv("ASGI_WS_GUARD_LINGER_S", "2")
    made = vars(wrap())["app"]
    assert type(made) is WebSocketGuardMiddleware
    assert made.app is app
    assert made._options.linger_s == 2
    assert wrap().create_app() is made
    assert sorted(wrap().__all__) == ["app", "create_app"]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "ASGI_WS_GUARD_APP is not set: set it to the application, such as ASGI_WS_GUARD_APP=package.module:app"),
        ({"ASGI_WS_GUARD_APP": f"{HERE}:ap"}, f"ASGI_WS_GUARD_APP='{HERE}:ap' is wrong: there is no 'ap' in {HERE}"),
        (
            {"ASGI_WS_GUARD_APP": f"{HERE}:app", "ASGI_WS_GUARD_WATCH": "x"},
            "ASGI_WS_GUARD_WATCH='x' is not allowed: expected true or false",
        ),
    ],
)
def test_a_wrong_variable_ends_the_import(
    environment: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With one sentence on stderr; no server catches it."""
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit) as info:
        wrap()
    assert info.value.code == 3
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"asgi-ws-guard: {sentence}")
    assert errors.count("\n") == 1
