"""The hub: slices of time, and the order of each connection between all senders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

import pytest
from hubs import Peer, peer, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_ws_guard import LateSend, Leaked
from asgi_ws_guard.hub import DeliveryReport, Encoded, Hub, Target
from asgi_ws_guard.hub._fan import LARGE_BYTES, LOOK_EVERY
from asgi_ws_guard.hub._report import Tally
from asgi_ws_guard.hub._slices import LONG_SLICE_S, SHARE, SLICE_S, Slices
from asgi_ws_guard.hub._streams import Entry
from asgi_ws_guard.testing import run


class Work:
    """A clock that goes on by what each send takes."""

    def __init__(self, send_s: float) -> None:
        self.now_s = 0.0
        self.send_s = send_s

    def __call__(self) -> float:
        """Give the time."""
        return self.now_s

    def let(self, one: Peer) -> None:
        """Let each send of a peer take its time."""

        def worked(_: object) -> None:
            self.now_s += self.send_s

        one.server.fail_sends(worked)


def timed(hub: Hub, clock: Callable[[], float]) -> None:
    """Give a hub another clock."""
    hub._slices._clock = clock


async def members(hub: Hub, number: int, room: str = "a") -> list[Peer]:
    """Make members of a room."""
    return [await peer(hub, room) for _ in range(number)]


async def longest_s(clock: Work, work: asyncio.Task[Any]) -> float:
    """Give the longest time for which the loop did nothing but *work*."""
    longest = 0.0
    while not work.done():
        began_s = clock.now_s
        await asyncio.sleep(0)
        longest = max(longest, clock.now_s - began_s)
    return longest


@pytest.mark.parametrize("size", [1, LARGE_BYTES + 1])
def test_a_broadcast_holds_the_loop_for_a_slice_at_a_time(size: int) -> None:
    """A slice and one look's worth more; large messages are looked at one by one. All are reached."""

    async def main() -> None:
        hub, clock = Hub(), Work(0.0001)
        timed(hub, clock)
        for one in await members(hub, 100):
            clock.let(one)
        work = asyncio.create_task(hub.send_to_room("a", "x" * size))
        longest = await longest_s(clock, work)
        look = LOOK_EVERY if size == 1 else 1
        assert SLICE_S <= longest <= SLICE_S + look * clock.send_s + 1e-9
        assert work.result() == DeliveryReport(sent=100)

    run(main)


def test_many_senders_share_the_slice_of_a_turn() -> None:
    """Twenty broadcasts at once hold the loop for no longer than one."""

    async def main() -> None:
        hub, clock = Hub(), Work(0.0001)
        timed(hub, clock)
        for one in await members(hub, 20):
            clock.let(one)
        work = asyncio.ensure_future(asyncio.gather(*(hub.send_to_room("a", str(number)) for number in range(20))))
        longest = 0.0
        while not work.done():
            began_s = clock.now_s
            await asyncio.sleep(0)
            longest = max(longest, clock.now_s - began_s)
        assert longest <= SLICE_S + 20 * LOOK_EVERY * clock.send_s + 1e-9
        assert [report.sent for report in work.result()] == [20] * 20

    run(main)


def test_a_tight_loop_of_sends_lets_the_loop_go_round() -> None:
    """Also when no send ever suspends."""

    async def main() -> None:
        hub, clock = Hub(), Work(0.0001)
        timed(hub, clock)
        clock.let(await peer(hub, "a"))
        seen: list[int] = []
        for number in range(100):
            if number == 1:
                asyncio.get_running_loop().call_soon(seen.append, number)
            await hub.send_to_room("a", "x")
        assert seen == [1]

    run(main)


def test_an_outbox_that_empties_at_once_lets_the_loop_go_round() -> None:
    """What waited goes out in slices too."""

    async def main() -> None:
        hub, clock = Hub(send_timeout_s=None), Work(0.0001)
        timed(hub, clock)
        one = await peer(hub, "a")
        clock.let(one)
        one.server.stall_sends()
        for number in range(100):
            await hub.send_to_room("a", str(number))
        one.server.resume_sends()
        done = asyncio.create_task(turns(100))
        assert await longest_s(clock, done) <= SLICE_S + 2 * clock.send_s
        assert one.got == [str(number) for number in range(100)]

    run(main)


