"""The clients: one visit to one scenario, in the protocol that the framework speaks. No expectation stands here."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlencode

import socketio
from interop.servers import HOST
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .scenarios import Framework, Scenario

MESSAGES = 3
GOING_AWAY = 1001
CLOSE_TIMEOUT_S = 0.5  # some bare servers do not answer a close while the handler does not receive
DENIED = "denied"
NOTHING = "nothing"

Seen = int | str | None


async def visit(framework: Framework, scenario: Scenario, port: int, tag: str, timeout_s: float) -> Seen:
    """
    Visit a scenario until it is over, or until the time is.

    Args:
        framework: Which, and what the client must speak.
        scenario: What the application will do.
        port: Of the server, on 127.0.0.1.
        tag: Names the connection in the log.
        timeout_s: How long in all, in seconds.

    Returns:
        A close code, ``denied``, ``nothing`` when no close frame came in time, or None when the client left.
    """
    query = urlencode({"scenario": scenario.name, "tag": tag})
    try:
        return await asyncio.wait_for(_CLIENTS[framework.speaks](framework.name, scenario, port, query), timeout_s)
    except InvalidHandshake as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        return DENIED if status == http.client.FORBIDDEN else f"HTTP {status}"
    except (OSError, EOFError, asyncio.TimeoutError, ConnectionClosed):
        return NOTHING


@contextlib.asynccontextmanager
async def _connected(port: int, path: str, *protocols: str) -> AsyncIterator[ClientConnection]:
    """Connect, without asking the environment for a proxy."""
    transport = socket.create_connection((HOST, port))
    client = await connect(
        f"ws://{HOST}:{port}{path}",
        sock=transport,
        subprotocols=protocols or None,  # type: ignore[arg-type]
        close_timeout=CLOSE_TIMEOUT_S,
        ping_interval=None,
        compression=None,
    )
    try:
        yield client
    finally:
        client.transport.abort()


async def _websocket(name: str, scenario: Scenario, port: int, query: str) -> Seen:
    async with _connected(port, f"/{name}?{query}") as client:
        if scenario.leaves:
            messages = MESSAGES if scenario.name in ("push_close", "push_reset", "catch_all", "background") else 1
            await _leave(client, scenario, messages)
            return None
        return await _until_closed(client)


async def _leave(client: ClientConnection, scenario: Scenario, messages: int) -> None:
    for _ in range(messages):
        await client.recv()
    if scenario.leaves == "close":
        await client.close(GOING_AWAY)
    else:
        _cut_off(client)


def _cut_off(client: ClientConnection) -> None:
    transport = client.transport.get_extra_info("socket")
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def _until_closed(client: ClientConnection) -> Seen:
    try:
        while True:
            await client.recv()
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd is not None else NOTHING


async def _graphql(name: str, scenario: Scenario, port: int, query: str) -> Seen:
    async with _connected(port, f"/{name}?{query}", "graphql-transport-ws") as client:
        await client.send(json.dumps({"type": "connection_init"}))
        if scenario.name == "denial":
            await _until_closed(client)
            return DENIED
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": "subscription { ticks }"}}
        await client.send(json.dumps(subscribe))
        if scenario.leaves:
            await _leave(client, scenario, MESSAGES + 1)
            return None
        await client.recv()
        await client.send(json.dumps({"type": "no such type"}))
        return await _until_closed(client)


async def _socketio(name: str, scenario: Scenario, port: int, query: str) -> Seen:
    return await _engine(f"http://{HOST}:{port}/?{query}", name, scenario)


async def _nicegui(name: str, scenario: Scenario, port: int, query: str) -> Seen:
    page = await asyncio.to_thread(_read_page, port, f"/{name}?{query}")
    found = re.search(r"client_id[\"'&#39;:\s]+([0-9a-f-]{36})", page)
    assert found is not None, page
    ids = {"client_id": found[1], "tab_id": str(uuid.uuid4()), "document_id": str(uuid.uuid4())}
    more = urlencode({**ids, "implicit_handshake": "true", "next_message_id": 0})
    return await _engine(f"http://{HOST}:{port}/?{query}&{more}", "_nicegui_ws/socket.io", scenario)


def _read_page(port: int, path: str) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=CLOSE_TIMEOUT_S * 20)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


async def _engine(url: str, path: str, scenario: Scenario) -> Seen:
    """Be a client of Socket.IO, by its own library."""
    client = socketio.AsyncClient(reconnection=False)
    events: asyncio.Queue[str] = asyncio.Queue()
    client.on("*", lambda event, *_: events.put_nowait(event))
    client.on("disconnect", lambda *_: events.put_nowait("disconnect"))
    try:
        await client.connect(url, transports=["websocket"], socketio_path=path, wait_timeout=5)
        await client.emit("ready")
        while not scenario.leaves and await events.get() != "disconnect":
            pass
        for _ in range(MESSAGES if scenario.leaves else 0):
            await events.get()
        if scenario.leaves == "reset":
            transport = client.eio.ws._response.connection.transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await client.wait()
    except socketio.exceptions.ConnectionError:
        return DENIED
    finally:
        await client.shutdown()
    return None if scenario.leaves else "disconnect"


_CLIENTS: dict[str, Callable[[str, Scenario, int, str], Awaitable[Seen]]] = {
    "websocket": _websocket,
    "graphql": _graphql,
    "socketio": _socketio,
    "nicegui": _nicegui,
}
