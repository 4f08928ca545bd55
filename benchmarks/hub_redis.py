"""
What a message costs on its way from one process through Redis to a member in another, beside channels_redis.

Run it with ``PYTHONPATH=tests python -m benchmarks.hub_redis``: it starts a Redis of its own. Rounds of all subjects
are interleaved on the same Redis, and medians are compared. Messages per second are those of 32 senders at once; p99 is
of messages that are sent one after the other, from before the send to the member, by the clock of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from interop.redis_server import running_redis
from rich.console import Console
from rich.table import Table

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.hub import Hub, Target
from asgi_ws_guard.hub.redis import RedisBackend
from asgi_ws_guard.testing import ScriptedServer

from ._subjects import verdict

ROOM = "room"
SENDERS = 32
PACE_S = 0.002
Send = Callable[[str], Awaitable[object]]
Subject = Callable[[str], contextlib.AbstractAsyncContextManager[tuple[Send, Callable[[], Awaitable[str]]]]]


class Member(ScriptedServer):
    """A member of the room, whose server hands what it is sent to a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, message: Any) -> None:
        """Take a message."""
        if message["type"] == "websocket.send":
            self.heard.put_nowait(message["text"])


@contextlib.asynccontextmanager
async def hub(url: str, *, streams: bool = False) -> AsyncIterator[tuple[Send, Callable[[], Awaitable[str]]]]:
    """Give how a node sends, and how its member hears."""
    prefix = f"benchmark{streams}"  # Pub/Sub knows no numbers of databases
    node = Hub(backend=RedisBackend(url, timeout_s=30, prefix=prefix), position_secret="a secret of the benchmark")
    member, is_in = Member(), asyncio.Event()
    if streams:
        node.stream_rooms(history_messages=10_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if streams:
            await node.resume(scope, Target("room", ROOM))
            await member.heard.get()
        else:
            node.join(scope, ROOM)
        await node.ready()
        is_in.set()
        await receive()

    async with node:
        member.connect()
        serving = member.call(WebSocketGuardMiddleware(app, observers=()))
        await is_in.wait()

        async def hear() -> str:
            text = await member.heard.get()
            return str(json.loads(text)["text"]) if streams else text

        yield lambda text: node.send_to_room(ROOM, text), hear
        member.disconnect()
        await serving


@contextlib.asynccontextmanager
async def channels(layer: Any) -> AsyncIterator[tuple[Send, Callable[[], Awaitable[str]]]]:
    """Give how a channel layer sends to a group, and how a channel in it hears."""
    name = await layer.new_channel()
    await layer.group_add(ROOM, name)

    async def hear() -> str:
        return str((await layer.receive(name))["text"])

    yield lambda text: layer.group_send(ROOM, {"type": "chat.message", "text": text}), hear


def channels_pubsub(url: str) -> Any:
    """Make channels_redis on Pub/Sub."""
    from channels_redis.pubsub import RedisPubSubChannelLayer

    return channels(RedisPubSubChannelLayer(hosts=[url]))


def channels_core(url: str) -> Any:
    """Make channels_redis on lists, with room for everything."""
    from channels_redis.core import RedisChannelLayer

    return channels(RedisChannelLayer(hosts=[url], capacity=100_000))


SUBJECTS: dict[str, Subject] = {
    "hub": hub,
    "hub, stream": lambda url: hub(url, streams=True),
    "channels_redis, pubsub": channels_pubsub,
    "channels_redis, core": channels_core,
}


async def receive(name: str, url: str) -> None:
    """Be the other process: for each number that comes, hear as many, and say how long they took."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with SUBJECTS[name](url) as (_, hear):
        print("ready", flush=True)
        while line := await reader.readline():
            took_s = []
            for _ in range(int(line)):
                text = await hear()
                took_s.append(time.monotonic() - float(text.partition(" ")[0]))
            print(json.dumps({"took_s": took_s, "at_s": time.monotonic()}), flush=True)


class Pair:
    """A subject in this process, and its other process."""

    def __init__(self, send: Send, hear: Callable[[], Awaitable[str]], other: asyncio.subprocess.Process) -> None:
        self._send, self._hear, self._other = send, hear, other
        self.rates: list[float] = []
        self.p99s_s: list[float] = []

    async def round(self, number: int) -> None:
        """Measure once."""
        began_s = time.monotonic()
        numbers = iter(range(number))
        found = await self._measure(number, [self._many(numbers) for _ in range(SENDERS)])
        self.rates.append(number / (found["at_s"] - began_s))
        paced = await self._measure(number // 4, [self._one_by_one(number // 4)])
        self.p99s_s.append(quantiles(paced["took_s"], n=100)[98])

    async def _measure(self, number: int, sending: list[Any]) -> dict[str, Any]:
        assert self._other.stdin is not None
        assert self._other.stdout is not None
        self._other.stdin.write(f"{number}\n".encode())
        hearing = asyncio.create_task(self._drain(number))
        await asyncio.gather(*sending)
        found: dict[str, Any] = json.loads(await asyncio.wait_for(self._other.stdout.readline(), 60))
        await asyncio.wait_for(hearing, 60)
        return found

    async def _drain(self, number: int) -> None:
        for _ in range(number):
            await self._hear()

    async def _many(self, numbers: Any) -> None:
        for _ in numbers:
            await self._send(f"{time.monotonic()} hello, everybody")

    async def _one_by_one(self, number: int) -> None:
        for _ in range(number):
            await self._send(f"{time.monotonic()} hello, everybody")
            await asyncio.sleep(PACE_S)


async def end(other: asyncio.subprocess.Process) -> None:
    """End the other process."""
    other.kill()
    await other.communicate()


async def measure(url: str, number: int, rounds: int) -> dict[str, Pair]:
    """Run all subjects, in turn."""
    async with contextlib.AsyncExitStack() as stack:
        pairs = {}
        for place, (name, subject) in enumerate(SUBJECTS.items()):
            own = f"{url.rpartition('/')[0]}/{place}"
            command = (sys.executable, "-m", "benchmarks.hub_redis", "--receive", name, "--url", own)
            pipe = asyncio.subprocess.PIPE
            other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=2**24)
            stack.push_async_callback(end, other)
            assert other.stdout is not None
            assert await asyncio.wait_for(other.stdout.readline(), 60) == b"ready\n"
            send, hear = await stack.enter_async_context(subject(own))
            pairs[name] = Pair(send, hear, other)
        for _ in range(rounds):
            for pair in pairs.values():
                await pair.round(number)
        return pairs


def show(pairs: dict[str, Pair]) -> None:
    """Print medians, and the ratios to the better of the two others."""
    table = Table(title="One process to another, through one Redis")
    for heading in ("", "messages per second", "p99", "channels_redis over it", "budget"):
        table.add_column(heading)
    others = [pair for name, pair in pairs.items() if name.startswith("channels")]
    best, least_s = max(median(one.rates) for one in others), min(median(one.p99s_s) for one in others)
    for name, pair in pairs.items():
        rate, p99_s = median(pair.rates), median(pair.p99s_s)
        ratios = f"{best / rate:.2f} of the rate, {least_s / p99_s:.2f} times the p99"
        budget = verdict(best / rate, 1.0) if name == "hub" else ""
        table.add_row(name, f"{rate:,.0f}", f"{p99_s * 1e3:.2f} ms", ratios, budget)
    Console(width=120).print(table)


def main() -> None:
    """Measure, or be the other process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--receive", choices=sorted(SUBJECTS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        asyncio.run(receive(given.receive, given.url))
        return
    with tempfile.TemporaryDirectory() as folder, running_redis(Path(folder)) as server:
        show(asyncio.run(measure(server.url, given.messages, given.rounds)))


if __name__ == "__main__":
    main()
