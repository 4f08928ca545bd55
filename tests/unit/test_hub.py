"""The hub: membership, delivery, order, overflow, deadlines; on scripted servers, in virtual time."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from hubs import Peer, peer, turns

from asgi_ws_guard import (
    Allow,
    CloseStatus,
    ConfigurationError,
    ConnectionHandle,
    Drop,
    DropReason,
    Ended,
    LateSend,
    SendTimedOut,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.hub import DeliveryReport, Hub
from asgi_ws_guard.testing import ScriptedServer, run


def balanced(one: Peer) -> None:
    """Check the books (G13): what was attempted has one outcome each."""
    books = one.handle.books
    sent = [message for message in one.server.sent if message["type"] == "websocket.send"]
    assert books.sent == len(sent)
    assert books.attempted == books.forwarded + books.failed + books.refused + books.dropped_total


def test_a_message_reaches_its_room_its_user_and_all() -> None:
    """Each of the four ways reaches those it names, and nobody else; the report counts them."""

    async def main() -> None:
        hub = Hub()
        one, two = await peer(hub, "red", user="ann"), await peer(hub, "red", "blue", user="ann")
        three = await peer(hub, "blue", user="bob")
        assert await hub.send_to_room("red", "r") == DeliveryReport(sent=2)
        assert await hub.send_to_user("bob", b"u") == DeliveryReport(sent=1)
        assert await hub.broadcast({"a": ["é", 1]}) == DeliveryReport(sent=3)
        assert await hub.send(three.id, "c") == DeliveryReport(sent=1)
        assert await hub.send(one.scope, "s") == DeliveryReport(sent=1)
        everybody = '{"a":["é",1]}'
        assert (one.got, two.got, three.got) == (["r", everybody, "s"], ["r", everybody], [b"u", everybody, "c"])
        assert hub.rooms() == ("red", "blue")
        assert hub.rooms(two.handle) == ("red", "blue")
        assert hub.members("blue") == (two.id, three.id)
        assert hub.users() == ("ann", "bob")
        ann = await hub.presence("ann")
        assert ann.local == {one.id, two.id}
        assert ann.is_online
        assert not (await hub.presence("nobody")).is_online
        for each in (one, two, three):
            balanced(each)

    run(main)


def test_the_sender_can_be_left_out() -> None:
    """By id, by connection, or several at once."""

    async def main() -> None:
        hub = Hub()
        one, two, three = await peer(hub, "a"), await peer(hub, "a"), await peer(hub, "a")
        await hub.send_to_room("a", "1", exclude=one.id)
        await hub.broadcast("2", exclude=[one.scope, two.handle])
        assert (one.got, two.got, three.got) == ([], ["1"], ["1", "2"])
        report = await hub.send_to_room("a", "3", exclude={one.id, two.id, three.id})
        assert report == DeliveryReport()  # the room is known

    run(main)


def test_who_is_unknown_is_a_report() -> None:
    """No room, no user, no connection: a report that says so. Nobody at all to broadcast to is nobody unknown."""

    async def main() -> None:
        hub = Hub()
        unknown = DeliveryReport(unknown=1)
        assert await hub.send("0" * 16, "x") == unknown
        assert await hub.send_to_room("red", "x") == unknown
        assert await hub.send_to_user("ann", "x") == unknown
        assert await hub.broadcast("x") == DeliveryReport()
        assert hub.members("red") == ()
        assert not hub.leave("0" * 16, "red")

    run(main)


@pytest.mark.parametrize("ended_by", ["client", "application", "transport", "handler"])
def test_membership_ends_with_the_connection(ended_by: str) -> None:
    """Whoever ends it: at once, out of all rooms and its user, each told once."""
    told: list[tuple[ConnectionHandle, str, str]] = []

    async def main() -> None:
        hub = Hub(on_leave=lambda *what: told.append(what))
        one = await peer(hub, "red", "blue", user="ann")
        if ended_by == "client":
            one.server.disconnect()
        elif ended_by == "application":
            await one.send({"type": "websocket.close", "code": 4001})
        elif ended_by == "transport":
            one.server.fail_sends(OSError())
            report = await hub.send_to_room("red", "x")
            assert report == DeliveryReport(dropped={"transport_lost": 1})
        else:
            one.task.cancel()
        await turns()
        assert (hub.rooms(), hub.users(), hub.connections) == ((), (), 0)
        assert told == [(one.handle, "red", "ended"), (one.handle, "blue", "ended")]
        one.task.cancel()
        await asyncio.wait([one.task])
        assert len(told) == 2
        assert (await hub.send(one.id, "late")).unknown == 1
        assert one.recorder.of(LateSend) == [] or ended_by == "transport"
        balanced(one)

    run(main)


def test_a_member_is_gone_before_anybody_hears_of_its_end() -> None:
    """An observer that sends when it hears of an end finds nobody: it would be told of a late send of its own."""
    heard: list[int] = []

    async def main() -> None:
        hub = Hub(on_leave=lambda *_: heard.append(len(one.recorder.of(Ended))))
        one = await peer(hub, "a")
        await one.leave()
        assert len(one.recorder.of(Ended)) == 1

    run(main)
    assert heard == [0]


def test_a_refresh_registers_before_the_old_connection_is_cleaned_up() -> None:
    """The old one takes nothing of the new one with it, in whatever order they come and go."""

    async def main() -> None:
        hub = Hub()
        old = await peer(hub, "red", user="ann")
        new = await peer(hub, "red", user="ann")
        await old.leave()
        assert hub.members("red") == (new.id,)
        assert (await hub.presence("ann")).local == {new.id}
        assert await hub.send_to_user("ann", "still here") == DeliveryReport(sent=1)

    run(main)


def test_leaving_is_told_once_and_its_failure_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    """`on_leave` may be plain or asynchronous, and may raise: the rest goes on, and the failure is counted."""
    told: list[tuple[str, str]] = []

    async def on_leave(connection: ConnectionHandle, room: str, reason: str) -> None:
        await asyncio.sleep(1)
        told.append((room, reason))
        if room == "red":
            raise ValueError("mine")

    def on_leave_at_once(connection: ConnectionHandle, room: str, reason: str) -> None:
        told.append((room, reason))
        raise ValueError("mine")

    async def main(hub: Hub) -> None:
        one = await peer(hub, "red", "blue")
        assert hub.leave(one.scope, "red")
        assert not hub.leave(one.id, "red")
        await one.leave()
        await asyncio.sleep(2)
        assert told == [("red", "left"), ("blue", "ended")]

    for callback, failures in ((on_leave, 1), (on_leave_at_once, 2)):
        told.clear()
        hub = Hub(on_leave=callback)
        run(lambda hub=hub: main(hub))  # type: ignore[misc]
        assert hub.sums.leave_failures == failures
    assert [record.getMessage() for record in caplog.records] == ["on_leave of a hub raised"] * 3


def test_a_stalled_peer_costs_the_others_nothing() -> None:
    """Its messages wait in its outbox, in order; the others have theirs at once; nobody waits for anybody."""

    async def main() -> None:
        hub = Hub(send_timeout_s=None)
        slow, quick = await peer(hub, "a"), await peer(hub, "a")
        slow.server.stall_sends()
        for number in range(5):
            assert await hub.send_to_room("a", str(number)) == DeliveryReport(sent=1, queued=1)
        assert (slow.got, quick.got) == ([], list("01234"))
        assert (hub.sums.waiting, hub.sums.waiting_bytes) == (4, 4)
        slow.server.resume_sends()
        await turns()
        assert slow.got == list("01234")
        assert (hub.sums.waiting, hub.sums.waiting_bytes, hub.sums.sent) == (0, 0, 10)
        assert await hub.send_to_room("a", "5") == DeliveryReport(sent=2)
        await turns()
        assert not hub._work
        balanced(slow)

    run(main)


@pytest.mark.parametrize(
    ("overflow", "arrived"),
    [("drop_oldest", list("0345")), ("drop_newest", list("0123")), ("latest_by_key", list("0345"))],
)
def test_a_full_outbox_drops_and_counts(overflow: Any, arrived: list[str]) -> None:
    """Three may wait beside the one under way; what is dropped is in the report, the sums and the guard's books."""

    async def main() -> None:
        hub = Hub(outbox_messages=3, overflow=overflow, send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.stall_sends()
        reports = [await hub.send_to_room("a", str(number)) for number in range(6)]
        assert [report.dropped_total for report in reports] == [0, 0, 0, 0, 1, 1]
        queued = 0 if overflow == "drop_newest" else 1
        assert reports[-1] == DeliveryReport(queued=queued, dropped={"outbox_full": 1})
        one.server.resume_sends()
        await turns()
        assert one.got == arrived
        assert one.handle.books.dropped == {"outbox_full": 2} == hub.sums.dropped
        balanced(one)
        assert one.handle.books.attempted == 1 + 6

    run(main)


def test_the_latest_of_a_key_takes_the_place_of_the_one_before() -> None:
    """Full or not, and in its place: a key that changes all the time goes out all the same."""

    async def main() -> None:
        hub = Hub(overflow="latest_by_key", send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.stall_sends()
        for text, key in (("head", None), ("x1", "x"), ("y1", "y"), ("no key", None), ("x2", "x"), ("x3", "x")):
            report = await hub.send_to_room("a", text, key=key)
        assert report == DeliveryReport(queued=1, dropped={"superseded": 1})
        one.server.resume_sends()
        await turns()
        assert one.got == ["head", "x3", "y1", "no key"]
        assert one.handle.books.dropped == {"superseded": 2}
        balanced(one)

    run(main)


def test_a_full_outbox_closes_where_that_is_asked_for() -> None:
    """The connection ends as a slow consumer, with 1013; it leaves its rooms at once, all that waited is counted."""
    told: list[str] = []

    async def main() -> None:
        hub = Hub(outbox_bytes=2, overflow="close", on_leave=lambda _, room, __: told.append(room), send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.stall_sends()
        for text in "0123":
            report = await hub.send_to_room("a", text)
        assert report == DeliveryReport(dropped={"outbox_full": 1})
        assert (told, hub.connections) == (["a"], 0)
        ended = one.recorder.one(Ended)
        assert (ended.code, ended.status) == (1013, CloseStatus.SLOW_CONSUMER)
        one.server.resume_sends()
        await one.task
        assert one.got == ["0"]
        assert one.server.sent[-1] == {"type": "websocket.close", "code": 1013, "reason": "slow consumer"}
        assert one.handle.books.dropped == {"guard_closed": 2, "outbox_full": 1}
        assert hub.sums.closed == 1
        balanced(one)

    run(main)


def test_a_peer_that_takes_nothing_is_ended() -> None:
    """The deadline is for one message; the end is the guard's, as a slow consumer, and no task is left."""

    async def main() -> None:
        hub = Hub(send_timeout_s=3.0)
        one, two = await peer(hub, "a"), await peer(hub, "a")
        one.server.stall_sends()
        await hub.send_to_room("a", "1")
        await hub.send_to_room("a", "2")
        await asyncio.sleep(2.9)
        assert one.handle.is_open
        await asyncio.sleep(0.2)
        assert one.recorder.one(SendTimedOut).timeout_s == 3.0
        assert one.recorder.one(Ended).status is CloseStatus.SLOW_CONSUMER
        assert hub.members("a") == (two.id,)
        await one.task
        books = one.handle.books
        assert (books.failed, books.dropped) == (1, {"guard_closed": 1})
        assert (hub.sums.timed_out, hub.sums.waiting) == (1, 0)
        assert not hub._work

    run(main)


def test_a_close_that_is_stuck_is_given_up() -> None:
    """The server takes neither messages nor the close: ten seconds later no task of the hub is left."""

    async def main() -> None:
        hub = Hub(outbox_messages=1, overflow="close", send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.stall_sends()
        for text in "012":
            await hub.send_to_room("a", text)
        await turns()
        assert hub._work
        await asyncio.sleep(10.1)
        assert not hub._work
        await one.task

    run(main)


def test_what_waits_at_the_end_is_dropped_and_counted() -> None:
    """With what ended the connection as the reason; the send under way gets a moment, and is then given up."""

    async def main() -> None:
        hub = Hub(send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.stall_sends()
        for text in "0123":
            await hub.send_to_room("a", text)
        one.server.disconnect()
        await turns()
        assert one.handle.books.dropped == {"client_disconnected": 3}
        assert hub._work
        await asyncio.sleep(1.1)
        assert not hub._work
        assert one.handle.books.failed == 1
        assert hub.sums.dropped == {"client_disconnected": 3, "send_failed": 1}
        balanced(one)

    run(main)


def test_a_real_error_of_a_server_stays_with_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    """The sender hears of it in the report, the log once; the others get their message."""

    async def main() -> None:
        hub = Hub()
        one, two = await peer(hub, "a"), await peer(hub, "a")
        one.server.fail_sends(ZeroDivisionError("a bug"))
        for _ in range(2):
            assert await hub.send_to_room("a", "x") == DeliveryReport(sent=1, dropped={"send_failed": 1})
        assert one.handle.books.failed == 2
        assert one.handle.is_open
        assert two.got == ["x", "x"]
        balanced(one)

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["a send of a hub failed"]


def test_late_sends_that_raise_do_not_reach_the_sender() -> None:
    """``late_sends="raise"`` is for the connection's own handler; a hub reports a lost peer as ever."""

    async def main() -> None:
        hub = Hub()
        one = await peer(hub, "a", late_sends="raise")
        one.server.fail_sends(OSError())
        assert await hub.send_to_room("a", "x") == DeliveryReport(dropped={"transport_lost": 1})
        assert hub.sums.dropped == {"transport_lost": 1}

    run(main)


def test_what_cannot_be_encoded_raises_before_anything_is_sent() -> None:
    """At the caller, for all ways of sending, and nobody gets anything."""

    async def main() -> None:
        hub = Hub()
        one = await peer(hub, "a", user="ann")
        for message, error in ((object(), TypeError), (float("nan"), ValueError), ("\ud800", UnicodeEncodeError)):
            for send in (hub.send, hub.send_to_room, hub.send_to_user):
                with pytest.raises(error):
                    await send("a", message)
            with pytest.raises(error):
                await hub.broadcast(message)
        with pytest.raises(TypeError, match="key must be a str"):
            await hub.broadcast("x", key=1)  # type: ignore[arg-type]
        assert one.got == []

    run(main)


def test_a_message_is_encoded_once() -> None:
    """However many members there are; each gets a message of its own, which others may change."""
    encoded: list[object] = []

    def encoder(value: object) -> str:
        encoded.append(value)
        return "encoded"

    async def main() -> None:
        hub = Hub(encoder=encoder)
        peers = [await peer(hub, "a") for _ in range(3)]
        await hub.send_to_room("a", {"x": 1})
        assert encoded == [{"x": 1}]
        assert len({id(one.server.sent[-1]) for one in peers}) == 3

    run(main)


@pytest.mark.parametrize("name", ["", "x" * 257, "é" * 129, "\ud800", 5, None, b"room", ("a",), ["a"]])
def test_a_name_is_checked(name: Any) -> None:
    """1 to 256 bytes of UTF-8: else one clear error, short however long the name is, wherever it is given."""

    async def main() -> None:
        hub = Hub()
        one = await peer(hub)
        with pytest.raises(ConfigurationError, match=r"^room=.*expected a str of 1 to 256 bytes of UTF-8$") as caught:
            hub.join(one.handle, name)
        assert len(str(caught.value)) < 150
        with pytest.raises(ConfigurationError, match=r"^user="):
            hub.bind_user(one.handle, name)
        with pytest.raises(ConfigurationError, match=r"^room="):
            await hub.send_to_room(name, "x")
        with pytest.raises(ConfigurationError, match=r"^user="):
            await hub.send_to_user(name, "x")
        assert (hub.rooms(), hub.users()) == ((), ())
        assert hub.join(one.handle, "é" * 128)

    run(main)


@pytest.mark.parametrize(
    "option",
    [
        *({"outbox_messages": wrong} for wrong in (0, -1, 1.5, True, None, "1")),
        *({"outbox_bytes": wrong} for wrong in (0, None)),
        *({"overflow": wrong} for wrong in ("drop", None, ["close"])),
        *({"send_timeout_s": wrong} for wrong in (0, -1, float("inf"), float("nan"), True, "1")),
        *({"encoder": wrong} for wrong in ("yaml", None, str)),
        {"on_leave": 5},
    ],
)
def test_a_wrong_option_is_named(option: dict[str, Any]) -> None:
    """When the hub is made, never later."""
    with pytest.raises(ConfigurationError, match=f"^{next(iter(option))}="):
        Hub(**option)


def test_a_connection_is_found_by_whatever_leads_to_it() -> None:
    """A handle, a scope, an object that holds a scope. What leads nowhere is said to, without showing the scope."""

    async def main() -> None:
        hub = Hub()
        one = await peer()
        for place in ("scope", "guard_scope", "_scope"):
            assert hub.join(SimpleNamespace(**{place: one.scope}), place)
        assert hub.members("scope") == hub.members("guard_scope") == hub.members("_scope") == (one.id,)
        with pytest.raises(TypeError, match=r"object leads to no ASGI scope: give current_connection"):
            hub.join(object(), "a")
        with pytest.raises(ConfigurationError, match="behind WebSocketGuardMiddleware") as caught:
            hub.join({"type": "websocket", "query_string": b"token=secret"}, "a")
        assert "secret" not in str(caught.value)

    run(main)


def test_who_has_not_been_accepted_or_has_ended_does_not_join() -> None:
    """The one is a mistake and raises; the other happens to everybody, and is an answer."""
    hub = Hub()
    answers: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ConfigurationError, match="accept first, then join"):
            hub.join(scope, "a")
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        answers.extend([hub.join(scope, "a"), hub.bind_user(scope, "ann"), hub.unbind_user(scope), hub.connections])

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(WebSocketGuardMiddleware(app, observers=()))

    run(main)
    assert answers == [False, False, False, 0]


def test_a_user_can_be_changed() -> None:
    """The last one counts; without a user the connection stays a member."""

    async def main() -> None:
        hub = Hub()
        one = await peer(hub, "a", user="ann")
        assert hub.bind_user(one.handle, "bob")
        assert hub.users() == ("bob",)
        assert hub.bind_user(one.handle, "bob")
        assert hub.unbind_user(one.handle)
        assert (hub.users(), hub.members("a")) == ((), (one.id,))

    run(main)


def test_the_guard_treats_a_send_of_the_hub_as_anybodys() -> None:
    """Also from the handler of a connection that has ended: no late send, no linger, and the others get it."""
    hub = Hub()
    reports: list[DeliveryReport] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        hub.join(scope, "a")
        await receive()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        for _ in range(5):
            reports.append(await hub.send_to_room("a", "x"))

    async def main() -> None:
        other = await peer(hub, "a")
        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=[other.recorder], linger_s=0.0)
        task = server.call(guard)
        await turns()
        server.disconnect()
        await task
        assert other.got == ["x"] * 5
        assert other.recorder.of(LateSend) == []

    run(main)
    assert reports == [DeliveryReport(sent=1)] * 5


def test_policies_and_observers_see_the_messages_of_a_hub() -> None:
    """They go the application's way: a policy that drops is asked, and the drop is the policy's in the books."""

    class NoX:
        def message(self, connection_id: str, direction: str, size: int) -> Any:
            return Drop() if direction == "sent" and size == 1 else Allow()

    async def main() -> None:
        hub = Hub()
        one = await peer(hub, "a", policies=[NoX()])
        await hub.send_to_room("a", "x")
        await hub.send_to_room("a", "xx")
        await turns()
        assert one.got == ["xx"]
        assert one.handle.books.dropped == {DropReason.POLICY.value: 1}

    run(main)


def test_a_hub_serves_one_event_loop() -> None:
    """With members on one loop, those of another are refused; an empty hub may move."""
    hub = Hub()

    async def join_and_stay() -> None:
        await peer(hub, "a")
        with pytest.raises(ConfigurationError, match="one hub for each loop"):
            await asyncio.to_thread(run, join)

    async def join() -> None:
        await peer(hub, "b")

    run(join)
    assert hub.connections == 0
    run(join_and_stay)


def test_a_send_runs_in_the_context_that_the_guard_was_called_in() -> None:
    """What stands around the guard finds its own variables there, and not those of whoever sends."""
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[str] = []

    async def main() -> None:
        variable.set("around the guard")
        hub = Hub(send_timeout_s=None)
        one = await peer(hub, "a")
        one.server.fail_sends(lambda message: seen.append(variable.get()))
        variable.set("the sender")
        await hub.send_to_room("a", "at once")
        one.server.stall_sends()
        await hub.send_to_room("a", "begun")
        await hub.send_to_room("a", "waits")
        one.server.resume_sends()
        await turns()
        assert one.got == ["at once", "begun", "waits"]

    run(main)
    assert seen == ["around the guard"] * 3
