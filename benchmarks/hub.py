"""
What a broadcast of the hub costs, beside a plain loop of raw sends and what others offer, in one process.

Run it with ``python -m benchmarks.hub``. All subjects are served by uvicorn's own protocol objects on a transport that
throws everything away, and are measured until everybody's message is there: Channels' group and python-socketio's room
return when a message is queued, so what their calls alone take stands beside it. Rounds are interleaved, and medians
are compared, in time of the processor, so that what else runs on the machine does not count, and without the collector.

uvicorn's send is in each figure, which bounds every ratio: nobody is faster than the loop of raw sends. So the same is
shown with an empty coroutine in the place of the server, where what is left is the price of whoever sends.

Channels has fewer members: after each message a consumer asks its layer in memory for the next one, which walks all its
channels, so that a broadcast to 10,000 takes a quarter of a minute.
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
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.hub import Hub

from ._crowd import Crowd, Nobody, NullTransport
from ._subjects import App, verdict

ROOM = "room"
OUTBOX = 16
"""Messages that may wait for a stalled member."""
TEXT = '{"type":"message","text":"hello, everybody"}'
MESSAGE = {"type": "websocket.send", "text": TEXT}
CHANNELS_MEMBERS = 1000
SOCKETIO_CONNECT = b"\x81\x82\0\0\0\0" + b"40"
"""The first packet of a Socket.IO client, in a frame whose mask changes nothing."""
DEATHS_RUNS = 3
ENDS_ROUNDS = 5

Subject = Callable[[], Awaitable[object]]


@dataclass
class Measured:
    """
    One way of telling all.

    Attributes:
        members: How many it reaches.
        run: Does it, until everybody has the message.
        took_s: Seconds of the processor, for each round.
        returned_s: Seconds until the call alone returned.
    """

    members: int
    run: Callable[[], Awaitable[float]]
    took_s: list[float] = field(default_factory=list)
    returned_s: list[float] = field(default_factory=list)

    @property
    def each_s(self) -> float:
        """Median of the seconds for each member."""
        return median(self.took_s) / self.members

    @property
    def call_each_s(self) -> float:
        """Median of the seconds for each member, of the call alone."""
        return median(self.returned_s) / self.members


def joining(hub: Hub | None, sends: list[Callable[[Any], Awaitable[None]]] | None = None) -> App:
    """Make a guarded application whose members join a hub, give their `send` away, and only receive."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if hub is not None:
            hub.join(scope, ROOM)
        if sends is not None:
            sends.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    return WebSocketGuardMiddleware(app, observers=())


def in_crowd(crowd: Crowd, subject: Subject) -> Measured:
    """Measure until something is written to every transport of a crowd."""

    async def run() -> float:
        returned_s = 0.0

        async def call() -> None:
            nonlocal returned_s
            await subject()
            returned_s = time.process_time()

        await crowd.all_reached(call())
        return returned_s

    return Measured(len(crowd.protocols), run)


def alone(members: int, subject: Subject) -> Measured:
    """Measure a call at whose return everybody has the message."""

    async def run() -> float:
        await subject()
        return time.process_time()

    return Measured(members, run)


async def interleaved(subjects: dict[str, Measured], rounds: int) -> None:
    """Measure all, in turns; the heap of the members is out of the collector's sight, which is between the rounds."""
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for subject in subjects.values():
            gc.collect()
            gc.disable()
            began_s = time.process_time()
            returned_s = await subject.run()
            subject.took_s.append(time.process_time() - began_s)
            subject.returned_s.append(returned_s - began_s)
            gc.enable()
            await asyncio.sleep(0.01)
    gc.unfreeze()


async def channels_crowd(number: int) -> tuple[Crowd, Subject]:
    """Make consumers of Channels in a group of its layer in memory."""
    from django.conf import settings

    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}
    settings.configure(CHANNEL_LAYERS={"default": layer})
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
        groups = (ROOM,)

        async def chat_message(self, event: Any) -> None:
            await self.send(text_data=event["text"])

    crowd = Crowd(Consumer.as_asgi())
    await crowd.come(number)
    group_send = get_channel_layer().group_send
    return crowd, lambda: group_send(ROOM, {"type": "chat.message", "text": TEXT})


