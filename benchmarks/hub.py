"""
What a broadcast of the hub costs, beside a plain loop of raw sends and what others offer, in one process.

Run it with ``python -m benchmarks.hub``. The members are uvicorn's own protocol objects on a transport that throws
everything away: the work of a server is in the price, the kernel's is not. Rounds of all subjects are interleaved, and
medians are compared. Time is that of the processor, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import platform
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from channels.layers import InMemoryChannelLayer
from engineio.async_socket import AsyncSocket
from rich.console import Console
from rich.table import Table
from socketio import AsyncServer
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.hub import Hub

from ._subjects import verdict

ROOM = "room"
OUTBOX = 16
"""Messages that may wait for a stalled member."""
TEXT = '{"type":"message","text":"hello, everybody"}'
MESSAGE = {"type": "websocket.send", "text": TEXT}
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class NullTransport:
    """
    Takes everything, and notes when.

    Attributes:
        at_s: When the last bytes came, in seconds.
    """

    def __init__(self) -> None:
        self.at_s = 0.0

    def write(self, data: bytes) -> None:
        """Throw bytes away."""
        self.at_s = time.process_time()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Know nothing."""
        return default

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def close(self) -> None:
        """Stay open."""

    def pause_reading(self) -> None:
        """There is nothing to read."""

    resume_reading = pause_reading


class Members:
    """
    Connections of uvicorn that have joined a hub.

    Attributes:
        hub: The hub.
        protocols: uvicorn's side of each.
    """

    def __init__(self, hub: Hub | None) -> None:
        self.hub = hub
        self.protocols: list[Any] = []
        guarded: Any = WebSocketGuardMiddleware(self._app, observers=())
        self._config = Config(guarded, log_level="critical", lifespan="off", ws_ping_interval=None)
        self._config.load()
        self._state = ServerState()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self.hub is not None:
            self.hub.join(scope, ROOM)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def come(self, number: int) -> None:
        """Let a number of members come."""
        for _ in range(number):
            protocol: Any = WebSocketsSansIOProtocol(self._config, self._state, {}, asyncio.get_running_loop())
            protocol.connection_made(NullTransport())
            protocol.data_received(HANDSHAKE)
            self.protocols.append(protocol)
        while not all(one.handshake_complete for one in self.protocols):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)

    async def go(self) -> None:
        """Let all go."""
        for one in self.protocols:
            one.connection_lost(None)
        while self._state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def interleaved(subjects: dict[str, Callable[[], Awaitable[object]]], rounds: int) -> dict[str, float]:
    """Give the median of each subject's times, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            gc.collect()
            gc.disable()
            began_s = time.process_time()
            await subject()
            times[name].append(time.process_time() - began_s)
            gc.enable()
            await asyncio.sleep(0.01)
    return {name: median(took) for name, took in times.items()}


async def channels_group(number: int) -> Callable[[], Awaitable[object]]:
    """Make Channels' layer in memory with as many channels in a group; each round empties them first."""
    layer = InMemoryChannelLayer(capacity=1000)
    names = [await layer.new_channel() for _ in range(number)]
    for name in names:
        await layer.group_add(ROOM, name)
    return lambda: layer.group_send(ROOM, {"type": "chat.message", "text": TEXT})


async def socketio_room(number: int) -> Callable[[], Awaitable[object]]:
    """Make a python-socketio server with as many sessions in a room; what it queues is not even sent."""
    server = AsyncServer(async_mode="asgi", logger=False, engineio_logger=False)
    for index in range(number):
        eio_sid = f"session{index}"
        connection = AsyncSocket(server.eio, eio_sid)
        connection.connected = True
        server.eio.sockets[eio_sid] = connection
        await server.manager.enter_room(await server.manager.connect(eio_sid, "/"), "/", ROOM, eio_sid)
    return lambda: server.emit("message", {"type": "message", "text": "hello, everybody"}, room=ROOM)