async def begun(hub: Hub, number: int = 100) -> tuple[list[Peer], asyncio.Task[DeliveryReport]]:
    """Begin a broadcast that is through with some of its members."""
    clock = Work(0.0001)
    timed(hub, clock)
    everybody = await members(hub, number)
    for one in everybody:
        clock.let(one)
    work = asyncio.create_task(hub.send_to_room("a", "first"))
    await asyncio.sleep(0)
    return everybody, work


def test_a_later_message_does_not_overtake_a_broadcast() -> None:
    """A message to one, to the user, to another room, to all: whoever has not got the first one gets it before."""

    async def main() -> None:
        hub = Hub()
        everybody, work = await begun(hub)
        later = [one for one in everybody if not one.got]
        assert 0 < len(later) < len(everybody)
        hub.bind_user(later[1].handle, "ann")
        hub.join(later[2].handle, "b")
        reports = await asyncio.gather(
            hub.send(later[0].id, "one"),
            hub.send_to_user("ann", "user"),
            hub.send_to_room("b", "room"),
            hub.broadcast("all"),
        )
        assert [report.sent for report in reports] == [1, 1, 1, 100]
        assert (await work).sent == 100
        expected = {later[0].id: ["one"], later[1].id: ["user"], later[2].id: ["room"]}
        assert all(one.got == ["first", *expected.get(one.id, []), "all"] for one in everybody)
        assert hub._fans._active == []

    run(main)


def test_who_hears_of_a_death_does_not_overtake_the_broadcast_that_found_it() -> None:
    """What ``on_leave`` starts runs between two slices: the others get the first message before its own."""

    async def on_leave(connection: object, room: str, reason: str) -> None:
        reports.append(await hub.send_to_room(room, "left"))

    hub, reports = Hub(on_leave=on_leave), list[DeliveryReport]()

    async def main() -> None:
        clock = Work(0.0001)
        timed(hub, clock)
        everybody = await members(hub, 100)
        for one in everybody[:-1]:
            clock.let(one)
        everybody[-1].server.fail_sends(OSError())  # the last one to join is the first to be sent to
        assert await hub.send_to_room("a", "first") == DeliveryReport(sent=99, dropped={"transport_lost": 1})
        await asyncio.sleep(1)
        assert reports == [DeliveryReport(sent=99)]
        assert all(one.got == ["first", "left"] for one in everybody[:-1])

    run(main)


@pytest.mark.parametrize("fault", ["full", "lost", "left", "left while sent to"])
def test_a_member_that_has_ended_gets_no_later_message(fault: str) -> None:
    """An earlier one finds the outbox full or the peer gone, or the client leaves: it is no late send to the guard."""

    async def main() -> None:
        hub = Hub(outbox_messages=1, overflow="close", send_timeout_s=None)
        one = await peer(hub, "a")
        channel: Any = hub._members.membership.value(one.id)
        if fault == "full":
            one.server.stall_sends()
            for text in ("under way", "waits"):
                channel.offer(Encoded(text, 5), Tally())
        elif fault == "lost":
            one.server.fail_sends(OSError())
        else:
            if fault != "left":
                one.server.stall_sends()
                channel.offer(Encoded("under way", 9), Tally())
            one.server.disconnect()
            await turns()
            one.server.resume_sends()
            await turns()
        tally, later = Tally(), 50
        channel.offer(Encoded("earlier", 7), tally)
        for _ in range(later):
            assert not channel.offer(Encoded("later", 5), tally)
        why, number = {
            "full": ("guard_closed", later),
            "lost": ("transport_lost", later + 1),
        }.get(fault, ("client_disconnected", later + 1))
        assert (tally.dropped[why], tally.queued) == (number, 0)
        assert len(one.recorder.of(LateSend) + one.recorder.of(Leaked)) == (fault == "lost")
        one.server.resume_sends()
        await turns()

    run(main)


