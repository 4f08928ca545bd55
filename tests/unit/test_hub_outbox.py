"""The outbox and membership of the hub, against models of a few lines, in any order of what can happen."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from asgi_ws_guard import DropReason
from asgi_ws_guard.hub._encoding import Encoded
from asgi_ws_guard.hub._membership import Membership
from asgi_ws_guard.hub._outbox import Outbox, Overflow, Put

FULL, SUPERSEDED = DropReason.OUTBOX_FULL, DropReason.SUPERSEDED


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest_by_key", "close"])
def test_what_is_kept_is_never_dropped(overflow: Overflow) -> None:
    """Others go before it; without room for it the connection has to be closed."""
    outbox = Outbox(2, 10, overflow)
    outbox.put(Encoded("a", 1))
    assert outbox.put(Encoded("b", 1, is_kept=True)) == (Put.QUEUED, [])
    assert outbox.put(Encoded("c", 1, is_kept=True)) == (Put.CLOSE, [FULL])
    if overflow in ("drop_oldest", "latest_by_key"):
        assert outbox.put(Encoded("d", 1)) == (Put.QUEUED, [FULL])
        assert [outbox.take(), outbox.take()] == [Encoded("b", 1, is_kept=True), Encoded("d", 1)]
        for text in "ef":
            outbox.put(Encoded(text, 1, is_kept=True))
        assert outbox.put(Encoded("g", 1)) == (Put.DROPPED, [FULL])
        assert (len(outbox), outbox.size) == (2, 2)


@pytest.mark.parametrize(("overflow", "put"), [("drop_oldest", Put.DROPPED), ("close", Put.CLOSE)])
def test_what_is_larger_than_the_outbox_pushes_nobody_out(overflow: Overflow, put: Put) -> None:
    """It is refused itself, by every policy."""
    outbox = Outbox(10, 3, overflow)
    outbox.put(Encoded("abc", 3))
    assert outbox.put(Encoded("abcd", 4)) == (put, [FULL])
    assert (len(outbox), outbox.size) == (1, 3)


def test_a_larger_one_of_the_same_key_pushes_out_the_others_and_not_itself() -> None:
    """It keeps its place, also the first one."""
    outbox = Outbox(10, 4, "latest_by_key")
    for text, key in (("k", "k"), ("a", None), ("b", None), ("c", None)):
        outbox.put(Encoded(text, 1, key))
    assert outbox.put(Encoded("kkk", 3, "k")) == (Put.QUEUED, [SUPERSEDED, FULL, FULL])
    assert [outbox.take(), outbox.take(), outbox.take()] == [Encoded("kkk", 3, "k"), Encoded("c", 1), None]
    assert outbox.size == 0


class OutboxMachine(RuleBasedStateMachine):
    """Puts and takes; the model is a list."""

    overflow: Overflow

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(4, 10, self.overflow)
        self.model: list[Encoded] = []
        self.put_in = self.dropped = self.taken = 0

    @rule(size=st.integers(0, 12), key=st.sampled_from([None, "a", "b"]))
    def put(self, size: int, key: str | None) -> None:
        """Put a message in."""
        message = Encoded("x" * size, size, key)
        put, dropped = self.outbox.put(message)
        self.put_in += 1
        self.dropped += len(dropped)
        if put is not Put.QUEUED:
            assert dropped == [FULL]
            return
        same = [one for one in self.model if key is not None and one.key == key and self.overflow == "latest_by_key"]
        if same:
            self.model[self.model.index(same[0])] = message
        else:
            self.model.append(message)
        while len(self.model) > 4 or sum(one.size for one in self.model) > 10:
            self.model.remove(next(one for one in self.model if one is not message))

    @rule()
    def take(self) -> None:
        """Take the next one out."""
        taken = self.outbox.take()
        self.taken += taken is not None
        assert taken == (self.model.pop(0) if self.model else None)

    @invariant()
    def every_message_has_one_fate(self) -> None:
        """It waits, was taken or was dropped; the bounds hold."""
        assert len(self.outbox) == len(self.model) <= 4
        assert self.outbox.size == sum(one.size for one in self.model) <= 10
        assert self.put_in == self.dropped + self.taken + len(self.outbox)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest_by_key", "close"])
def test_the_outbox_does_what_a_list_does(overflow: Overflow) -> None:
    """For each overflow policy."""

    class Machine(OutboxMachine):
        pass

    Machine.overflow = overflow
    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


class MembershipMachine(RuleBasedStateMachine):
    """Joins, leaves, users and ends; the model is two dictionaries by connection."""

    ids = st.sampled_from(["1", "2", "3"])
    names = st.sampled_from(["a", "b"])

    def __init__(self) -> None:
        super().__init__()
        self.membership: Membership[str] = Membership()
        self.rooms: dict[str, list[str]] = {}
        self.users: dict[str, str | None] = {}

    def known(self, connection_id: str) -> None:
        """Add a connection that is not known."""
        if connection_id not in self.membership:
            self.membership.add(connection_id, f"value {connection_id}")
            self.rooms[connection_id], self.users[connection_id] = [], None

    @rule(connection_id=ids, room=names)
    def join(self, connection_id: str, room: str) -> None:
        """Join a room."""
        self.known(connection_id)
        assert self.membership.join(connection_id, room) == (room not in self.rooms[connection_id])
        if room not in self.rooms[connection_id]:
            self.rooms[connection_id].append(room)

    @rule(connection_id=ids, room=names)
    def leave(self, connection_id: str, room: str) -> None:
        """Leave a room."""
        assert self.membership.leave(connection_id, room) == (room in self.rooms.get(connection_id, []))
        if room in self.rooms.get(connection_id, []):
            self.rooms[connection_id].remove(room)

    @rule(connection_id=ids, user=st.none() | names)
    def bind(self, connection_id: str, user: str | None) -> None:
        """Have another user."""
        self.known(connection_id)
        assert self.membership.bind(connection_id, user) == self.users[connection_id]
        self.users[connection_id] = user

    @rule(connection_id=ids)
    def remove(self, connection_id: str) -> None:
        """End."""
        expected = (tuple(self.rooms.pop(connection_id, [])), self.users.pop(connection_id, None))
        assert self.membership.remove(connection_id) == expected

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        """Also that nothing is empty, and that what is given out are copies."""
        membership = self.membership
        assert len(membership) == len(self.rooms)
        assert set(membership.room_names) == {room for rooms in self.rooms.values() for room in rooms}
        assert set(membership.user_names) == {user for user in self.users.values() if user}
        for name in ("a", "b"):
            in_room, of_user = membership.in_room(name), membership.of_user(name)
            assert in_room == {one: f"value {one}" for one, rooms in self.rooms.items() if name in rooms}
            assert of_user == {one: f"value {one}" for one, user in self.users.items() if user == name}
            in_room.clear()
            of_user.clear()
        assert membership.everybody() == {one: membership.value(one) for one in self.rooms}
        assert all(membership.rooms_of(one) == tuple(rooms) for one, rooms in self.rooms.items())


MembershipMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMembership = MembershipMachine.TestCase
