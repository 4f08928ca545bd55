"""Streams: what a client missed comes once and in order, or it is told that it is gone; on every backend."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from clusters import CLUSTERS, Cluster
from hubs import Peer, peer
from hypothesis import given, settings
from hypothesis import strategies as st
from interop.redis_server import RedisServer, redis_server  # noqa: F401 - a fixture

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.hub import DeliveryReport, Encoded, Hub, MemoryBackend, Resumed, StreamId, Target
from asgi_ws_guard.hub._positions import Positions
from asgi_ws_guard.hub._protocol import request
from asgi_ws_guard.hub._publication import Publication
from asgi_ws_guard.hub._store import PAGE, MemoryStore
from asgi_ws_guard.hub._streams import RECENT, Entry, Feed, History, StreamOptions
from asgi_ws_guard.testing import run

SECRET = "a secret of the tests"
ROOM, USER = Target("room", "a"), Target("user", "ann")
OPTIONS: dict[str, Any] = {"position_secret": SECRET}


@pytest.fixture(params=sorted(CLUSTERS))
def cluster(request: pytest.FixtureRequest, redis_server: RedisServer) -> Cluster:  # noqa: F811
    """Give each backend, empty."""
    redis_server.flush()
    return CLUSTERS[request.param](redis_server)


def streams(*hubs: Hub, history_messages: int = 1000, redeliver_s: float = 1000.0) -> None:
    """Let all rooms and users have streams."""
    for hub in hubs:
        hub.stream_rooms(history_messages=history_messages)
        hub.stream_users(history_messages=history_messages, redeliver_s=redeliver_s)


def told(one: Peer) -> list[dict[str, Any]]:
    """Read what a client was sent."""
    return [json.loads(text) for text in one.got]


def kinds(one: Peer) -> list[str]:
    """List the types of what it was sent, but messages."""
    return [message["type"] for message in told(one) if message["type"] != "message"]


def data(one: Peer) -> list[Any]:
    """List the messages that it was sent."""
    return [message["data"] for message in told(one) if message["type"] == "message"]


def position(one: Peer) -> str:
    """Give the last position that it was sent."""
    return str([message["position"] for message in told(one)][-1])


def test_who_comes_back_gets_what_it_missed(cluster: Cluster) -> None:
    """Once and in order, at another node, and then what is new."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as (here, there):
            streams(here, there)
            one = await peer()
            assert await here.resume(one.handle, ROOM) == Resumed("started")
            for number in range(3):
                assert await here.send_to_room("a", number) == DeliveryReport(sent=1, remote="published")
            await one.leave()
            for number in range(3, 6):
                assert await here.send_to_room("a", number) == DeliveryReport(unknown=1, remote="published")
            two = await peer()
            assert await there.resume(two.handle, ROOM, position(one)) == Resumed("resumed", 3)
            await there.send_to_room("a", 6)
            await here.send_to_room("a", 7)
            await cluster.quiet()
            assert (kinds(one), data(one)) == (["started"], [0, 1, 2])
            assert (kinds(two), data(two)) == (["resumed"], [3, 4, 5, 6, 7])
            assert [message["offset"] for message in told(two)[1:]] == [4, 5, 6, 7, 8]
            assert len({message["epoch"] for message in told(one)[1:] + told(two)[1:]}) == 1

    cluster.run(main)


def test_all_nodes_see_one_order(cluster: Cluster) -> None:
    """Three nodes send at once; every member gets everything, in the same order, from wherever it came."""

    async def main() -> None:
        async with cluster.nodes(3, **OPTIONS) as hubs:
            streams(*hubs)
            members = [await peer() for _ in hubs]
            for hub, one in zip(hubs, members, strict=True):
                await hub.resume(one.handle, ROOM)

            async def send(hub: Hub, name: int) -> None:
                for number in range(40):
                    await hub.send_to_room("a", [name, number])

            await asyncio.gather(*(send(hub, name) for name, hub in enumerate(hubs)))
            await cluster.quiet()
            first = data(members[0])
            assert len(first) == 120
            assert all(data(one) == first for one in members)
            for name in range(3):
                assert [number for sender, number in first if sender == name] == list(range(40))

    cluster.run(main)


