"""What holds for every unit test unless it says otherwise."""

from __future__ import annotations

import sys

import pytest
from otel_fixtures import build, install, refused  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def _not_on_granian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not granian's, although another test may have imported its module to ask for its defaults."""
    monkeypatch.delitem(sys.modules, "granian._granian", raising=False)
