"""The backend on a real Redis that is killed, comes back, hangs, forgets, or says strange things."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hubs import Peer, peer
from interop.redis_server import RedisServer, redis_server  # noqa: F401 - a fixture

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.hub import DeliveryReport, Hub, Resumed, Target
from asgi_ws_guard.hub._metrics import instruments_of
from asgi_ws_guard.hub.redis import RedisBackend

TIMEOUT_S = 1.0
PATIENCE_S = 30.0
STREAM = Target("room", "a")


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:  # noqa: F811
    """Give a Redis that runs, whatever the test before did to it."""
    if not redis_server.is_ready():
        redis_server.restart()
    redis_server.flush()
    return redis_server


def node(redis: RedisServer, **options: Any) -> Hub:
    """Make a node that is impatient."""
    return Hub(backend=backend(redis, **options))


def backend(redis: RedisServer, **options: Any) -> RedisBackend:
    """Make its backend."""
    return RedisBackend(redis.url, **{"timeout_s": TIMEOUT_S, "presence_ttl_s": 3.0, "max_backoff_s": 0.2, **options})


@contextlib.asynccontextmanager
async def two(redis: RedisServer, **options: Any) -> AsyncIterator[tuple[Hub, Hub, Peer, Peer]]:
    """Run two nodes with a member each."""
    async with node(redis, **options) as here, node(redis, **options) as there:
        one, other = await peer(here, "a", user="ann"), await peer(there, "a", user="ann")
        await until(lambda: settled(here, there))
        yield here, there, one, other


def away() -> int:
    """Read the metric: hubs of this process that do not reach the others."""
    gc.collect()  # hubs of other tests, which are held weakly
    ((number, labels),) = instruments_of(None)._away()
    assert labels == {}
    return number


def no_way() -> None:
    """Fail to connect, as behind a broken network."""
    raise ConnectionError


async def settled(*hubs: Hub) -> bool:
    """Tell whether all have heard each other."""
    return all([await hub.ready() for hub in hubs])


async def until(is_so: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + PATIENCE_S
    while not await is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def until_state(hub: Hub, state: str) -> None:
    """Wait for a state of health."""

    async def is_so() -> bool:
        return hub.health().state == state

    await until(is_so)


def test_local_delivery_goes_on_without_redis(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Killed: said once, reported, degraded, presence incomplete; back: everything is there again by itself."""

    async def main() -> None:
        async with two(redis) as (here, there, one, other):
            redis.kill()
            await until_state(here, "degraded")
            await until_state(there, "degraded")
            assert away() == 2
            assert await here.send_to_room("a", "away") == DeliveryReport(sent=1, remote="unavailable")
            presence = await here.presence("ann")
            assert (presence.local, presence.is_complete) == (frozenset({one.id}), False)
            assert not await here.ready()
            joined = await peer(there, "b", user="bob")
            redis.start()
            await until(lambda: settled(here, there))
            assert await here.send_to_room("a", "back") == DeliveryReport(sent=1, remote="published")
            assert await here.send_to_room("b", "new") == DeliveryReport(unknown=1, remote="published")
            assert await settled(there)
            assert (one.got, other.got, joined.got) == (["away", "back"], ["back"], ["new"])
            assert (await here.presence("ann")).remote == {other.id}
            assert (await here.presence("bob")).remote == {joined.id}
            assert away() == 0

    with caplog.at_level(logging.WARNING, "asgi_ws_guard"):
        asyncio.run(main())
    assert sorted(caplog.messages) == [
        *["Redis is away (ConnectionError): the hub serves its own connections alone"] * 2,
        *["Redis is back"] * 2,
    ]


def test_a_hub_starts_without_redis(redis: RedisServer) -> None:
    """It is degraded, and not late."""

    async def main() -> None:
        redis.kill()
        async with node(redis) as hub:
            one = await peer(hub, "a")
            assert hub.health().state == "degraded"
            assert (await hub.send_to_room("a", "x")).remote == "unavailable"
            assert one.got == ["x"]
            redis.start()
            await until_state(hub, "up")

    asyncio.run(main())