def test_coming_in_the_middle_of_messages_misses_and_doubles_none(cluster: Cluster) -> None:
    """Clients come and go while the others send: what each got in all its lives is everything, once and in order."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as hubs:
            streams(*hubs)
            choose, over = random.Random(7), asyncio.Event()

            async def follow() -> list[Any]:
                got: list[Any] = []
                last: str | None = None
                while True:
                    is_last = over.is_set()
                    one = await peer()
                    found = await choose.choice(hubs).resume(one.handle, ROOM, last)
                    assert found.state == ("started" if last is None else "resumed")
                    await asyncio.sleep(choose.random() * 0.004)
                    await one.leave()
                    last = position(one)
                    got += data(one)
                    if is_last:
                        return got

            clients = [asyncio.create_task(follow()) for _ in range(3)]
            await asyncio.sleep(0.2)
            for number in range(300):
                await choose.choice(hubs).send_to_room("a", number)
                if number % 5 == 0:
                    await asyncio.sleep(0.001)
            over.set()
            for got in await asyncio.gather(*clients):
                assert got == list(range(got[0], 300))

    cluster.run(main)


def test_a_client_may_be_ahead_of_a_node(cluster: Cluster) -> None:
    """It has seen, elsewhere, what this node has not heard yet: it does not get it again."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as (here, there):
            streams(here, there)
            one, two, three = await peer(), await peer(), await peer()
            await here.resume(one.handle, ROOM)
            await there.resume(three.handle, ROOM)
            await cluster.quiet()
            await here.send_to_room("a", 0)  # in memory the other node has had no turn of the loop since
            assert await there.resume(two.handle, ROOM, position(one)) == Resumed("resumed")
            await here.send_to_room("a", 1)
            await cluster.quiet()
            assert (data(one), data(two), data(three)) == ([0, 1], [1], [0, 1])

    cluster.run(main)


def test_a_long_history_goes_through_a_small_outbox(cluster: Cluster) -> None:
    """More than a page of the store and than a node remembers."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS, outbox_messages=4) as (here, there):
            streams(here, there, history_messages=2 * RECENT + PAGE)
            one = await peer()
            await here.resume(one.handle, ROOM)
            begin = position(one)
            number = RECENT + PAGE + 10
            for start in range(0, number, 50):
                await asyncio.gather(*(here.send_to_room("a", one) for one in range(start, min(number, start + 50))))
            two, three = await peer(), await peer()
            assert await there.resume(two.handle, ROOM, begin) == Resumed("resumed", number)
            assert await here.resume(three.handle, ROOM, begin) == Resumed("resumed", number)
            assert data(one) == data(two) == data(three) == list(range(number))

    cluster.run(main)


def test_a_history_that_was_trimmed_is_gone(cluster: Cluster) -> None:
    """It goes on with what is new; what is still there of the old one is not sent in part."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub, history_messages=5)
            one = await peer()
            await hub.resume(one.handle, ROOM)
            start = position(one)
            for number in range(5):
                await hub.send_to_room("a", number)
            two = await peer()
            assert await hub.resume(two.handle, ROOM, start) == Resumed("resumed", 5)
            await hub.send_to_room("a", 5)
            three = await peer()
            assert await hub.resume(three.handle, ROOM, start) == Resumed("gone")
            await hub.send_to_room("a", 6)
            assert (kinds(three), data(three)) == (["gone"], [6])

    cluster.run(main)