def test_who_leaves_meanwhile_is_skipped_and_who_joins_is_not_reached() -> None:
    """By leaving the room, by ending, and by leaving and coming back; in another room one stays."""

    async def main() -> None:
        hub = Hub()
        everybody, work = await begun(hub)
        gone, left, back, stays = [one for one in everybody if not one.got][:4]
        hub.leave(left.id, "a")
        hub.leave(back.id, "a")
        hub.join(back.handle, "a")
        hub.join(stays.handle, "b")
        hub.leave(stays.id, "b")
        gone.server.disconnect()
        await turns(3)
        late = await peer(hub, "a")
        assert (await work) == DeliveryReport(sent=97)
        assert (gone.got, left.got, back.got, late.got, stays.got) == ([], [], [], [], ["first"])

    run(main)


def test_a_broadcast_whose_sender_is_cancelled_reaches_the_rest() -> None:
    """Quart cancels the handler of a client that left; nobody else is to miss its message for it."""

    async def main() -> None:
        hub = Hub()
        everybody, work = await begun(hub)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        await asyncio.sleep(1)
        assert all(one.got == ["first"] for one in everybody)
        assert not hub._work
        assert not hub._fans._active

    run(main)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_broadcast_that_is_cancelled_twice_is_counted_and_forgotten(steps: int) -> None:
    """As when a process cancels all of its tasks, also one that has not begun."""

    async def main() -> None:
        hub = Hub()
        everybody, work = await begun(hub, 200)
        work.cancel()
        while not work.done():
            await asyncio.sleep(0)
        rest = [task for task in hub._work if "_finish" in repr(task)]
        await turns(steps)
        assert [task.cancel() for task in rest] == [True]
        await turns()
        assert not hub._work
        assert not hub._fans._active
        got = sum(one.got == ["first"] for one in everybody)
        assert 0 < got < len(everybody)
        assert (hub.sums.sent, hub.sums.dropped) == (got, {"send_failed": len(everybody) - got})

    run(main)


def test_messages_of_a_stream_whose_sender_is_cancelled_reach_the_rest() -> None:
    """All that it had to give: who takes the one of another node may find a second one that waited for it."""

    async def main() -> None:
        hub, clock = Hub(position_secret="a secret of the tests"), Work(0.0001)
        hub.stream_rooms()
        timed(hub, clock)
        everybody = [await peer() for _ in range(100)]
        for one in everybody:
            await hub.resume(one.handle, Target("room", "a"))
            clock.let(one)
        live = hub._streaming._live[Target("room", "a")]
        begun = live.feed.cursor
        assert begun is not None
        messages = [Entry(begun.offset + number, Encoded(f'"data":{number}', 8)) for number in (1, 2)]
        work = asyncio.create_task(live.give(messages))
        await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        await asyncio.sleep(1)
        assert all([json.loads(text)["data"] for text in one.got[1:]] == [1, 2] for one in everybody)
        assert not hub._fans._active

    run(main)


def test_a_message_sent_while_one_is_sent_waits_behind_it() -> None:
    """An observer, or what stands around the guard, may send from within a send: it neither fails nor overtakes."""

    async def main() -> None:
        hub = Hub()
        one, other = await peer(hub, "a"), await peer(hub, "a")
        reports: list[DeliveryReport] = []

        def answer(message: MutableMapping[str, Any]) -> None:
            if message["text"] == "question":
                for text in ("answer", "and more"):
                    with pytest.raises(StopIteration) as report:
                        hub.send(one.id, text).send(None)
                    reports.append(report.value.value)

        one.server.fail_sends(answer)
        await hub.send_to_room("a", "question")
        await turns()
        assert reports == [DeliveryReport(queued=1)] * 2
        assert (one.got, other.got) == (["question", "answer", "and more"], ["question"])

    run(main)