def test_messages_wait_for_redis_within_a_bound(redis: RedisServer) -> None:
    """By option; in order, before what is published later."""

    async def main() -> None:
        async with node(redis, queue_messages=2) as here, node(redis) as there:
            other = await peer(there, "a")
            assert await settled(here, there)
            used = here._backend
            assert isinstance(used, RedisBackend)
            make, used._make = used._make, no_way
            redis.kill()
            await until_state(here, "degraded")
            remotes = [(await here.send_to_room("a", str(number))).remote for number in range(3)]
            assert remotes == ["queued", "queued", "unavailable"]
            redis.start()
            await until(lambda: settled(there))
            used._make = make
            await until(lambda: settled(here))
            assert (await here.send_to_room("a", "3")).remote == "published"
            assert await settled(there)
            assert other.got == ["0", "1", "3"]

    asyncio.run(main())


def test_a_node_that_was_cut_off_gets_what_it_missed_of_a_stream(redis: RedisServer) -> None:
    """As soon as it is back, although nobody sends anything more; and its own messages were refused meanwhile."""

    async def main() -> None:
        async with two_with_streams(redis) as (here, there):
            other = await peer()
            assert await there.resume(other.handle, STREAM) == Resumed("started")
            used = there._backend
            assert isinstance(used, RedisBackend)
            make, used._make = used._make, no_way
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until_state(there, "degraded")
            await until(lambda: settled(here))
            for number in range(3):
                assert (await here.send_to_room("a", number)).remote == "published"
            assert await there.send_to_room("a", "lost") == DeliveryReport(remote="unavailable")
            late = await peer()
            assert await there.resume(late.handle, STREAM) == Resumed("unavailable")
            assert json.loads(late.got[0]) == {"hub": 1, "type": "unavailable", "stream": "room:a"}
            used._make = make

            async def has_all() -> bool:
                return len(other.got) >= 4

            await until(has_all)
            assert await settled(there)
            assert [json.loads(text).get("data") for text in other.got] == [None, 0, 1, 2]

    asyncio.run(main())


def test_an_answer_that_was_lost_appends_nothing_twice(redis: RedisServer) -> None:
    """The connection goes between the script and its answer: the append is asked for again, and is known."""

    async def main() -> None:
        async with two_with_streams(redis) as (here, there):
            one = await peer()
            await there.resume(one.handle, STREAM)
            for number in range(20):
                sending = asyncio.create_task(here.send_to_room("a", number))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert (await sending).remote == "published"
            await until(lambda: settled(there))
            assert [json.loads(text)["data"] for text in one.got[1:]] == list(range(20))
            assert redis.ask("XLEN", "asgi_ws_guard:stream:room:a:messages") == ":20"

    asyncio.run(main())


@contextlib.asynccontextmanager
async def two_with_streams(redis: RedisServer) -> AsyncIterator[tuple[Hub, Hub]]:
    """Run two nodes whose rooms have streams."""
    hubs = [Hub(backend=backend(redis), position_secret="the secret of the tests") for _ in range(2)]
    for hub in hubs:
        hub.stream_rooms()
    async with hubs[0], hubs[1]:
        yield hubs[0], hubs[1]


def test_a_message_that_was_under_way_waits_as_well(redis: RedisServer) -> None:
    """Redis goes while it owes the answer: it is sent again, in its place, and comes once."""

    async def main() -> None:
        async with node(redis, queue_messages=10, timeout_s=30.0) as here, node(redis) as there:
            other = await peer(there, "a")
            assert await settled(here, there)
            used = here._backend
            assert isinstance(used, RedisBackend)
            make, used._make = used._make, no_way
            assert redis.ask("CLIENT", "PAUSE", "60000", "ALL") == "+OK"
            sending = [asyncio.create_task(here.send_to_room("a", str(number))) for number in range(3)]
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in sending)
            redis.kill()
            assert [(await one).remote for one in sending] == ["queued"] * 3
            redis.start()
            await until(lambda: settled(there))
            used._make = make
            await until(lambda: settled(here))
            assert await settled(there)
            assert other.got == ["0", "1", "2"]

    asyncio.run(main())


