"""One ticket, several processes, one real Redis: whoever comes first is let in, and nobody when Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_ws_guard import Deny, Identity
from asgi_ws_guard.plugins.auth import RedisNonces, Tickets

from .redis_server import RedisServer, redis_server, running_redis  # noqa: F401 - a fixture
from .servers import HOST, REPOSITORY
from .ticket_taker import HANDSHAKE

SECRET = "s3cr3t-0123456789"
TICKETS = 200
ROUNDS = 50  # on a loaded machine one process may be done before the other begins


class Taker:
    """A process that takes tickets."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.ticket_taker", url, SECRET],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def give(self, tickets: list[str]) -> None:
        """Let it take tickets, without waiting for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(tickets) + "\n")
        self._process.stdin.flush()

    def answers(self) -> list[str]:
        """Wait for what became of them."""
        found: list[str] = json.loads(self._line())
        return found

    def end(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def takers(url: str) -> Iterator[tuple[Taker, Taker]]:
    """Run two processes."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(2):
            found.append(Taker(url))
            stack.callback(found[-1].end)
        yield found[0], found[1]


def test_two_processes_that_take_the_same_tickets_let_each_in_once(redis_server: RedisServer) -> None:  # noqa: F811
    """At the same moment, until both have won some in one go; a later try is a replay in either."""
    with takers(redis_server.url) as (one, two):
        for _ in range(ROUNDS):
            tickets = [Tickets(SECRET).mint(f"user-{number}") for number in range(TICKETS)]
            one.give(tickets)
            two.give(tickets[::-1])
            first, second = one.answers(), two.answers()[::-1]
            assert [sorted(pair) for pair in zip(first, second, strict=True)] == [["in", "replayed"]] * TICKETS
            if "in" in first and "in" in second:
                break
        else:
            pytest.fail("one process was always faster: nothing has raced")
        one.give(tickets)
        assert one.answers() == ["replayed"] * TICKETS


def test_a_used_ticket_is_forgotten_when_it_could_not_be_used_again(redis_server: RedisServer) -> None:  # noqa: F811
    """Its key has a life: that of the ticket, and what clocks may be wrong by. The key holds no ticket."""
    redis_server.flush()
    ticket = Tickets(SECRET).mint("ann")

    async def main() -> Identity | Deny:
        store = RedisNonces(redis_server.url, prefix="p:")
        try:
            return await Tickets(SECRET, store=store).authenticate(ticket, HANDSHAKE)
        finally:
            await store.aclose()

    assert isinstance(asyncio.run(main()), Identity)
    key = redis_server.ask("KEYS", "*").splitlines()[-1]
    assert key.startswith("p:")
    assert key.removeprefix("p:") not in ticket
    assert 60_000 < int(redis_server.ask("PTTL", key).removeprefix(":")) <= 90_000


def test_without_redis_nobody_comes_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """503 while it is away, whether it never was or was killed; after it is back tickets are taken again."""

    async def main(redis: RedisServer) -> None:
        store = RedisNonces(redis.url)
        tickets = Tickets(SECRET, store=store)

        async def take() -> Identity | Deny:
            return await tickets.authenticate(tickets.mint("ann"), HANDSHAKE)

        assert isinstance(await take(), Identity)
        redis.kill()
        answer = await take()
        assert isinstance(answer, Deny)
        assert (answer.status, answer.reason) == (503, "storage_failed")
        redis.start()
        assert isinstance(await take(), Identity)
        redis.restart()
        assert isinstance(await take(), Identity)
        await store.aclose()

    with running_redis(tmp_path) as redis, caplog.at_level(logging.ERROR):
        asyncio.run(main(redis))
    assert "the storage of used tickets raised ConnectionError at" in caplog.text
    assert str(redis.port) not in caplog.text


def test_a_redis_that_does_not_answer_denies_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """One that takes the connection and says nothing costs `timeout_s`, twice: a handshake does not hang."""

    async def main(port: int) -> None:
        store = RedisNonces(f"redis://:s3cr3t-password@{HOST}:{port}", timeout_s=0.1)
        tickets = Tickets(SECRET, store=store)
        answer = await asyncio.wait_for(tickets.authenticate(tickets.mint("ann"), HANDSHAKE), 30)
        assert isinstance(answer, Deny)
        assert answer.reason == "storage_failed"
        await store.aclose()

    with socket.create_server((HOST, 0)) as silent:
        asyncio.run(main(silent.getsockname()[1]))
    assert "TimeoutError" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_several_event_loops_share_a_storage(redis_server: RedisServer) -> None:  # noqa: F811
    """Each loop has its own connections: redis-py's belong to one."""
    store = RedisNonces(redis_server.url)
    tickets = Tickets(SECRET, store=store)
    ticket = tickets.mint("ann")

    async def take() -> Identity | Deny:
        try:
            return await tickets.authenticate(ticket, HANDSHAKE)
        finally:
            await store.aclose()

    answers = [asyncio.run(take()) for _ in range(3)]
    assert [isinstance(one, Identity) for one in answers] == [True, False, False]