def test_a_position_is_good_for_its_stream_alone(cluster: Cluster) -> None:
    """Forged, of another room or user, of another secret, or no position at all: gone, and nobody else's messages."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub)
            one = await peer()
            await hub.resume(one.handle, ROOM)
            await hub.send_to_room("b", "secret")
            await hub.send_to_room("a", "mine")
            good = position(one)
            spoilt = good[:-9] + ("A" if good[-9] != "A" else "B") + good[-8:]
            signer = Positions("another secret of the tests", 60).signer(ROOM)
            other = Positions("another secret of the tests", 60).sign(signer, StreamId(told(one)[1]["epoch"], 0))
            for wrong in (spoilt, other, "", "x", "é", 5, [good], {"position": good}, good * 20):
                two = await peer()
                assert await hub.resume(two.handle, ROOM, wrong) == Resumed("gone")
                assert data(two) == []
            for foreign in (Target("room", "b"), Target("user", "a")):
                three = await peer()
                assert (await hub.resume(three.handle, foreign, good)).state == "gone"
                assert data(three) == []
            four = await peer()
            assert await hub.resume(four.handle, ROOM, good) == Resumed("resumed")

    cluster.run(main)


def test_an_expired_position_is_gone() -> None:
    """By the age of its signature."""
    signer = Positions(SECRET, 10).signer(ROOM)
    text = Positions(SECRET, 10).sign(signer, StreamId("e", 5))
    assert Positions(SECRET, 10).read(signer, text) == StreamId("e", 5)
    assert Positions(SECRET, -1).read(signer, text) is None
    rotated = Positions([SECRET, "a newer secret of the tests"], 10)
    assert rotated.read(rotated.signer(ROOM), text) == StreamId("e", 5)


def test_a_history_expires(cluster: Cluster) -> None:
    """By the age of its messages: who missed nothing else is still told nothing."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            hub.stream_rooms(history_s=1.0)
            one = await peer()
            await hub.resume(one.handle, ROOM)
            start = position(one)
            await hub.send_to_room("a", 0)
            await asyncio.sleep(0.8)
            await hub.send_to_room("a", 1)
            await asyncio.sleep(0.3)
            two, three = await peer(), await peer()
            assert await hub.resume(two.handle, ROOM, start) == Resumed("gone")
            assert await hub.resume(three.handle, ROOM, told(one)[1]["position"]) == Resumed("resumed", 1)

    cluster.run(main)


def test_an_acknowledgement_of_another_epoch_means_nothing(cluster: Cluster) -> None:
    """Its offset is of messages that are not there any more."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub)
            one = await peer()
            await hub.resume(one.handle, USER)
            for number in range(3):
                await hub.send_to_user("ann", number)
            old = position(one)
            await one.leave()
            cluster.clear()
            for number in range(3):
                await hub.send_to_user("ann", number)
            await hub._streaming.acknowledge(USER, old)
            two = await peer()
            assert await hub.resume(two.handle, USER) == Resumed("started", 3)

    cluster.run(main)


def test_a_store_that_forgot_everything_begins_a_new_epoch(cluster: Cluster) -> None:
    """Live members are told that something is gone, and get what is new once; old positions are gone."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as (here, there):
            streams(here, there)
            one, two = await peer(), await peer()
            await here.resume(one.handle, ROOM)
            await there.resume(two.handle, ROOM)
            await here.send_to_room("a", 0)
            await cluster.quiet()
            old = position(one)
            cluster.clear()
            for number in (1, 2, 3):
                await here.send_to_room("a", number)
                await cluster.quiet()
            assert kinds(one) == kinds(two) == ["started", "gone"]
            assert data(one) == data(two) == [0, 1, 2, 3]
            three = await peer()
            assert await there.resume(three.handle, ROOM, old) == Resumed("gone")

    cluster.run(main)


def test_messages_wait_for_a_user_until_they_are_acknowledged(cluster: Cluster) -> None:
    """Without a connection, at another node, and again for the next connection, until somebody acknowledges."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as (here, there):
            streams(here, there)
            for number in range(3):
                assert await here.send_to_user("ann", number) == DeliveryReport(unknown=1, remote="published")
            one = await peer()
            assert await there.resume(one.handle, USER) == Resumed("started", 3)
            assert there.users() == ("ann",)
            assert all(message["ack"] for message in told(one)[1:])
            await one.leave()
            two = await peer()
            assert await here.resume(two.handle, USER) == Resumed("started", 3)
            second = told(two)[2]
            ack = json.dumps({"hub": 1, "type": "ack", "stream": "user:ann", "position": second["position"]})
            assert await here.handle(two.handle, ack)
            three = await peer()
            assert await there.resume(three.handle, USER) == Resumed("started", 1)
            assert (data(two), data(three)) == ([0, 1, 2], [2])
            four = await peer()
            assert await there.resume(four.handle, USER, told(one)[1]["position"]) == Resumed("resumed", 1)

    cluster.run(main)


def test_the_outbox_of_a_user_is_bounded(cluster: Cluster) -> None:
    """Who comes too late is told so, and gets what is left."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub, history_messages=3)
            for number in range(5):
                await hub.send_to_user("ann", number)
            one = await peer()
            assert await hub.resume(one.handle, USER) == Resumed("gone", 3)
            assert (kinds(one), data(one)) == (["gone"], [2, 3, 4])

    cluster.run(main)