def test_a_redis_that_hangs_is_away(redis: RedisServer) -> None:
    """Its port is open, and it answers nothing: no publisher waits longer than the time it has."""

    async def main() -> None:
        async with two(redis) as (here, _, one, _other):
            assert redis.ask("CLIENT", "PAUSE", "4000", "ALL") == "+OK"
            assert await here.send_to_room("a", "x") == DeliveryReport(sent=1, remote="unavailable")
            assert here.health().state == "degraded"
            assert one.got == ["x"]
            await until_state(here, "up")

    asyncio.run(main())


def test_what_is_no_message_is_counted(redis: RedisServer) -> None:
    """Malformed, of another version, or a second time: ignored, and the next one comes."""

    async def main() -> None:
        async with node(redis, sharded=False) as hub:
            one = await peer(hub, "a")
            assert await settled(hub)
            head: dict[str, object] = {"v": 1, "n": "elsewhere", "s": 1, "k": "room", "t": "a", "b": 0}
            for text in ("", "x", "{}\n", '{"v":2}\n', f"{json.dumps(head)}\nhello", f"{json.dumps(head)}\nhello"):
                assert redis.ask("PUBLISH", "asgi_ws_guard:room:a", text) == ":1"
            assert await settled(hub)
            assert one.got == ["hello"]
            used = hub._backend
            assert isinstance(used, RedisBackend)
            assert used.ignored == {"malformed": 3, "foreign_version": 1, "repeated": 1}

    asyncio.run(main())


def test_presence_survives_a_flush(redis: RedisServer) -> None:
    """Redis forgets all keys while nobody notices: each node says again who is there."""

    async def main() -> None:
        async with two(redis) as (here, _there, _one, other):
            redis.flush()
            assert (await here.presence("ann")).remote == frozenset()

            async def is_back() -> bool:
                return (await here.presence("ann")).remote == {other.id}

            await until(is_back)

    asyncio.run(main())


def test_the_presence_of_a_dead_node_expires(redis: RedisServer) -> None:
    """A node that ends without a word is gone after its time, and what it wrote is swept away."""

    async def main() -> None:
        async with node(redis) as here, node(redis) as there:
            await peer(there, user="ann")
            assert await settled(here, there)
            assert (await here.presence("ann")).is_online
            used = there._backend
            assert isinstance(used, RedisBackend)
            assert used._task is not None
            used._task.cancel()  # as SIGKILL does: nobody takes leave

            async def is_gone() -> bool:
                return not (await here.presence("ann")).is_online

            await until(is_gone)
            assert await settled(here)
            assert redis.ask("EXISTS", "asgi_ws_guard:present:ann") == ":0"

    asyncio.run(main())


def test_a_sender_that_is_cancelled_costs_nobody_anything(redis: RedisServer) -> None:
    """While Redis hangs; the next one gets its own answer."""

    async def main() -> None:
        async with two(redis) as (here, there, _one, other):
            assert redis.ask("CLIENT", "PAUSE", "300", "ALL") == "+OK"
            sending = [asyncio.create_task(here.send_to_room("a", str(number))) for number in range(3)]
            await asyncio.sleep(0.05)
            sending[1].cancel()
            reports = await asyncio.gather(*sending, return_exceptions=True)
            assert isinstance(reports[1], asyncio.CancelledError)
            assert [reports[0], reports[2]] == [DeliveryReport(sent=1, remote="published")] * 2
            assert await settled(there)
            assert [one for one in other.got if one != "1"] == ["0", "2"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout_s", value) for value in (0, -1, True, "1", float("inf"), float("nan"))),
        ("presence_ttl_s", 0),
        ("max_backoff_s", None),
        *(("queue_messages", value) for value in (-1, 1.5, True, None)),
        *(("prefix", value) for value in ("", None, b"x")),
        *(("sharded", value) for value in (1, "yes")),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object) -> None:
    """With its value and what is allowed."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError, match=option):
        RedisBackend("redis://127.0.0.1", **options)


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1", "redis://:secret@127.0.0.1:port", None, 1, ""])
def test_a_wrong_url_is_named_without_its_password(url: Any) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(ConfigurationError, match="url") as caught:
        RedisBackend(url)
    assert "secret" not in str(caught.value)
