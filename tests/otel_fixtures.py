"""Fixtures for the tests of exporters, which the conftest of a folder imports that wants them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asgi_ws_guard.plugins.otel.exporters import Providers


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Providers]]:
    """Build providers that end with the test; nothing of the developer's own environment counts."""
    from asgi_ws_guard.plugins.otel.exporters import build_providers

    for variable in [one for one in os.environ if one.startswith("OTEL_")]:
        monkeypatch.delenv(variable)
    made: list[Providers] = []

    def build_one(*args: Any, **kwargs: Any) -> Providers:
        made.append(build_providers(*args, **kwargs))
        return made[-1]

    yield build_one
    for one in made:
        one._running.end(0.2, 0.0)  # a receiver that was told to hang still does
        one.shutdown()


@pytest.fixture
def refused(build: Callable[..., Providers]) -> Callable[..., Any]:
    """Build what cannot be built, by default with the console, and give the error; "s3cr3t" is not in it."""
    from asgi_ws_guard import ConfigurationError

    def refuse(**options: Any) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            build(options.pop("exporters", ["console"]), **options)
        assert "s3cr3t" not in f"{caught.value!r} {caught.value} {caught.value.value!r}"
        return caught.value

    return refuse


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install a package with one entry point, as far as `importlib.metadata` can see."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def one(group: str, name: str, value: str) -> None:
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", "utf-8")
        (folder / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n", "utf-8")

    return one