def test_what_is_not_acknowledged_is_sent_again(cluster: Cluster) -> None:
    """On the live connection, again and again, with the same offset; what is acknowledged is not."""

    async def main() -> None:
        async with cluster.nodes(**OPTIONS) as (here, there):
            streams(here, there, redeliver_s=0.1)
            one = await peer()
            await here.resume(one.handle, USER)
            for text in ("x", "y"):
                await there.send_to_user("ann", text)
            await cluster.quiet()
            first, second = [message for message in told(one) if message["type"] == "message"][:2]
            assert await here._streaming.acknowledge(USER, first["position"])
            await asyncio.sleep(0.15)
            before = [message["text"] for message in told(one)[1:]]
            await asyncio.sleep(0.5)
            after = [message["text"] for message in told(one)[1:]]
            assert after.count("x") == before.count("x")
            assert after.count("y") > before.count("y") >= 1
            assert await there._streaming.acknowledge(USER, second["position"])
            await asyncio.sleep(0.15)
            count = len(told(one))
            await asyncio.sleep(0.4)
            assert len(told(one)) == count

    cluster.run(main)


def subscriptions(hub: Hub) -> int:
    """Count the rooms and users that a backend has messages for."""
    backend: Any = hub._backend
    return len(backend._targets) if isinstance(backend, MemoryBackend) else len(backend._link._subscribed) - 1


def test_nothing_is_left_of_a_stream_without_members(cluster: Cluster) -> None:
    """No task and no subscription."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub, redeliver_s=0.1)
            before = asyncio.all_tasks()
            one = await peer()
            await hub.resume(one.handle, USER)
            await hub.resume(one.handle, ROOM)
            await one.leave()
            await cluster.quiet()
            assert hub._streaming._live == {}
            assert subscriptions(hub) == 0
            assert asyncio.all_tasks() == before
            two = await peer()
            await hub.resume(two.handle, USER)
        assert asyncio.all_tasks() <= before | {two.task}

    cluster.run(main)


def test_a_client_asks_by_the_protocol(cluster: Cluster) -> None:
    """It is let into what the application allows; the application's own messages are left to it."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS) as (hub,):
            streams(hub)
            one = await peer()

            async def ask(fields: dict[str, Any]) -> bool:
                return await hub.handle(one.handle, json.dumps(fields), allow=lambda target: target == ROOM)

            assert await ask({"hub": 1, "type": "resume", "stream": "room:b"})
            assert await hub.handle(one.handle, json.dumps({"hub": 1, "type": "resume", "stream": "room:a"}))
            assert await ask({"hub": 1, "type": "resume", "stream": "room:a"})
            assert await ask({"hub": 1, "type": "resume", "stream": "room:a"})
            assert await ask({"hub": 2, "type": "resume", "stream": "room:a"})
            assert not await ask({"type": "resume", "stream": "room:a"})
            assert not await hub.handle(one.handle, b"bytes")
            assert kinds(one) == ["refused", "refused", "started"]
            assert hub.rooms(one.handle) == ("a",)
            await hub.send_to_user("ann", "x")
            two = await peer()
            assert await hub.resume(two.handle, USER) == Resumed("started", 1)
            ack = {"hub": 1, "type": "ack", "stream": "user:ann", "position": position(two)}
            assert await ask(ack)  # of somebody who is not ann: nothing happens
            three = await peer()
            assert await hub.resume(three.handle, USER) == Resumed("started", 1)

    cluster.run(main)


def test_a_slow_client_is_closed_and_comes_back_without_a_gap() -> None:
    """A message of a stream is never dropped: the connection is, with 1013, and the next one gets the rest."""

    async def main() -> None:
        hub = Hub(position_secret=SECRET, outbox_messages=2)
        streams(hub)
        async with hub:
            one = await peer()
            await hub.resume(one.handle, ROOM)
            one.server.stall_sends()
            for number in range(5):
                await hub.send_to_room("a", number)
            assert not one.handle.is_open
            assert one.handle.close_code == 1013
            two = await peer()
            assert await hub.resume(two.handle, ROOM, position(one)) == Resumed("resumed", 5 - len(data(one)))
            assert data(one) + data(two) == list(range(5))

    run(main)


