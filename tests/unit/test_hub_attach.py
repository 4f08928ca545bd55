"""Repairing a hand-written manager: its collections give up a connection at its end."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import types
from collections import defaultdict, deque
from typing import Any, ClassVar

import pytest
from hubs import Peer, peer, turns

from asgi_ws_guard import CallSite, ConfigurationError, DropReason, LateSend
from asgi_ws_guard._handle import _current
from asgi_ws_guard.hub import attach
from asgi_ws_guard.hub._keeper import LOOK_AT
from asgi_ws_guard.testing import run


class Socket:
    """A framework's object: it holds a scope."""

    def __init__(self, one: Peer) -> None:
        self.scope = one.scope
        self.send = one.send


class Manager:
    """As everyone copies it."""

    shared: ClassVar[list[Socket]] = []

    def __init__(self) -> None:
        self.active: list[Socket] = []
        self.everybody: set[Socket] = set()
        self.by_user: dict[str, Socket] = {}
        self.names: dict[Socket, str] = {}
        self.rooms: dict[str, set[Socket]] = defaultdict(set)
        self.lists: dict[str, list[Socket]] = {}
        self.nested: dict[str, dict[str, Socket]] = {}
        self.count = 0

    def connect(self, socket: Socket) -> None:
        """Register everywhere."""
        self.active.append(socket)
        self.shared.append(socket)
        self.everybody.add(socket)
        self.by_user["ann"] = socket
        self.names[socket] = "ann"
        self.rooms["red"].add(socket)
        self.lists.setdefault("red", []).append(socket)
        self.nested.setdefault("red", {})["ann"] = socket
        self.count += 1

    def disconnect(self, socket: Socket) -> None:
        """Clean up, as loudly as it gets when something is not there."""
        self.active.remove(socket)
        self.shared.remove(socket)
        self.everybody.remove(socket)
        del self.by_user["ann"]
        self.names.pop(socket)
        self.rooms["red"].remove(socket)
        self.lists["red"].remove(socket)
        del self.nested["red"]["ann"]

    def held(self) -> list[Any]:
        """Give what every collection holds."""
        return [
            list(self.active),
            list(self.shared),
            list(self.everybody),
            list(self.by_user.values()),
            list(self.names),
            list(self.rooms["red"]),
            list(self.lists.get("red", [])),
            list(self.nested.get("red", {}).values()),
        ]


def test_a_connection_is_out_of_every_collection_at_its_end() -> None:
    """Lists, sets, values, keys, nested ones, and what the class shares; the manager's own clean-up stays quiet."""

    async def main() -> None:
        manager = Manager()
        attachment = attach(manager)
        socket = Socket(await peer())
        handle = socket.scope["asgi_ws_guard.connection"]
        manager.connect(socket)
        assert manager.held() == [[socket]] * 8
        handle._session.transport_lost()
        assert manager.held() == [[]] * 8
        manager.disconnect(socket)
        assert set(attachment.collections) == {*vars(manager), "shared"} - {"count"}
        assert set(attachment.dead().values()) == {0}
        with pytest.raises(KeyError):
            del manager.by_user["never there"]
        with pytest.raises(ValueError, match="not in list"):
            manager.active.remove(socket.send)  # type: ignore[arg-type]
        with pytest.raises(KeyError):
            manager.everybody.remove(socket.send)  # type: ignore[arg-type]
        assert type(manager) is not Manager
        assert isinstance(manager, Manager)

    Manager.shared = []
    run(main)


def test_what_was_there_before_is_watched_too() -> None:
    """`attach` may come late."""

    async def main() -> None:
        manager, one = Manager(), await peer()
        manager.connect(Socket(one))
        attach(manager)
        await one.leave()
        assert manager.held() == [[]] * 8

    Manager.shared = []
    run(main)


def test_a_refresh_keeps_the_new_connection() -> None:
    """Keyed by user, the new one registers first; neither the end nor the clean-up of the old one takes it away."""

    async def main() -> None:
        manager = Manager()
        attach(manager)
        old, new = Socket(await peer()), Socket(await peer())
        manager.by_user["ann"] = old
        manager.by_user["ann"] = new
        handle = old.scope["asgi_ws_guard.connection"]
        handle._session.transport_lost()
        assert manager.by_user == {"ann": new}

        async def cleanup() -> None:
            _current.set(handle)
            del manager.by_user["ann"]
            assert manager.by_user.pop("ann", None) is None

        await asyncio.create_task(cleanup())
        assert manager.by_user == {"ann": new}
        del manager.by_user["ann"]  # whoever is not the handler of an ended connection may
        assert manager.by_user == {}

    Manager.shared = []
    run(main)


def test_collections_may_change_while_somebody_iterates() -> None:
    """Each of the loops of a broadcast, with an end in the middle of it."""

    async def main() -> None:
        manager = Manager()
        attach(manager)
        peers = [await peer() for _ in range(10)]
        sockets = [Socket(one) for one in peers]
        for number, socket in enumerate(sockets):
            manager.connect(socket)
            manager.by_user[str(number)] = socket
        users, rooms = manager.by_user, manager.rooms
        loops: list[Any] = [manager.active, manager.everybody, users, users.values(), users.items(), users.keys()]
        loops += [rooms["red"], manager.lists["red"], manager.names]
        for loop, one in zip(loops, peers[:-1], strict=True):
            for index, _ in enumerate(loop):
                if index == 0:
                    one.handle._session.transport_lost()
                    await asyncio.sleep(0)
        assert manager.active == sockets[-1:]

    Manager.shared = []
    run(main)


