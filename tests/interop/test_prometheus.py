"""Prometheus gives back what the clients did, to the last message and byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .clients import library_client
from .programs import find_program
from .prometheus import INSTALL, Prometheus, Series, running_prometheus
from .rooms import LATE_SENDS
from .servers import UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

TEXTS = ("hello", "", "grüße", "x" * 3000)
BINARIES = (b"\x00\x01", b"")
TEXT_BYTES = sum(len(text.encode()) for text in TEXTS)
BINARY_BYTES = sum(map(len, BINARIES))
ROOMS = 3


def series(**labels: str) -> frozenset[tuple[str, str]]:
    """Make the labels of a series."""
    return frozenset(labels.items())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Prometheus]]:
    """Run the application on uvicorn, and a Prometheus that scrapes it."""
    find_program("prometheus", INSTALL)
    folder = tmp_path_factory.mktemp("prometheus")
    environment = {"ROOMS_TELEMETRY": "prometheus"}
    with start(
        UVICORN_SANSIO,
        f"{PACKAGE}.rooms:make_app",
        folder,
        env=environment,
        python_path=[IMPORT_ROOT],
        arguments=["--factory"],
    ) as running:
        _act(running.port)
        with running_prometheus(folder, running.port) as prometheus:
            yield running, prometheus


def _act(port: int) -> None:
    """Do what the tests below count."""
    for room in range(ROOMS):
        with library_client(port, f"/echo/{room}?token=s3cret") as client:
            for message in (*TEXTS, *BINARIES):
                client.send(message)
                assert client.recv(timeout=5) == message
            client.close(4000 + room, "bye")
        with library_client(port, f"/late/{room}") as client:
            client.close(1001)
        with library_client(port, f"/close/{room}") as client, pytest.raises(ConnectionClosed):
            client.recv(timeout=5)
        with pytest.raises(InvalidStatus), library_client(port, f"/deny/{room}"):
            pass
        with library_client(port, f"/error/{room}") as client, pytest.raises(ConnectionClosed):
            client.recv(timeout=5)


def _check(prometheus: Prometheus, expression: str, expected: Series) -> None:
    assert prometheus.wait_for(expression, expected) == expected


def test_connections(site: tuple[Running, Prometheus]) -> None:
    """Every handshake is counted once, by route template and result."""
    expected = {
        series(http_route=f"/{name}/{{room}}", websocket_connection_result=result): float(ROOMS)
        for name, result in (
            ("echo", "accepted"),
            ("late", "accepted"),
            ("close", "accepted"),
            ("deny", "denied"),
            ("error", "accepted"),
        )
    }
    _check(site[1], "websocket_server_connections_total > 0", expected)


def test_nothing_is_left_open(site: tuple[Running, Prometheus]) -> None:
    """All clients are gone: every gauge is 0, and there is one for each route."""
    routes = [f"/{name}/{{room}}" for name in ("echo", "late", "close", "deny", "error")]
    active = {series(http_route=route, url_scheme="ws"): 0.0 for route in routes}
    _check(site[1], "websocket_server_connection_active", active)
    _check(site[1], "asgi_ws_guard_zombies", {series(http_route=route): 0.0 for route in routes})


def test_messages_and_bytes(site: tuple[Running, Prometheus]) -> None:
    """Messages by direction and type, and their bytes of UTF-8, are what the echo clients sent and got."""
    messages, size = {}, {}
    for direction in ("receive", "transmit"):
        of_echo = {"http_route": "/echo/{room}", "network_io_direction": direction}
        messages[series(**of_echo, websocket_message_type="text")] = float(ROOMS * len(TEXTS))
        messages[series(**of_echo, websocket_message_type="binary")] = float(ROOMS * len(BINARIES))
        size[series(**of_echo)] = float(ROOMS * (TEXT_BYTES + BINARY_BYTES))
    _check(site[1], "websocket_server_messages_total > 0", messages)
    _check(site[1], "websocket_server_io_bytes_total > 0", size)


def test_sends_by_outcome(site: tuple[Running, Prometheus]) -> None:
    """Every message of the application is counted by what became of it; the late ones with their reason."""
    forwarded = {"echo": 1 + len(TEXTS) + len(BINARIES), "late": 1, "close": 2, "deny": 2, "error": 1}
    expected = {
        series(http_route=f"/{name}/{{room}}", result="forwarded"): float(ROOMS * number)
        for name, number in forwarded.items()
    }
    dropped = series(http_route="/late/{room}", result="dropped", reason="client_disconnected")
    expected[dropped] = float(ROOMS * LATE_SENDS)
    _check(site[1], "asgi_ws_guard_sends_total > 0", expected)
    attempted = ROOMS * (sum(forwarded.values()) + LATE_SENDS)
    rate = 'sum(asgi_ws_guard_sends_total{result="forwarded"}) / sum(asgi_ws_guard_sends_total)'
    _check(site[1], rate, {frozenset(): ROOMS * sum(forwarded.values()) / attempted})


def test_ends_by_code_and_status(site: tuple[Running, Prometheus]) -> None:
    """Every connection ended once, with its code, status and initiator."""
    ends: Series = {}
    for room in range(ROOMS):
        client = {"websocket_connection_status": "normal_closure", "websocket_close_initiator": "client"}
        ends[series(http_route="/echo/{room}", websocket_close_code=str(4000 + room), **client)] = 1.0
    for name, code, status, initiator in (
        ("late", "1001", "going_away", "client"),
        ("close", "4001", "app_close", "application"),
        ("error", "1011", "app_error", "application"),
    ):
        labels = {"websocket_connection_status": status, "websocket_close_initiator": initiator}
        if name == "error":
            labels["error_type"] = "ValueError"
        ends[series(http_route=f"/{name}/{{room}}", websocket_close_code=code, **labels)] = float(ROOMS)
    _check(site[1], "websocket_server_connection_duration_seconds_count", ends)


def test_handshakes(site: tuple[Running, Prometheus]) -> None:
    """Every handshake was timed once, with the status of its answer."""
    expected = {
        series(http_route=f"/{name}/{{room}}", http_response_status_code=code): float(ROOMS)
        for name, code in (("echo", "101"), ("late", "101"), ("close", "101"), ("deny", "401"), ("error", "101"))
    }
    _check(site[1], "websocket_server_handshake_duration_seconds_count", expected)


def test_no_path_and_no_token_is_a_label(site: tuple[Running, Prometheus]) -> None:
    """No value of a path parameter and nothing of a query string is in any series."""
    for labels in site[1].query('{job="guard"}'):
        for _, value in labels:
            assert "s3cret" not in value
            assert not value.startswith("/echo/") or value == "/echo/{room}"
