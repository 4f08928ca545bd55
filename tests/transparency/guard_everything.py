"""
A pytest plugin: a transparent guard around every application of uvicorn's and Starlette's own tests.

Transparent means: no close of its own, no quiet dropping. What still differs is what the contract changes on purpose.
"""

from __future__ import annotations

from typing import Any

import uvicorn.config
from starlette.testclient import TestClient

from asgi_ws_guard import WebSocketGuardMiddleware


def _guarded(app: Any) -> Any:
    return WebSocketGuardMiddleware(
        app, late_sends="raise", close_on_return=None, close_on_error=None, observers=(), adapters=()
    )


def pytest_configure() -> None:
    """Wrap what `TestClient` and uvicorn's configuration are given."""
    make_client, load = TestClient.__init__, uvicorn.config.Config.load

    def make_guarded_client(self: Any, app: Any, *args: Any, **options: Any) -> None:
        make_client(self, _guarded(app), *args, **options)
        self.app = app

    def load_guarded(self: Any) -> None:
        load(self)
        self.loaded_app = _guarded(self.loaded_app)

    TestClient.__init__ = make_guarded_client  # type: ignore[method-assign]
    uvicorn.config.Config.load = load_guarded  # type: ignore[method-assign]