def test_a_collection_that_is_assigned_later_is_watched() -> None:
    """``self.active = [one for one in self.active if ...]`` is how many remove."""

    async def main() -> None:
        manager, one, two = Manager(), await peer(), await peer()
        attach(manager)
        first, second = Socket(one), Socket(two)
        manager.active = [first, second]
        manager.rooms = {"red": {first}}
        manager.lists = {}
        manager.lists |= {"red": [first]}  # type: ignore[operator, unused-ignore]
        manager.active += [first]
        manager.active[1:1] = [first]
        manager.everybody |= {first}
        manager.everybody.update({first, second})
        manager.active.insert(0, first)
        manager.by_user.update(ann=first, bob=second)
        await one.leave()
        assert manager.active == [second]
        assert (manager.rooms, manager.lists) == ({"red": set()}, {"red": []})
        assert (manager.everybody, manager.by_user) == ({second}, {"bob": second})

    Manager.shared = []
    run(main)


def test_who_has_ended_is_not_taken_in() -> None:
    """A handler often registers after an await, in which its client may have left."""

    async def main() -> None:
        manager, one = Manager(), await peer()
        attach(manager)
        await one.leave()
        manager.connect(Socket(one))
        assert manager.held() == [[]] * 8

    Manager.shared = []
    run(main)


def test_the_collections_are_what_they_were() -> None:
    """For `isinstance`, equality, copies, JSON and pickle."""
    manager: Any = Manager()
    attach(manager)
    manager.lists["a"] = [1, 2]
    assert json.loads(json.dumps(manager.lists)) == {"a": [1, 2]}
    assert copy.deepcopy(manager.lists) == {"a": [1, 2]} == pickle.loads(pickle.dumps(manager.lists))
    assert isinstance(manager.rooms["new"], set)
    assert manager.rooms == {"new": set()}
    assert manager.rooms.keys() - {"new"} == set()
    assert pickle.loads(pickle.dumps(manager.rooms["new"])) == set()


def test_a_module_can_be_the_manager() -> None:
    """Its collections at the top are replaced in place."""

    async def main() -> None:
        module: Any = types.ModuleType("chat")
        module.connections = set()
        attachment = attach(module, collections=["connections"])
        one = await peer()
        module.connections.add(Socket(one))
        module.connections = {*module.connections}
        await one.leave()
        assert module.connections == set()
        assert attachment.dead() == {"chat.connections": 0}

    run(main)


def test_what_is_not_repaired_is_counted() -> None:
    """With ``repair=False``, and in collections for which there is no stand-in."""

    async def main() -> None:
        manager: Any = Manager()
        manager.queue = deque()
        watched, one = attach(manager, repair=False), await peer()
        manager.connect(Socket(one))
        manager.queue.append(Socket(one))
        assert set(watched.dead().values()) == {0}
        await one.leave()
        counted = watched.dead()
        assert counted["Manager.queue"] == counted["Manager.active"] == counted["Manager.nested"] == 1
        assert watched.collections == ()

    Manager.shared = []
    run(main)


def test_an_attachment_remembers_who_sends_late() -> None:
    """As an observer, by the line of the application."""
    attachment = attach(Manager())
    site = CallSite("chat.py", 7, "broadcast")
    for _ in range(2):
        attachment(LateSend("0" * 16, 1.0, "websocket.send", DropReason.APP_CLOSED, site))
    attachment(LateSend("0" * 16, 1.0, "websocket.send", DropReason.APP_CLOSED, None))
    assert attachment.late_sites == {site: 2}


def test_what_is_known_of_a_connection_does_not_grow() -> None:
    """Rooms come and go while it stays; it is in the last one only, and that is all that is known."""

    async def main() -> None:
        manager, one = Manager(), await peer()
        attach(manager)
        socket = Socket(one)
        for number in range(10 * LOOK_AT):
            manager.rooms[str(number)].add(socket)
            if number:
                manager.rooms.pop(str(number - 1)).discard(socket)
        keeper: Any = manager.rooms["last"].keeper  # type: ignore[attr-defined]
        assert len(keeper._held[one.id]) <= LOOK_AT
        await one.leave()
        assert not any(manager.rooms.values())

    Manager.shared = []
    run(main)


class Closed:
    """No class of it can be changed, but it has slots."""

    __slots__ = ("sockets",)

    def __init__(self) -> None:
        self.sockets: list[Socket] = []


def test_slots_are_attributes_too() -> None:
    """A manager without a dictionary is repaired as well."""

    async def main() -> None:
        manager, one = Closed(), await peer()
        attach(manager)
        manager.sockets = [Socket(one)]
        await one.leave()
        await turns()
        assert manager.sockets == []

    run(main)


@pytest.mark.parametrize("collections", ["active", ["nothing"], ["count"], [5], []])
def test_a_wrong_name_is_named(collections: Any) -> None:
    """There must be such a collection."""
    with pytest.raises(ConfigurationError):
        attach(Manager(), collections=collections)
