"""The contract of the backends: two or three hubs that are nodes of one cluster. A backend joins it by one row."""

from __future__ import annotations

import asyncio

import pytest
from clusters import CLUSTERS, Cluster
from hubs import peer
from interop.redis_server import RedisServer, redis_server  # noqa: F401 - a fixture

from asgi_ws_guard.hub import (
    BackendUnavailable,
    DeliveryReport,
    Encoded,
    Hub,
    MemoryBackend,
    Publication,
    Target,
)
from asgi_ws_guard.testing import run


@pytest.fixture(params=sorted(CLUSTERS))
def cluster(request: pytest.FixtureRequest, redis_server: RedisServer) -> Cluster:  # noqa: F811
    """Give each backend."""
    return CLUSTERS[request.param](redis_server)


def test_a_message_reaches_the_members_at_all_nodes(cluster: Cluster) -> None:
    """By room, user and to all; once each, and text stays text."""

    async def main() -> None:
        async with cluster.nodes(3) as (here, there, elsewhere):
            one, two = await peer(here, "a", user="ann"), await peer(there, "a", user="ann")
            three = await peer(elsewhere, "b", user="bob")
            await cluster.quiet()
            assert await here.send_to_room("a", "room") == DeliveryReport(sent=1, remote="published")
            assert await elsewhere.send_to_user("ann", b"user") == DeliveryReport(unknown=1, remote="published")
            assert await here.broadcast({"to": "all"}) == DeliveryReport(sent=1, remote="published")
            await cluster.quiet()
            assert sorted(map(str, one.got)) == sorted(map(str, ["room", b"user", '{"to":"all"}']))
            assert sorted(map(str, two.got)) == sorted(map(str, ["room", b"user", '{"to":"all"}']))
            assert three.got == ['{"to":"all"}']

    cluster.run(main)


def test_the_messages_of_one_node_keep_their_order(cluster: Cluster) -> None:
    """At every other node, however many there are."""

    async def main() -> None:
        async with cluster.nodes() as (here, there):
            one = await peer(there, "a")
            await cluster.quiet()
            for number in range(100):
                await here.send_to_room("a", str(number))
            assert await cluster.heard(one, *map(str, range(100)))

    cluster.run(main)


def test_a_sender_is_left_out_wherever_it_is(cluster: Cluster) -> None:
    """`exclude` travels with the message."""

    async def main() -> None:
        async with cluster.nodes() as (here, there):
            one, two = await peer(there, "a"), await peer(there, "a")
            await cluster.quiet()
            await here.send_to_room("a", "x", exclude=one.id)
            assert await cluster.heard(two, "x")
            assert one.got == []

    cluster.run(main)


def test_nothing_comes_to_a_node_whose_last_member_has_left(cluster: Cluster) -> None:
    """And it comes again with the next one; whoever leaves and joins at once has not left."""

    async def main() -> None:
        async with cluster.nodes() as (here, there):
            one = await peer(there, "a", user="ann")
            for _ in range(3):
                there.leave(one.id, "a")
                there.join(one.handle, "a")
            await cluster.quiet()
            await here.send_to_room("a", "1")
            await cluster.quiet()
            there.leave(one.id, "a")
            there.unbind_user(one.handle)
            await cluster.quiet()
            await here.send_to_room("a", "2")
            await here.send_to_user("ann", "3")
            await cluster.quiet()
            there.join(one.handle, "a")
            await cluster.quiet()
            await here.send_to_room("a", "4")
            assert await cluster.heard(one, "1", "4")

    cluster.run(main)


def test_presence_is_of_all_nodes(cluster: Cluster) -> None:
    """By connection; it ends with the connection, and with the node."""

    async def main() -> None:
        async with cluster.nodes(1) as (here,):
            pass
        async with cluster.nodes() as (here, there):
            one = await peer(here, user="ann")
            two, three = await peer(there, user="ann"), await peer(there, user="ann")
            await cluster.quiet()
            ann = await here.presence("ann")
            assert (ann.local, ann.remote, ann.is_complete) == (
                frozenset({one.id}),
                frozenset({two.id, three.id}),
                True,
            )
            await two.leave()
            there.bind_user(three.handle, "bob")
            await cluster.quiet()
            assert (await here.presence("ann")).remote == frozenset()
            assert (await here.presence("bob")).is_online
            await there.stop()
            await cluster.quiet()
            assert not (await here.presence("bob")).is_online

    cluster.run(main)


def test_a_node_that_is_closed_says_so(cluster: Cluster) -> None:
    """Its own members are still served; what does not go out is reported, and closing again is harmless."""

    async def main() -> None:
        before = asyncio.all_tasks()
        async with cluster.nodes() as (here, there):
            one, two = await peer(here, "a"), await peer(there, "a")
            await cluster.quiet()
            assert here.health().state == "up"
            await here.stop()
            await here.stop()
            assert here.health().state == "down"
            assert await here.send_to_room("a", "x") == DeliveryReport(sent=1, remote="unavailable")
            await there.send_to_room("a", "y")
            assert await cluster.heard(one, "x")
            assert two.got == ["y"]
            await there.stop()
            assert asyncio.all_tasks() == before | {one.task, two.task}

    cluster.run(main)


def test_a_backend_raises_what_a_hub_expects(cluster: Cluster) -> None:
    """`BackendUnavailable`, which is a `ConnectionError` too."""

    async def main() -> None:
        (backend,) = cluster.make(1)
        with pytest.raises(BackendUnavailable) as caught:
            await backend.publish(Publication(Target("room", "a"), Encoded("x", 1)))
        assert isinstance(caught.value, ConnectionError)

    cluster.run(main)


def test_a_hub_alone_needs_no_start_and_publishes_nothing() -> None:
    """The default."""

    async def main() -> None:
        hub = Hub()
        one = await peer(hub, "a")
        assert (await hub.send_to_room("a", "x")).remote == "none"
        assert one.got == ["x"]
        async with hub:
            assert hub.health().state == "up"

    run(main)


def test_a_backend_is_told_once_for_each_name() -> None:
    """With the first and the last member, and of each connection of a user."""
    told: list[tuple[str, str]] = []

    class Noting(MemoryBackend):
        def subscribe(self, target: Target) -> None:
            told.append(("subscribe", target.name))

        def unsubscribe(self, target: Target) -> None:
            told.append(("unsubscribe", target.name))

        def arrived(self, user: str, connection_id: str) -> None:
            told.append(("arrived", user))

        def departed(self, user: str, connection_id: str) -> None:
            told.append(("departed", user))

    async def main() -> None:
        hub = Hub(backend=Noting())
        one, two = await peer(hub, "a", "a", user="ann"), await peer(hub, "a", user="ann")
        await one.leave()
        await two.leave()

    run(main)
    joined = [("subscribe", "a"), ("subscribe", "ann"), ("arrived", "ann"), ("arrived", "ann")]
    assert told == [*joined, *[("departed", "ann")] * 2, ("unsubscribe", "ann"), ("unsubscribe", "a")]