async def socketio_crowd(number: int) -> tuple[Crowd, Subject]:
    """Make sessions of python-socketio in a room, over websockets."""
    from socketio import ASGIApp, AsyncServer

    server = AsyncServer(async_mode="asgi", logger=False, engineio_logger=False, ping_interval=3600)
    joined = 0

    async def connect(sid: str, environ: object) -> None:
        nonlocal joined
        await server.enter_room(sid, ROOM)
        joined += 1

    server.on("connect", connect)
    crowd = Crowd(ASGIApp(server), "/socket.io/?EIO=4&transport=websocket")
    await crowd.come(number, SOCKETIO_CONNECT)
    while joined < number:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # the answers to the connects go out
    return crowd, lambda: server.emit("message", {"type": "message", "text": "hello, everybody"}, room=ROOM)


async def broadcasts(hub: Hub, crowd: Crowd, rounds: int, table: Table) -> None:
    """Compare the ways of telling all."""
    number = len(crowd.protocols)
    sends = [one.send for one in crowd.protocols]
    channels, group_send = await channels_crowd(min(number, CHANNELS_MEMBERS))
    socketio, emit = await socketio_crowd(number)

    async def raw() -> None:
        for send in sends:
            await send(MESSAGE)

    subjects = {
        "raw sends in a loop": in_crowd(crowd, raw),
        "the hub": in_crowd(crowd, lambda: hub.send_to_room(ROOM, TEXT)),
        "asyncio.gather over raw sends": in_crowd(crowd, lambda: asyncio.gather(*(send(MESSAGE) for send in sends))),
        "Channels group_send": in_crowd(channels, group_send),
        "python-socketio emit": in_crowd(socketio, emit),
    }
    await interleaved(subjects, rounds)
    show(
        subjects,
        table,
        {"asyncio.gather over raw sends": 3.0, "Channels group_send": 10.0, "python-socketio emit": 3.0},
    )
    best = subjects["asyncio.gather over raw sends"].each_s / subjects["raw sends in a loop"].each_s
    table.add_row("  gather over the raw loop: no hub can be faster by more", "", "", f"{best:.2f}", "")
    await channels.go()
    await socketio.go()


async def prices(number: int, rounds: int, table: Table) -> None:
    """Compare what is left without a server."""
    hub, guarded_sends = Hub(), list[Callable[[Any], Awaitable[None]]]()
    nobody = Nobody(joining(hub, guarded_sends))
    await nobody.come(number)
    sends = nobody.sends

    async def raw() -> None:
        for send in sends:
            await send(MESSAGE)

    async def guarded() -> None:
        for send in guarded_sends:
            await send(MESSAGE)

    subjects = {
        "raw sends in a loop": alone(number, raw),
        "guarded sends in a loop": alone(number, guarded),
        "the hub": alone(number, lambda: hub.send_to_room(ROOM, TEXT)),
        "asyncio.gather over raw sends": alone(number, lambda: asyncio.gather(*(send(MESSAGE) for send in sends))),
    }
    await interleaved(subjects, rounds)
    show(subjects, table, {"asyncio.gather over raw sends": 3.0}, raw_budget=None)
    await nobody.go()


def show(
    subjects: dict[str, Measured], table: Table, budgets: dict[str, float], raw_budget: float | None = 2.0
) -> None:
    """Add a row for each subject: what it costs in hubs; for the loops, what the hub costs in them."""
    hub_s = subjects["the hub"].each_s
    for name, subject in subjects.items():
        call = f"{subject.call_each_s * 1e6:.2f} µs"
        figures = (f"{name}, {subject.members:,} members", f"{subject.each_s * 1e6:.2f} µs", call)
        ratio = subject.each_s / hub_s
        if name in budgets:
            table.add_row(*figures, f"{ratio:.2f}", verdict(ratio, budgets[name], at_most=False))
        elif name == "the hub":
            table.add_row(*figures, "1", "")
        else:
            says = "" if raw_budget is None else verdict(1 / ratio, raw_budget)
            table.add_row(*figures, f"hub / this: {1 / ratio:.2f}", says)


class TimedTransport(NullTransport):
    """
    Notes when it was written to.

    Attributes:
        at_s: When the last bytes came, in seconds.
    """

    at_s = 0.0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.at_s = time.perf_counter()