async def broadcasts(number: int, rounds: int, table: Table) -> None:
    """Compare the ways of telling all."""
    hub = Hub()
    members = Members(hub)
    await members.come(number)
    sends = [one.send for one in members.protocols]

    async def raw() -> None:
        for send in sends:
            await send(MESSAGE)

    subjects: dict[str, Callable[[], Awaitable[object]]] = {
        "raw sends in a loop": raw,
        "the hub": lambda: hub.send_to_room(ROOM, TEXT),
        "asyncio.gather over raw sends": lambda: asyncio.gather(*(send(MESSAGE) for send in sends)),
        "Channels group_send, in memory": await channels_group(number),
        "python-socketio emit": await socketio_room(number),
    }
    took = await interleaved(subjects, rounds)
    hub_s = took["the hub"]
    budgets = {
        "raw sends in a loop": (hub_s / took["raw sends in a loop"], 2.0, True),
        "asyncio.gather over raw sends": (took["asyncio.gather over raw sends"] / hub_s, 3.0, False),
        "Channels group_send, in memory": (took["Channels group_send, in memory"] / hub_s, 10.0, False),
        "python-socketio emit": (took["python-socketio emit"] / hub_s, 3.0, False),
    }
    for name, seconds in took.items():
        ratio, budget, at_most = budgets.get(name, (1.0, 1.0, True))
        says = verdict(ratio, budget, at_most=at_most) if name in budgets else ""
        table.add_row(name, f"{seconds / number * 1e6:.2f} µs", f"{ratio:.2f}", says)
    await members.go()


async def stalled(number: int, rounds: int, table: Table) -> None:
    """Stall one in a hundred, and see what the others notice."""
    hub = Hub(send_timeout_s=None, outbox_messages=OUTBOX)
    members = Members(hub)
    await members.come(number)
    slow = members.protocols[::100]
    for one in slow:
        one.writable.clear()
    healthy = [one.transport for one in members.protocols if one.writable.is_set()]
    for one in slow:
        one.writable.set()

    async def p99_s() -> float:
        began_s = time.process_time()
        await hub.send_to_room(ROOM, TEXT)
        took: list[float] = sorted(one.at_s - began_s for one in healthy)
        return took[len(took) * 99 // 100]

    without, with_them = [], []
    for _ in range(rounds):
        without.append(await p99_s())
        for one in slow:
            one.writable.clear()
        for _ in range(3):
            with_them.append(await p99_s())
        for one in slow:
            one.writable.set()
        await asyncio.sleep(0.05)
    for one in slow:
        one.writable.clear()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(2 * OUTBOX):
        await hub.send_to_room(ROOM, TEXT)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    ratio = median(with_them) / median(without)
    table.add_row("p99 with 1 % stalled, over without", "", f"{ratio:.2f}", verdict(ratio, 1.2))
    waiting = hub.sums.waiting / len(slow)
    each = f"{grown / len(slow) / 1024:.1f} KiB"
    table.add_row(
        "messages that wait for each stalled one, and their memory", each, f"{waiting:.0f}", verdict(waiting, OUTBOX)
    )
    for one in slow:
        one.writable.set()
    await members.go()


async def longest_block_s(work: Callable[[], Awaitable[object]]) -> float:
    """Give the longest time between two turns of the loop while something is done."""
    running, longest_s = asyncio.ensure_future(work()), 0.0
    while not running.done():
        before_s = time.process_time()
        await asyncio.sleep(0)
        longest_s = max(longest_s, time.process_time() - before_s)
    return longest_s


async def deaths(number: int, table: Table) -> None:
    """Let all members die at once, and look for the longest block of the loop while they are cleaned up."""
    hub = Hub()
    members = Members(hub)
    await members.come(number)
    for one in members.protocols:
        one.disconnected = True  # uvicorn raises in `send` from now on
    gc.collect()
    gc.freeze()
    longest_s = await longest_block_s(lambda: hub.send_to_room(ROOM, TEXT))
    gc.unfreeze()
    assert hub.connections == 0
    verdict_of = verdict(longest_s * 1e3, 5.0)
    table.add_row("longest block, all found dead by a broadcast", f"{longest_s * 1e3:.1f} ms", "", verdict_of)
    await members.go()


async def main(number: int, rounds: int) -> None:
    """Print all."""
    logging.disable(logging.CRITICAL)
    table = Table(title=f"{number} members, {platform.python_implementation()} {platform.python_version()}")
    for heading in ("", "per member", "ratio to the hub", "budget"):
        table.add_column(heading)
    await broadcasts(number, rounds, table)
    await stalled(number, rounds, table)
    await deaths(number, table)
    Console(width=120).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    asyncio.run(main(given.members, given.rounds))