def test_a_client_that_takes_its_time_is_brought_level(cluster: Cluster) -> None:
    """A history is longer than the outbox: it waits for the client, and closes nobody."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS, outbox_messages=32) as (hub,):
            streams(hub)
            one, slow = await peer(), await peer()
            await hub.resume(one.handle, ROOM)
            for number in range(150):
                await hub.send_to_room("a", number)
            slow.server.stall_sends()
            coming = asyncio.create_task(hub.resume(slow.handle, ROOM, told(one)[0]["position"]))
            await asyncio.sleep(0.05)
            assert not coming.done()
            slow.server.resume_sends()
            assert await coming == Resumed("resumed", 150)
            assert data(slow) == list(range(150))
            assert slow.handle.is_open

    cluster.run(main)


def test_nothing_is_sent_again_to_who_is_behind(cluster: Cluster) -> None:
    """What waits for a connection has not been lost: redelivery alone must not fill its outbox."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS, outbox_messages=2) as (hub,):
            streams(hub, redeliver_s=0.02)
            one = await peer()
            await hub.resume(one.handle, USER)
            one.server.stall_sends()
            await hub.send_to_user("ann", "x")
            await asyncio.sleep(0.3)
            assert one.handle.is_open
            assert hub.sums.waiting == 0
            one.server.resume_sends()
            await asyncio.sleep(0.1)
            assert {message["text"] for message in told(one)[1:]} == {"x"}

    cluster.run(main)


def test_a_hub_alone_needs_no_start_for_its_streams() -> None:
    """Without other processes there is nothing to open; after a stop its members are still served."""

    async def main() -> None:
        hub = Hub(position_secret=SECRET)
        streams(hub)
        one = await peer()
        assert await hub.resume(one.handle, ROOM) == Resumed("started")
        assert await hub.send_to_room("a", 0) == DeliveryReport(sent=1)
        await hub.stop()
        assert await hub.send_to_room("a", 1) == DeliveryReport(sent=1)
        assert data(one) == [0, 1]

    run(main)


def test_a_history_that_goes_while_it_is_sent_is_gone(cluster: Cluster) -> None:
    """The store forgets everything in the middle: the client is told, and gets the new epoch alone."""

    async def main() -> None:
        async with cluster.nodes(1, **OPTIONS, outbox_messages=32) as (hub,):
            streams(hub)
            one, slow = await peer(), await peer()
            await hub.resume(one.handle, ROOM)
            for number in range(2 * RECENT):
                await hub.send_to_room("a", number)
            slow.server.stall_sends()
            coming = asyncio.create_task(hub.resume(slow.handle, ROOM, told(one)[0]["position"]))
            await asyncio.sleep(0.05)
            cluster.clear()
            slow.server.resume_sends()
            assert (await coming).state == "gone"
            await hub.send_to_room("a", -1)
            await cluster.quiet()
            await cluster.quiet()
            assert kinds(slow)[0] == "resumed"
            assert "gone" in kinds(slow)
            old = [message for message in told(slow) if message.get("data") not in (None, -1)]
            assert [message["data"] for message in old] == list(range(len(old)))
            assert len({message["epoch"] for message in old}) == 1
            assert data(slow)[-1] == data(one)[-1] == -1
            assert data(slow).count(-1) == data(one).count(-1) == 1

    cluster.run(main)


