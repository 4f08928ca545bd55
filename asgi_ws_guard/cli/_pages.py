"""
The clients of the demo: pages that are refreshed all the time, and viewers that stay.

They speak the protocol of the incident application and judge nothing. Imported by the demo, and by the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import Enum

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ._server import HOST, ServerError

USERS = 4  # pages that are open, and refreshed, at the same time
VIEWERS = 2  # pages that stay: what is done about dead connections must not touch them
ROOM = "global_monitor"
PAGE_LIFE_S = (0.05, 0.25)  # how long a page stays before the next refresh
MESSAGE_TIMEOUT_S = 10.0
GOING_AWAY = 1001  # what a browser closes with when the page goes (RFC 6455, section 7.4.1)


class Way(Enum):
    """How a page goes away when it is refreshed."""

    CLOSE = "a close frame, as browsers send it"
    RESET = "a TCP reset, as a broken network or a killed browser leaves it"
    IMPATIENT = "a close frame, then a page that is gone before its history has arrived"


@contextlib.asynccontextmanager
async def open_page(port: int, path: str) -> AsyncIterator[ClientConnection]:
    """
    Connect to the server on the loopback interface.

    With a socket of our own: the client library asks the environment for a proxy otherwise.
    """
    transport = socket.create_connection((HOST, port))
    async with connect(f"ws://{HOST}:{port}{path}", sock=transport, close_timeout=2.0) as page:
        yield page


def reset(page: ClientConnection) -> None:
    """Drop the TCP connection without a word; the server's next packet is answered with a reset."""
    transport = page.transport.get_extra_info("socket")
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    page.transport.abort()


async def read_until(page: ClientConnection, kind: str) -> None:
    """Read messages up to the first one of type *kind*."""
    found = None
    while found != kind:
        found = json.loads(await asyncio.wait_for(page.recv(), MESSAGE_TIMEOUT_S))["type"]


async def refresh(port: int, user: str, way: Way, life_s: float) -> None:
    """
    Open the page, look at it for *life_s* seconds, confirm what was seen, and refresh.

    The confirmation keeps the handler busy when the page goes, so that the broadcaster meets the dead connection first.
    """
    path = f"/ws/{ROOM}/{user}"
    async with open_page(port, path) as page:
        await read_until(page, "stats")
        await asyncio.sleep(life_s)
        await page.send("seen")
        if way is Way.RESET:
            reset(page)
        else:
            await page.close(GOING_AWAY)
    if way is Way.IMPATIENT:
        async with open_page(port, path) as page:
            reset(page)


async def view(port: int, user: str, stop: asyncio.Event) -> bool:
    """Read the monitor until *stop* is set, and tell whether the connection lived that long."""
    async with open_page(port, f"/ws/{ROOM}/{user}") as page:
        try:
            while not stop.is_set():
                await read_until(page, "stats")
        except ConnectionClosed:
            return False
    return True


async def refresh_pages(port: int, *, refreshes: int, seed: int, advance: Callable[[], None]) -> int:
    """
    Refresh the page *refreshes* times, by several users at once, while VIEWERS others stay.

    Args:
        port: Where the incident application listens.
        refreshes: How often in all, at least 1.
        seed: Seed for the order of the ways and the lives of the pages.
        advance: Called after each refresh.

    Returns:
        How many of the VIEWERS lost their connection, though nobody refreshed them.

    Raises:
        ServerError: The server does not listen, refuses a page, or is silent for MESSAGE_TIMEOUT_S.
    """
    generator = random.Random(seed)
    ways = [list(Way)[number % len(Way)] for number in range(refreshes)]
    generator.shuffle(ways)
    plan = [(way, generator.uniform(*PAGE_LIFE_S)) for way in ways]
    stop = asyncio.Event()

    async def use(user: str) -> None:
        while plan:
            way, life_s = plan.pop()
            await refresh(port, user, way, life_s)
            advance()

    viewers = [asyncio.ensure_future(view(port, f"viewer-{n}", stop)) for n in range(VIEWERS)]
    try:
        await asyncio.gather(*(use(f"user-{number}") for number in range(USERS)))
        stop.set()
        return (await asyncio.gather(*viewers)).count(False)
    except (OSError, asyncio.TimeoutError, WebSocketException) as error:
        raise ServerError(f"The clients gave up with {len(plan)} refreshes to go: {error!r}") from error
    finally:
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
