"""Attempts and messages that are counted in a real Redis, also when it is away or slow."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from asgi_ws_guard import Allow, Delay, Deny, Drop, Handshake, Identity
from asgi_ws_guard._plugin import Gate
from asgi_ws_guard.plugins.limits import Limits, Rate, _storage

from .redis_server import RedisServer, redis_server  # noqa: F401 - a fixture

T = TypeVar("T")

TIMEOUT_S = 0.2
HELD_UP_S = 1.5
SLACK_S = 1.0  # a loaded machine may hold a test up between two lines

ATTEMPTS = Rate(1, per_s=600, burst=6)
"""None comes back during a test: what is over is over."""


def handshake(client: str = "192.0.2.1", subject: str | None = None) -> Handshake:
    """Make a handshake."""
    identity = None if subject is None else Identity(subject)
    return Handshake("/", b"", (), (client, 1), None, "ws", "1.1", (), True, "1", identity)


def limits(server: RedisServer, **options: Any) -> Limits:
    """Make one of several processes' policies."""
    options = {"attempts_per_address": ATTEMPTS, "storage_timeout_s": TIMEOUT_S, **options}
    return Limits(storage=server.url, **options)


@pytest.fixture(autouse=True)
def _is_running(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Each test finds an empty storage, whatever the one before did to it, and need not wait long for a new try."""
    redis_server.restart()
    monkeypatch.setattr(_storage, "RETRY_S", 0.1)


def hold_up(server: RedisServer, seconds: float) -> None:
    """Let the storage answer nothing for a while, although its port is open."""
    assert server.ask("CLIENT", "PAUSE", str(int(seconds * 1000)), "ALL") == "+OK"


async def closing(policy: Limits, main: Coroutine[Any, Any, T]) -> T:
    """Run a test and close its sockets."""
    try:
        return await main
    finally:
        await policy.aclose()


async def ask(policy: Limits, shake: Handshake) -> Allow | Deny:
    """Ask about a handshake."""
    answer = policy.admit(shake)
    return answer if isinstance(answer, Allow | Deny) else await answer


async def admitted(policy: Limits, shake: Handshake, times: int) -> int:
    """Ask so many times, and count how often the client may come in."""
    return [type(await ask(policy, shake)) for _ in range(times)].count(Allow)


async def _alone(until_s: float) -> None:
    """Wait until cancelled tasks have closed their sockets, which takes some turns of the loop."""
    while (left := asyncio.all_tasks() - {asyncio.current_task()}) and time.monotonic() < until_s:
        await asyncio.sleep(0.01)
    assert not left


async def until_asked_again(policy: Limits) -> None:
    """Go on as clients do, each from another address, until the storage counts again."""
    failures, number = -1, 0
    deadline = time.monotonic() + 20
    while policy.storage_failures != failures:
        assert time.monotonic() < deadline, "the storage stays away"
        failures = policy.storage_failures
        await asyncio.sleep(0.05)
        number += 1
        await ask(policy, handshake(f"198.51.{number // 250}.{number % 250}"))


def test_policies_share_what_is_left(redis_server: RedisServer) -> None:  # noqa: F811
    """Two policies let one address in as often together as one alone; another address and identity is free."""
    first = limits(redis_server, attempts_per_identity=ATTEMPTS)
    second = limits(redis_server, attempts_per_identity=ATTEMPTS)

    async def main() -> None:
        assert await admitted(first, handshake(), 4) == 4
        assert await admitted(second, handshake(), 4) == 2
        answer = await ask(second, handshake())
        assert isinstance(answer, Deny)
        assert (answer.status, answer.reason) == (429, "attempts_per_address")
        assert (b"retry-after", b"600") in answer.headers
        assert await admitted(first, handshake("192.0.2.2", "ada"), 4) == 4
        assert await admitted(second, handshake("192.0.2.3", "ada"), 4) == 2
        assert first.storage_failures == second.storage_failures == 0
        await second.aclose()

    asyncio.run(closing(first, main()))


def together(program: str, server: RedisServer) -> int:
    """Run a program in two processes at the same moment, and add up what they print."""
    command = [sys.executable, "-c", program.replace("tests.interop", __name__.rpartition(".")[0]), server.url]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return sum(map(int, outputs))


COUNTER = """
import asyncio, sys
from tests.interop.test_limits_redis import ATTEMPTS, admitted, handshake
from asgi_ws_guard.plugins.limits import Limits
policy = Limits(attempts_per_address=ATTEMPTS, storage=sys.argv[1], storage_timeout_s=30)
print(asyncio.run(admitted(policy, handshake(), 20)))
"""


def test_processes_share_what_is_left(redis_server: RedisServer) -> None:  # noqa: F811
    """Processes at the same moment let one address in as often together as the limit says."""
    assert together(COUNTER, redis_server) == 6


def test_nothing_personal_is_stored(redis_server: RedisServer) -> None:  # noqa: F811
    """Neither an address nor a user is to be read in the storage, and what is there goes by itself."""
    import redis

    policy = limits(redis_server, attempts_per_identity=ATTEMPTS)
    assert isinstance(asyncio.run(closing(policy, ask(policy, handshake(subject="ada@example.org")))), Allow)
    with redis.Redis.from_url(redis_server.url) as client:
        keys = [key.decode() for key in client.keys("*")]
        assert len(keys) == 2
        assert not [key for key in keys if "192.0.2.1" in key or "ada" in key or "example" in key]
        assert all(0 < int(client.ttl(key)) <= 7200 for key in keys)


def test_a_storage_that_dies_fails_open(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    """Killed in the middle: this process goes on by its own buckets, in time; said once, and again when it is back."""
    policy = limits(redis_server)

    async def main() -> None:
        assert await admitted(policy, handshake(), 2) == 2
        redis_server.kill()
        started_s = time.monotonic()
        assert await admitted(policy, handshake(), 9) == 4  # the bucket of six has counted from the start
        assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S
        assert policy.storage_failures == 4
        redis_server.start()
        await until_asked_again(policy)

    with caplog.at_level(logging.WARNING, "asgi_ws_guard"):
        asyncio.run(closing(policy, main()))
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "the storage of limits is away",
        "the storage of limits is back",
    ]
    assert "fails open" in caplog.text


def test_a_storage_that_dies_fails_closed(redis_server: RedisServer) -> None:  # noqa: F811
    """By choice everybody is denied with 503 while it is away, and admitted when it is back."""
    policy = limits(redis_server, storage_away="fail_closed", attempts_per_address="1000/second")

    async def main() -> None:
        assert await admitted(policy, handshake(), 2) == 2
        redis_server.kill()
        answers = [await ask(policy, handshake()) for _ in range(3)]
        assert {(answer.status, answer.reason) for answer in answers if isinstance(answer, Deny)} == {
            (503, "storage_away")
        }
        assert [type(answer) for answer in answers] == [Deny] * 3
        redis_server.start()
        await until_asked_again(policy)
        assert await admitted(policy, handshake(), 1) == 1

    asyncio.run(closing(policy, main()))


@pytest.mark.parametrize(("away", "expected"), [("fail_open", Allow), ("fail_closed", Deny)])
def test_a_slow_storage_is_bounded(redis_server: RedisServer, away: str, expected: type) -> None:  # noqa: F811
    """One that does not answer costs one handshake the timeout, a hundred at once no more, the next ones nothing."""
    policy = limits(redis_server, storage_away=away, attempts_per_address="1000/second")

    async def main() -> None:
        assert await admitted(policy, handshake(), 1) == 1
        started_s = time.monotonic()
        hold_up(redis_server, HELD_UP_S)
        answers = await asyncio.gather(*(ask(policy, handshake()) for _ in range(100)))
        assert TIMEOUT_S * 0.9 < time.monotonic() - started_s < TIMEOUT_S + SLACK_S
        assert {type(answer) for answer in answers} == {expected}
        await _alone(started_s + HELD_UP_S)  # nothing waits for the storage
        assert policy.storage_failures == 100
        await until_asked_again(policy)
        assert await admitted(policy, handshake(), 1) == 1

    asyncio.run(closing(policy, main()))


def test_an_outage_costs_one_handshake_a_second(
    redis_server: RedisServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is away it is asked by one handshake once in a while; the others do not wait."""
    monkeypatch.setattr(_storage, "RETRY_S", 0.0)
    policy = limits(redis_server, attempts_per_address="1000/second")
    hold_up(redis_server, 60)

    async def main() -> None:
        for _ in range(2):  # the second time it is tried again, and is still away
            started_s = time.monotonic()
            assert await admitted(policy, handshake(), 1) == 1
            assert time.monotonic() - started_s > TIMEOUT_S * 0.9
        monkeypatch.setattr(_storage, "RETRY_S", 600.0)
        assert await admitted(policy, handshake(), 1) == 1
        started_s = time.monotonic()
        assert await admitted(policy, handshake(), 50) == 50
        assert time.monotonic() - started_s < TIMEOUT_S * 5

    asyncio.run(closing(policy, main()))


def test_each_loop_has_its_own_client(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    """A policy serves one event loop after another: sockets of a closed loop are not used again."""
    policy = limits(redis_server)
    with caplog.at_level(logging.WARNING, "asgi_ws_guard"):
        for _ in range(3):
            assert asyncio.run(closing(policy, admitted(policy, handshake(), 1))) == 1
    assert policy.storage_failures == 0
    assert not caplog.records


MESSAGES = Rate(1, per_s=600, burst=30, answer="drop")
"""As `ATTEMPTS`, for messages; a lease is three."""


async def gate_of(policy: Limits, connection_id: str = "1") -> Gate:
    """Let a connection of one identity in."""
    answer = policy.admit(replace(handshake(subject="ada"), connection_id=connection_id))
    assert isinstance(answer, Allow)
    assert answer.gate is not None
    return answer.gate


async def passed(gate: Gate, times: int) -> int:
    """Send so many messages as the guard lets them, and count those that pass."""
    number = 0
    for _ in range(times):
        answer = gate(1)
        while isinstance(answer, Delay):
            assert answer.then is not None
            await asyncio.sleep(answer.delay_s)
            answer = answer.then()
        number += isinstance(answer, Allow)
    return number


SENDER = """
import asyncio, sys
from tests.interop.test_limits_redis import MESSAGES, gate_of, passed
from asgi_ws_guard.plugins.limits import Limits

async def main():
    policy = Limits(messages_per_identity=MESSAGES, storage=sys.argv[1], storage_timeout_s=30)
    gates = [await gate_of(policy, str(number)) for number in range(3)]
    print(sum(await asyncio.gather(*(passed(gate, 20) for gate in gates))))
    await policy.aclose()

asyncio.run(main())
"""


def test_processes_share_a_rate_of_messages(redis_server: RedisServer) -> None:  # noqa: F811
    """Six connections of one identity in two processes, at the same moment: all that the rate allows, and no more."""
    assert 30 - 3 <= together(SENDER, redis_server) <= 30


@pytest.mark.parametrize("away", ["fail_open", "fail_closed"])
def test_a_storage_that_dies_between_messages(redis_server: RedisServer, away: str) -> None:  # noqa: F811
    """Killed in the middle: the bucket of this process goes on alone, or nothing passes but what was reserved."""
    policy = limits(redis_server, attempts_per_address=None, messages_per_identity=MESSAGES, storage_away=away)

    async def main() -> None:
        gate = await gate_of(policy)
        assert await passed(gate, 10) == 10
        await asyncio.sleep(TIMEOUT_S)  # no question is open
        redis_server.kill()
        started_s = time.monotonic()
        number = await passed(gate, 40)
        assert time.monotonic() - started_s < TIMEOUT_S + SLACK_S
        assert number == 20 if away == "fail_open" else number <= 3
        assert isinstance(gate(1), Drop)
        assert policy.storage_failures >= 1
        redis_server.start()
        other, deadline = await gate_of(policy, "2"), time.monotonic() + 20
        while away == "fail_closed" and not await passed(other, 1):
            assert time.monotonic() < deadline, "the storage stays away"
            await asyncio.sleep(0.05)
        policy.release("1")
        policy.release("2")

    asyncio.run(closing(policy, main()))


def test_a_slow_storage_holds_no_message_up(redis_server: RedisServer) -> None:  # noqa: F811
    """One that does not answer delays a message by the timeout at most; no task stays behind."""
    policy = limits(redis_server, attempts_per_address=None, messages_per_identity="1000/second")

    async def main() -> None:
        hold_up(redis_server, 2)
        gate = await gate_of(policy)
        started_s = time.monotonic()
        assert isinstance(gate(1), Delay)
        assert await passed(gate, 500) == 500
        assert TIMEOUT_S * 0.9 < time.monotonic() - started_s < TIMEOUT_S + SLACK_S
        policy.release("1")
        await policy.aclose()
        await asyncio.sleep(0.05)  # cancelled tasks end in the next turns
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(closing(policy, main()))
