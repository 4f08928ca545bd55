"""The frameworks are as they are at the start of every test here, and after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgi_ws_guard.adapters import uninstall

uninstall()  # an example that another test imports has a guard; what is a framework's own is looked at in these modules


@pytest.fixture(autouse=True)
def _as_they_are() -> Iterator[None]:
    """Take back what guards of other tests have applied."""
    uninstall()
    yield
    uninstall()