async def stalled(hub: Hub, crowd: Crowd, rounds: int, table: Table) -> None:
    """Stall one in a hundred, and see what the others notice, by the wall clock."""
    for one in crowd.protocols:
        one.transport = TimedTransport(crowd.sink)
    slow = crowd.protocols[::100]
    asleep = {id(one) for one in slow}
    healthy = [one.transport for one in crowd.protocols if id(one) not in asleep]

    async def p99_s() -> float:
        gc.collect()
        gc.disable()
        began_s = time.perf_counter()
        await hub.send_to_room(ROOM, TEXT)
        gc.enable()
        took: list[float] = sorted(one.at_s - began_s for one in healthy)
        return took[len(took) * 99 // 100]

    gc.collect()
    gc.freeze()
    without, with_them = [], []
    for _ in range(rounds):
        without.append(await p99_s())
        for one in slow:
            one.writable.clear()
        with_them.append(await p99_s())  # the send stalls
        with_them.append(await p99_s())  # the message waits
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
    gc.unfreeze()
    ratio = median(with_them) / median(without)
    took = f"{median(with_them) * 1e3:.1f} ms"
    table.add_row("p99 of the others with 1 % stalled, over without", took, "", f"{ratio:.2f}", verdict(ratio, 1.2))
    waiting, each = hub.sums.waiting / len(slow), f"{grown / len(slow) / 1024:.1f} KiB"
    table.add_row("messages that wait for each stalled one", each, "", f"{waiting:.0f}", verdict(waiting, OUTBOX))
    for one in slow:
        one.writable.set()
    for one in crowd.protocols:
        one.transport = NullTransport(crowd.sink)
    await asyncio.sleep(0.05)


async def longest_block_s(work: Callable[[], Awaitable[object]]) -> float:
    """Give the longest time between two turns of the loop while something is done."""
    running, longest_s = asyncio.ensure_future(work()), 0.0
    while not running.done():
        before_s = time.process_time()
        await asyncio.sleep(0)
        longest_s = max(longest_s, time.process_time() - before_s)
    return longest_s


async def deaths(number: int, table: Table) -> None:
    """Let all members die at once, and look for the longest block of the loop until the last handler is done."""
    blocks_s = []
    for _ in range(DEATHS_RUNS):
        hub = Hub()
        crowd = Crowd(joining(hub))
        await crowd.come(number)
        for one in crowd.protocols:
            one.disconnected = True  # uvicorn raises in `send` from now on

        async def until_all_are_gone(hub: Hub = hub, crowd: Crowd = crowd) -> None:
            await hub.send_to_room(ROOM, TEXT)
            while crowd.live:  # noqa: ASYNC110
                await asyncio.sleep(0)

        gc.collect()
        gc.disable()
        blocks_s.append(await longest_block_s(until_all_are_gone))
        gc.enable()
        if hub.connections:
            raise RuntimeError(f"{hub.connections} dead members are left")
    longest_s = median(blocks_s)
    figure = f"{longest_s * 1e3:.1f} ms"
    name = f"longest block, all found dead at once, median of {DEATHS_RUNS}"
    table.add_row(name, figure, "", "", verdict(longest_s * 1e3, 5.0))


async def ends(number: int, table: Table) -> None:
    """Let all go in one turn of the loop, as a server does that loses them at once: what the hub adds to an end."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ENDS_ROUNDS):
        for with_hub in (True, False):
            nobody = Nobody(joining(Hub() if with_hub else None))
            await nobody.come(number // ENDS_ROUNDS)
            gc.collect()
            gc.disable()
            began_s = time.process_time()
            await nobody.go()
            took[with_hub].append((time.process_time() - began_s) / (number // ENDS_ROUNDS))
            gc.enable()
    added = f"{(median(took[True]) - median(took[False])) * 1e6:.1f} µs"
    ratio = median(took[True]) / median(took[False])
    table.add_row("what the hub adds to the end of a member", added, "", f"with / without: {ratio:.2f}", "")


async def main(number: int, rounds: int) -> None:
    """Print all."""
    logging.disable(logging.CRITICAL)
    table = Table(title=f"{number:,} members, {platform.python_implementation()} {platform.python_version()}")
    for heading in ("", "per member", "the call alone", "ratio to the hub", "budget"):
        table.add_column(heading)
    await prices(number, rounds, table)
    table.add_section()
    await deaths(number, table)
    await ends(number, table)
    table.add_section()
    hub = Hub(send_timeout_s=None, outbox_messages=OUTBOX)
    crowd = Crowd(joining(hub))
    await crowd.come(number)
    await stalled(hub, crowd, rounds, table)
    table.add_section()
    await broadcasts(hub, crowd, rounds, table)
    await crowd.go()
    console = Console(width=130)
    console.print("First with an empty coroutine in the place of the server, then with uvicorn on a null transport.")
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    asyncio.run(main(given.members, given.rounds))