def test_a_slice_begins_with_the_first_look_of_a_turn() -> None:
    """It is over by the clock, and begins anew when the loop has gone round."""

    async def main() -> None:
        clock = Work(0)
        slices = Slices(clock)
        assert not slices.is_over()
        clock.now_s = SLICE_S
        assert slices.is_over()
        await asyncio.sleep(0)
        assert not slices.is_over()

    run(main)


@pytest.mark.parametrize(
    ("others_s", "idle_s", "slice_s"),
    [
        (0.0, 0.0, SLICE_S),
        (SLICE_S / SHARE, 0.0, SLICE_S),
        (0.012, 0.0, 0.012 * SHARE),
        (0.012, 0.0119, 0.012 * SHARE),
        (0.012, 0.0121, SLICE_S),
        (1.0, 0.0, LONG_SLICE_S),
    ],
)
def test_a_busy_loop_gives_a_hub_its_share(others_s: float, idle_s: float, slice_s: float) -> None:
    """A quarter of what others took since the last turn, but not what lies idle times ago, nor the hub's own work."""

    async def main() -> None:
        clock = Work(0)
        slices = Slices(clock)
        assert not slices.is_over()
        clock.now_s += SLICE_S
        assert slices.is_over()
        clock.now_s += others_s
        await asyncio.sleep(0)
        clock.now_s += idle_s
        assert not slices.is_over()
        clock.now_s += slice_s - 1e-6
        assert not slices.is_over()
        clock.now_s += 2e-6
        assert slices.is_over()

    run(main)


def sent(hub: Hub, action: str, one: Peer, room: str, text: str) -> Coroutine[Any, Any, DeliveryReport]:
    """Send in one of the ways."""
    if action == "room":
        return hub.send_to_room(room, text)
    return hub.broadcast(text) if action == "all" else hub.send(one.id, text)


ACTIONS = ("join", "leave", "end", "room", "all", "one", "stall", "resume", "turn")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 4), st.sampled_from("ab")), max_size=60))
def test_whatever_happens_order_and_books_hold(actions: list[tuple[str, int, str]]) -> None:
    """Joins, leaves, ends, stalls and concurrent broadcasts in any order: each connection sees growing numbers."""

    async def main() -> None:
        hub, clock = Hub(outbox_messages=4, send_timeout_s=5.0), Work(SLICE_S / 3)
        timed(hub, clock)
        peers = [await peer(hub) for _ in range(5)]
        for one in peers:
            clock.let(one)
        sends: list[asyncio.Task[DeliveryReport]] = []
        for number, (action, index, room) in enumerate(actions):
            one = peers[index]
            if action in ("join", "leave"):
                getattr(hub, action)(one.handle, room)
            elif action == "end":
                one.server.disconnect()
            elif action in ("stall", "resume"):
                getattr(one.server, f"{action}_sends")()
            elif action == "turn":
                await asyncio.sleep(0)
            else:
                sends.append(asyncio.create_task(sent(hub, action, one, room, str(number))))
        await asyncio.gather(*sends)
        for one in peers:
            one.server.resume_sends()
            one.server.disconnect()
            await asyncio.wait([one.task])
            one.task.result()
        await asyncio.sleep(20)
        assert (hub.connections, hub.rooms(), hub._work, hub._fans._active) == (0, (), set(), [])
        assert (hub.sums.waiting, hub.sums.waiting_bytes) == (0, 0)
        reports = [send.result() for send in sends]
        forwarded = sum(len(one.got) for one in peers)
        assert forwarded <= sum(report.sent + report.queued for report in reports)
        assert sum(report.sent for report in reports) <= hub.sums.sent <= forwarded
        for one in peers:
            numbers = [int(text) for text in one.got]
            assert numbers == sorted(set(numbers))
            books = one.handle.books
            assert books.attempted == books.forwarded + books.failed + books.refused + books.dropped_total
            assert books.sent == len(one.got)

    run(main)