def test_wrong_uses_are_named() -> None:
    """With what is allowed."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="position_secret"):
            Hub().stream_rooms()
        for secret in ("short", b"short", 5, [], [SECRET, "short"]):
            with pytest.raises(ConfigurationError, match="secret") as caught:
                Hub(position_secret=secret)  # type: ignore[arg-type]
            assert "short" not in str(caught.value)
        hub = Hub(position_secret=SECRET, outbox_bytes=10_000)
        for wrong in (0, -1, True, 1.5, None):
            with pytest.raises(ConfigurationError, match="history_messages"):
                hub.stream_rooms(history_messages=wrong)  # type: ignore[arg-type]
        for wrong in (0, -1, True, None, float("inf")):
            with pytest.raises(ConfigurationError, match="history_s"):
                hub.stream_rooms(history_s=wrong)  # type: ignore[arg-type]
        hub.stream_rooms("a")
        one = await peer()
        with pytest.raises(ConfigurationError, match="resume"):
            hub.join(one.handle, "a")
        for target in (Target("room", "b"), USER, Target("all")):
            with pytest.raises(ConfigurationError, match="target"):
                await hub.resume(one.handle, target)
        with pytest.raises(ConfigurationError, match="exclude"):
            await hub.send_to_room("a", "x", exclude=one.id)
        with pytest.raises(ConfigurationError, match="key"):
            await hub.send_to_room("a", "x", key="k")
        with pytest.raises(ValueError, match="outbox_bytes"):
            await hub.send_to_room("a", "x" * 10_000)
        assert hub.join(one.handle, "b")
        await one.leave()
        assert await hub.resume(one.handle, Target("room", "a")) == Resumed("ended")

    run(main)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ('"é', {"text": '"é'}),
        ({"a": [1, None]}, {"data": {"a": [1, None]}}),
        (b"\x00\xff", {"base64": "AP8="}),
        (None, {"data": None}),
    ],
)
def test_a_message_keeps_its_kind(message: object, part: dict[str, object]) -> None:
    """Text, bytes and objects can be told apart."""

    async def main() -> None:
        hub = Hub(position_secret=SECRET)
        streams(hub)
        one = await peer()
        async with hub:
            await hub.resume(one.handle, ROOM)
            await hub.send_to_room("a", message)
        (got,) = told(one)[1:]
        known = {"hub": 1, "type": "message", "stream": "room:a", "offset": 1}
        assert got == {**known, **part, "epoch": got["epoch"], "position": got["position"]}

    run(main)


# --- sans-IO -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_a_feed_gives_each_message_once_and_in_order(draw: st.DataObject) -> None:
    """Whatever comes in whatever order and how often, with the store asked now and then."""
    last, first = draw.draw(st.integers(1, 30)), draw.draw(st.integers(0, 5))
    first = min(first, last)
    feed, got = Feed(), []
    entries = [Entry(offset, Encoded(str(offset), 1)) for offset in range(1, last + 1)]
    for offset in draw.draw(st.lists(st.integers(1, last), max_size=10)):
        assert feed.take(StreamId("e", offset), entries[offset - 1].message) == []
    got += feed.begin(StreamId("e", first))
    for offset in draw.draw(st.lists(st.integers(0, last), max_size=60)):
        if offset == 0:
            after = feed.cursor.offset if feed.cursor else 0
            size = draw.draw(st.integers(0, last))
            got += feed.absorb(History("e", last, 0, entries[after : after + size]))
        else:
            got += feed.take(StreamId("e", offset), entries[offset - 1].message)
        assert [entry.offset for entry in got] == list(range(first + 1, first + 1 + len(got)))
        assert feed.cursor == StreamId("e", first + len(got))
    got += feed.absorb(History("e", last, 0, entries[first + len(got) :]))
    assert got == entries[first:]
    assert not feed.lacks
    assert feed.after(first) == entries[first:]


def test_a_message_of_another_epoch_is_missing_something() -> None:
    """The store has to say what happened."""
    feed = Feed()
    feed.begin(StreamId("e", 3))
    assert feed.take(StreamId("f", 1), Encoded("x", 1)) == []
    assert feed.lacks
    assert [entry.offset for entry in feed.begin(StreamId("f", 0))] == [1]
    assert not feed.lacks


def test_the_store_in_memory_forgets_by_age() -> None:
    """Messages first, the epoch later, and streams that nobody writes to at last."""

    async def main() -> None:
        store, options = MemoryStore(), StreamOptions(10, 5.0)
        first = await store.append(Publication(ROOM, Encoded("x", 1)), options)
        await asyncio.sleep(4.9)
        assert len((await store.read(ROOM, 0, options)).entries) == 1
        await asyncio.sleep(0.2)
        known = await store.read(ROOM, 0, options)
        assert (known.epoch, known.last, known.entries) == (first.epoch, 1, [])
        assert not known.follows(0)
        assert known.follows(1)
        await asyncio.sleep(200_000)
        await store.append(Publication(USER, Encoded("x", 1)), options)
        assert list(store._streams) == [USER]
        assert (await store.read(ROOM, 0, options)).epoch != first.epoch

    run(main, at_most_s=1e6)


@given(st.text())
def test_no_text_of_a_client_raises(text: str) -> None:
    """It is the application's, or malformed."""
    assert request(text) is None
    assert request(json.dumps({"hub": 1, "type": "ack", "stream": text})) == "malformed"
    assert request('{"hub":1,"type":' + text) in (None, "malformed")
