"""
Servers that are started once per test session and shared by the tests.

The fixtures are parametrised over the servers, so pytest runs all tests of one server, then ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from otel_fixtures import build  # noqa: F401 - fixtures
from otlp_receiver import Receiver

from .servers import HYPERCORN_TRIO, SERVERS, Server
from .sites import Site, serving
from .telemetry import RECEIVERS

LINGER_S = 0.6  # of the guarded probe: long enough to tell from at once, short enough to wait for


def _name(server: Server) -> str:
    return server.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is parametrised by a server that is older than what is supported, and count it."""
    old = [item for item in items if any(getattr(value, "is_too_old", False) for value in _parameters(item))]
    if old:
        config.hook.pytest_deselected(items=old)
        items[:] = [item for item in items if item not in old]


def _parameters(item: pytest.Item) -> list[object]:
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []


@pytest.fixture(scope="session", autouse=True)
def _servers_hear_of_sigint() -> None:
    """A shell makes its background jobs ignore SIGINT, which servers would inherit: daphne then ignores it for good."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=SERVERS, ids=_name)
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the probe without the guard, on each server in turn."""
    server: Server = request.param
    with serving(server, "probe:app", tmp_path_factory.mktemp("bare")) as site:
        yield site


@pytest.fixture(scope="session", params=SERVERS, ids=_name)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the probe inside the guard, on each server in turn."""
    server: Server = request.param
    folder = tmp_path_factory.mktemp("guarded")
    options: dict[str, object] = {"linger_s": LINGER_S}
    with serving(server, "probe_guarded:guarded", folder, options=options) as site:
        yield site


@pytest.fixture(scope="session")
def guarded_trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the probe inside the guard on hypercorn's trio worker."""
    folder = tmp_path_factory.mktemp("guarded-trio")
    options: dict[str, object] = {"linger_s": LINGER_S}
    with serving(HYPERCORN_TRIO, "probe_guarded:guarded", folder, options=options) as site:
        yield site


@pytest.fixture(params=list(RECEIVERS))
def otlp_name(request: pytest.FixtureRequest) -> str:
    """Name one of the OTLP exporters."""
    given: str = request.param
    return given


@pytest.fixture
def receiver(otlp_name: str) -> Iterator[Receiver]:
    """Run the receiver for it."""
    with RECEIVERS[otlp_name]() as running:
        yield running
