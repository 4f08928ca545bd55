"""Each example on a real uvicorn, driven by a real client, as its docstring says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from interop.redis_server import running_redis
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from asgi_ws_guard.cli._pages import open_page, read_until, refresh_pages, reset
from asgi_ws_guard.cli._report import LogCounts
from asgi_ws_guard.cli._server import running_server

NOTHING = LogCounts(empty_error=0, send_after_close=0, not_connected=0, other_errors=0, tracebacks=0)
QUICK_CHAT = {"CHAT_INTERVAL_S": "0.05", "CHAT_DATABASE_S": "0.08"}
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FRAMEWORKS = ("fastapi", "starlette", "litestar", "quart", "channels", "falcon", "blacksheep")
STOP_TIMEOUT_S = 15.0  # a handler that only sends is quiet for the guard's `linger_s` first
REFRESHES = 8


def run_incident(target: str, log: Path) -> LogCounts:
    """Refresh the page of the chat REFRESHES times, and count what its log holds."""
    with running_server(target, log=log, environment=QUICK_CHAT) as server:
        cut = asyncio.run(refresh_pages(server.port, refreshes=REFRESHES, seed=2, advance=lambda: None))
    assert cut == 0
    return LogCounts.of(log.read_text())


def test_the_bare_chat_logs_all_lines_of_the_incident(tmp_path: Path) -> None:
    """Each dead connection gives one empty error, then refused sends, then one refused receive."""
    counts = run_incident("examples.fastapi_chat:app", tmp_path / "log")
    # On a busy machine a reset can overtake the last message of its page: that handler is idle, and ends cleanly.
    assert REFRESHES // 2 <= counts.empty_error <= REFRESHES
    assert counts.not_connected == counts.empty_error
    assert counts.send_after_close >= counts.empty_error // 2
    assert counts.tracebacks > 0


def test_the_guarded_chat_logs_none_of_them(tmp_path: Path) -> None:
    """The same application behind the guard logs no error, and no traceback."""
    assert run_incident("examples.fastapi_chat:guarded", tmp_path / "log") == NOTHING


@contextlib.asynccontextmanager
async def member(port: int, room: str, user: str) -> AsyncIterator[ClientConnection]:
    """Join a room of the chat; the history has been read."""
    async with open_page(port, f"/ws/{room}/{user}") as page:
        await read_until(page, "history")
        yield page


async def next_message(page: ClientConnection) -> Any:
    """Return the next message that is no acknowledgement."""
    while True:
        message = json.loads(await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S))
        if message["type"] != "ack":
            return message


async def talk(port: int) -> None:
    """Say something to a room, to a user, and to all, and check who hears it."""
    async with member(port, "red", "user-1") as one, member(port, "red", "user-2") as two:
        async with member(port, "blue", "user-3") as three:
            await two.send("ready")  # its own echo says that user-2 is in the room
            await three.send("ready")
            for page in (one, two, three):
                assert (await next_message(page))["text"] == "ready"
            await one.send("to the room")
            await one.send("@user-3 to one user")
            await one.send("!to all")
            heard = {page: (await next_message(page))["text"] for page in (one, two, three)}
            assert heard == {one: "to the room", two: "to the room", three: "@user-3 to one user"}
            for page in (one, two, three):
                assert (await next_message(page))["text"] == "!to all"
        async with member(port, "red", "user-4"), open_page(port, "/ws/red/user-5") as late:
            history = json.loads(await asyncio.wait_for(late.recv(), STOP_TIMEOUT_S))
            assert [message["text"] for message in history["messages"]][1:] == [
                "to the room",
                "@user-3 to one user",
                "!to all",
            ]


def test_the_chat_on_the_hub_logs_none_of_them(tmp_path: Path) -> None:
    """Nor does the one that was rewritten."""
    assert run_incident("examples.fastapi_hub:app", tmp_path / "log") == NOTHING


def test_the_chat_on_the_hub_is_shorter() -> None:
    """The same application in fewer lines, without a manager and without an ``except``."""
    chat, hub = ((EXAMPLES / f"fastapi_{name}.py").read_text() for name in ("chat", "hub"))
    assert hub.count("\n") < chat.count("\n") * 2 / 3
    assert "except" not in hub


@pytest.mark.parametrize("name", ["fastapi_chat:app", "fastapi_chat:guarded", "fastapi_hub:app"])
def test_the_chat_is_a_chat(name: str, tmp_path: Path) -> None:
    """Rooms, personal messages, broadcasts and history work, with the guard as without, and on the hub."""
    with running_server(f"examples.{name}", log=tmp_path / "log") as server:
        asyncio.run(talk(server.port))


async def talk_across(here: int, there: int) -> None:
    """Say something to a room, to a user, and to all, from one process to another."""
    async with member(here, "red", "user-1") as one, member(there, "red", "user-2") as two:
        await one.send("ready")
        await next_message(one)
        await two.send("@user-2 ready")  # its own echo says that user-2 is in the room, and known at Redis
        while (await next_message(two))["text"] != "@user-2 ready":
            pass
        for text in ("to the room", "@user-2 to one user", "!to all"):
            await one.send(text)
        assert [(await next_message(two))["text"] for _ in range(3)] == [
            "to the room",
            "@user-2 to one user",
            "!to all",
        ]


def test_the_chat_on_the_hub_is_one_in_two_processes(tmp_path: Path) -> None:
    """With Redis between them; neither logs an error."""
    with running_redis(tmp_path) as redis:
        environment = {**QUICK_CHAT, "CHAT_REDIS": redis.url}
        logs = [tmp_path / "one.log", tmp_path / "two.log"]
        with (
            running_server("examples.fastapi_hub:app", log=logs[0], environment=environment) as here,
            running_server("examples.fastapi_hub:app", log=logs[1], environment=environment) as there,
        ):
            asyncio.run(talk_across(here.port, there.port))
        assert [LogCounts.of(log.read_text()) for log in logs] == [NOTHING] * 2


async def use_three_routes(port: int) -> None:
    """Use the three routes; leave the one that only sends."""
    async with open_page(port, "/echo") as page:
        await page.send("hello")
        assert await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S) == "hello"
    async with open_page(port, "/push") as page:
        assert [await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S) for _ in range(3)] == ["0", "1", "2"]
    async with open_page(port, "/push") as page:
        assert await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S) == "0"
        reset(page)
    async with open_page(port, "/close") as page:
        assert await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S) == "goodbye"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S)
        assert (page.close_code, page.close_reason) == (4000, "done")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_application_echoes_pushes_and_closes(name: str, tmp_path: Path) -> None:
    """All routes do what they say, a late send is quiet, no handler outlives its client, no end leaves a traceback."""
    log = tmp_path / "log"
    with running_server(f"examples.{name}_app:app", log=log) as server:
        asyncio.run(use_three_routes(server.port))
        server.process.terminate()
        server.process.wait(STOP_TIMEOUT_S)  # uvicorn waits for handlers that are still running
    assert LogCounts.of(log.read_text()) == NOTHING
    if name != "quart":  # from 0.23 on it cancels the handler before its late send
        assert "reason=app_closed" in log.read_text()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_example_is_short(name: str) -> None:
    """At most 60 lines, one of which wraps it."""
    text = (EXAMPLES / f"{name}_app.py").read_text()
    assert text.count("\n") <= 60
    assert text.count("WebSocketGuardMiddleware") == 2  # its import, and the one line


async def read_ticks(port: int) -> list[str]:
    """Read three ticks, and leave."""
    async with open_page(port, "/") as page:
        return [str(await asyncio.wait_for(page.recv(), STOP_TIMEOUT_S)) for _ in range(3)]


def test_the_ticker_stops_when_its_client_leaves(tmp_path: Path) -> None:
    """The handler never receives, and ends all the same: nothing is left for uvicorn to wait for."""
    log = tmp_path / "log"
    with running_server("examples.raw_asgi:app", log=log) as server:
        assert asyncio.run(read_ticks(server.port)) == ["0", "1", "2"]
        assert asyncio.run(read_ticks(server.port)) == ["0", "1", "2"]
        server.process.terminate()
        server.process.wait(STOP_TIMEOUT_S)
    assert LogCounts.of(log.read_text()) == NOTHING
