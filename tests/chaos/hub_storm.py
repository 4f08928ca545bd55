"""
A storm over three processes whose hubs share a Redis, and what has to be so after it; ``make chaos-hub``: a long one.

Clients follow a room's stream, and some a user's, through refreshes, resets and stalls; Redis is killed and comes back
with what it confirmed; one process is killed and another takes its place. In the end each client that is there must
have received every message of its streams since it came first, once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from interop.redis_server import RedisServer, running_redis
from interop.servers import UVICORN_SANSIO, Running, start
from interop.sites import IMPORT_ROOT, PACKAGE
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from asgi_ws_guard.hub.client import HubClient, Received

APP = f"{PACKAGE}.hub_cluster_app:app"
ROOM = "room:stream"
PROCESSES, CLIENTS, SENDERS = 3, 12, 3
PATIENCE_S = 40.0
GONE = (OSError, WebSocketException, asyncio.TimeoutError)


class Storm:
    """
    One run.

    Args:
        seed: Decides what happens to whom; what it meets is the machine's.
        seconds: How long it blows.
        redis: Keeps what it confirms.
        folder: For logs.

    Attributes:
        faults: What was not as it has to be.
    """

    def __init__(self, seed: int, seconds: float, redis: RedisServer, folder: Path) -> None:
        self.choose = random.Random(seed)
        self.seconds, self.redis, self.folder = seconds, redis, folder
        self.running: list[Running] = []
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.confirmed: dict[str, list[str]] = {}
        self.is_blowing = True

    def start_one(self) -> Running:
        """Start a process."""
        env = {"HUB_REDIS": self.redis.url}
        return start(UVICORN_SANSIO, APP, self.folder, env=env, python_path=[IMPORT_ROOT])

    async def run(self) -> None:
        """Blow, calm down, and judge."""
        self.running = list(await asyncio.gather(*(asyncio.to_thread(self.start_one) for _ in range(PROCESSES))))
        try:
            clients = [Client(self, number) for number in range(CLIENTS)]
            following = [asyncio.create_task(client.run()) for client in clients]
            await self.until(lambda: all(client.has_begun for client in clients), "clients have not begun")
            sending = [asyncio.create_task(self.send(number)) for number in range(SENDERS)]
            await self.mishaps()
            self.is_blowing = False
            await asyncio.gather(*sending)
            truth = {stream: await self.truth(stream) for stream in self.confirmed}
            await self.until(lambda: all(one.is_level(truth) for one in clients), "clients are not level")
            for client in clients:
                self.faults += client.faults(truth)
            for stream, names in self.confirmed.items():
                self.judge_senders(stream, names, truth)
            await self.judge_states(len(clients))
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await self.judge_states(0)
        finally:
            for running in self.running:
                running.stop()
                self.faults += [line for line in running.log.splitlines() if "Traceback" in line or "never" in line]

    async def mishaps(self) -> None:
        """Let Redis go and come, and a process be killed."""
        third_s = self.seconds / 3
        await asyncio.sleep(third_s)
        self.redis.kill()
        self.counts["redis"] += 1
        await asyncio.sleep(0.3)
        await asyncio.to_thread(self.redis.start)
        await asyncio.sleep(third_s)
        victim = self.running.pop(self.choose.randrange(PROCESSES))
        victim.process.kill()
        victim.stop()
        self.counts["killed"] += 1
        self.running.append(await asyncio.to_thread(self.start_one))
        await asyncio.sleep(third_s)

    def port(self) -> int:
        """Choose a process."""
        return self.choose.choice(self.running).port

    async def send(self, number: int) -> None:
        """Send messages that all differ, from whatever process, and remember those that were confirmed."""
        sent = 0
        while self.is_blowing:
            with contextlib.suppress(*GONE):
                async with connect(f"ws://127.0.0.1:{self.port()}/", proxy=None, compression=None) as socket:
                    for _ in range(self.choose.randrange(5, 60)):
                        stream = ROOM if self.choose.random() < 0.8 else f"user:u{self.choose.randrange(4)}"
                        sent += 1
                        name = f"{number}-{sent}"
                        await socket.send(json.dumps({"to": stream, "data": name}))
                        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
                        self.counts[answer["remote"]] += 1
                        if answer["remote"] == "published":
                            self.confirmed.setdefault(stream, []).append(name)
                        await asyncio.sleep(0.005)

    async def truth(self, stream: str) -> list[tuple[int, str]]:
        """Read what is in a stream: offset and message of each."""
        from redis.asyncio import Redis

        async with Redis.from_url(self.redis.url) as redis:
            entries: Any = await redis.xrange(f"asgi_ws_guard:stream:{stream}:messages")
        return [(int(key.partition(b"-")[0]), json.loads(b"{%b}" % fields[b"p"])["text"]) for key, fields in entries]

    def judge_senders(self, stream: str, names: list[str], truth: dict[str, list[tuple[int, str]]]) -> None:
        """What was confirmed is in the stream, and nothing is in it twice; one sender's messages keep their order."""
        kept = [name for _, name in truth[stream]]
        if len(kept) != len(set(kept)):
            self.faults.append(f"{stream}: a message is in it twice")
        if not set(names) <= set(kept):
            self.faults.append(f"{stream}: confirmed, and not there: {sorted(set(names) - set(kept))[:5]}")
        for sender in range(SENDERS):
            numbers = [int(one.partition("-")[2]) for one in kept if one.startswith(f"{sender}-")]
            if numbers != sorted(numbers):
                self.faults.append(f"{stream}: sender {sender} is out of order")

    async def judge_states(self, clients: int) -> None:
        """No member is dead, and no task is left."""
        states: list[dict[str, Any]] = []

        async def are_well() -> bool:
            states[:] = [await asyncio.to_thread(self.state, running) for running in self.running]
            number = sum(state["connections"] for state in states)
            is_idle = clients or not any(state["work"] or state["rooms"] or state["users"] for state in states)
            return number == clients and bool(is_idle) and all(state["health"] == "up" for state in states)

        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not await are_well():
            if asyncio.get_running_loop().time() > deadline:
                self.faults.append(f"{clients} clients, and the processes say {states}")
                return
            await asyncio.sleep(0.1)

    def state(self, running: Running) -> dict[str, Any]:
        """Ask a process."""
        with urllib.request.urlopen(f"{running.http_url}/state", timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    async def until(self, is_so: Any, fault: str) -> None:
        """Wait for something that has to come."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not is_so():
            if asyncio.get_running_loop().time() > deadline:
                self.faults.append(fault)
                return
            await asyncio.sleep(0.05)


class Client:
    """One client, with many connections one after the other."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.storm = storm
        self.streams = [ROOM] if number % 3 else [ROOM, f"user:u{number // 3}"]
        self.got: dict[str, list[tuple[int, str]]] = {stream: [] for stream in self.streams}
        self.begun: dict[str, str] = {}
        self.gone: list[str] = []
        self.state = HubClient(self.streams)

    @property
    def has_begun(self) -> bool:
        """Whether it is in all of its streams."""
        return set(self.begun) == set(self.streams)

    async def run(self) -> None:
        """Follow, for as long as it is not cancelled."""
        while True:
            with contextlib.suppress(*GONE):
                url = f"ws://127.0.0.1:{self.storm.port()}/"
                async with connect(url, proxy=None, compression=None, open_timeout=5, close_timeout=0.5) as socket:
                    await self.visit(socket)
            await asyncio.sleep(0.05)

    async def visit(self, socket: ClientConnection) -> None:
        """Be a page for a while, and go in one of the ways in which pages go."""
        choose, loop = self.storm.choose, asyncio.get_running_loop()
        for text in self.state.opening():
            await socket.send(text)
        until_s = loop.time() + choose.uniform(0.2, 2.0)
        while True:
            left_s = until_s - loop.time()
            if left_s <= 0:
                if self.storm.is_blowing and self.has_begun:
                    break
                until_s = loop.time() + 0.5
                continue
            with contextlib.suppress(asyncio.TimeoutError):
                found, answer, _ = self.state.receive(await asyncio.wait_for(socket.recv(), left_s))
                if found is not None and found.kind == "unavailable":
                    return
                self.take(found)
                if answer is not None and choose.random() < 0.8:  # else it is sent again
                    await socket.send(answer)
        how = choose.choice(["refresh", "reset", "stall"])
        self.storm.counts[how] += 1
        if how == "reset":
            socket.transport.abort()
        elif how == "stall":
            socket.transport.pause_reading()
            await asyncio.sleep(choose.uniform(0.2, 0.6))
            socket.transport.abort()

    def take(self, found: Received | None) -> None:
        """Note what is new."""
        if found is None:
            return
        if found.kind == "message":
            self.got[found.stream].append((found.offset, found.data))
        elif found.kind == "gone":
            self.gone.append(found.stream)
        self.begun.setdefault(found.stream, found.kind)

    def is_level(self, truth: dict[str, list[tuple[int, str]]]) -> bool:
        """Tell whether it has the last message of each stream."""
        return all(not truth[one] or (self.got[one] and self.got[one][-1] == truth[one][-1]) for one in self.streams)

    def faults(self, truth: dict[str, list[tuple[int, str]]]) -> list[str]:
        """List what it has missed, got twice or out of order."""
        found = [f"{stream}: told that it is gone" for stream in self.gone]
        for stream in self.streams:
            got = self.got[stream]
            wanted = [one for one in truth[stream] if got and one[0] >= got[0][0]]
            if got != wanted:
                extra, missing = Counter(got) - Counter(wanted), Counter(wanted) - Counter(got)
                found.append(f"{stream}: too much {list(extra)[:5]}, missing {list(missing)[:5]} of {len(wanted)}")
        return found


def storm(seed: int, seconds: float, folder: Path) -> Storm:
    """
    Run one storm.

    Args:
        seed: Of what happens.
        seconds: How long it blows.
        folder: For logs.
    """
    with running_redis(folder, keeps=True) as redis:
        made = Storm(seed, seconds, redis, folder)
        asyncio.run(made.run())
    return made


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description="Storm three processes that share a Redis.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = storm(options.seed, options.seconds, Path(folder))
    print(f"seed {options.seed}:", dict(made.counts))
    print("\n".join(made.faults) or "nothing was missed, doubled or left")
    return 1 if made.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
