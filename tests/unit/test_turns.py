"""What comes for many connections together is spread over the turns of the event loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hubs import Peer, peer, turns

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._loops import AsyncioLoop
from asgi_ws_guard._receiving import DRAIN_S, IDLE_S
from asgi_ws_guard._turns import CALLS_AT_ONCE, Turns
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard._watch import LOOKS_AT_ONCE, TICK_S
from asgi_ws_guard.hub import DeliveryReport, Hub
from asgi_ws_guard.hub._fan import END_S, LOOK_EVERY
from asgi_ws_guard.hub._slices import SLICE_S
from asgi_ws_guard.testing import ScriptedServer, run


class PerTurn:
    """
    Counts what happens in each turn of the loop in which something does.

    Attributes:
        counts: How often, in order.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._is_turn_noted = False

    def note(self, *_: object) -> None:
        """Count."""
        if not self._is_turn_noted:
            self.counts.append(0)
            self._is_turn_noted = True
            asyncio.get_running_loop().call_soon(self._turned)
        self.counts[-1] += 1

    def _turned(self) -> None:
        self._is_turn_noted = False


def test_calls_that_come_together_are_spread_in_order() -> None:
    """As many at once as one turn has room for, the others in the next ones; one that comes alone is not kept."""

    async def main() -> None:
        together, made = Turns(AsyncioLoop()), list[int]()
        number = 2 * CALLS_AT_ONCE + 3
        for index in range(number):
            together.call(lambda index=index: made.append(index))  # type: ignore[misc]
        seen = []
        for _ in range(4):
            seen.append(len(made))
            await asyncio.sleep(0)
        assert seen == [CALLS_AT_ONCE, 2 * CALLS_AT_ONCE, number, number]
        assert made == list(range(number))
        for index in range(3):
            together.call(lambda: made.append(number))
            assert len(made) == number + index + 1
            await asyncio.sleep(0)

    run(main)


def test_handlers_that_are_woken_together_are_not_woken_in_one_turn() -> None:
    """All peers are lost at once, and each handler waits in the server's own `receive`, which says nothing."""
    sends: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def main() -> None:
        number, done = 2 * CALLS_AT_ONCE + 3, list[int]()
        guard, tasks = WebSocketGuardMiddleware(app, observers=()), list[asyncio.Task[Any]]()
        for _ in range(number):
            server = ScriptedServer()
            server.connect()
            tasks.append(server.call(guard))
            server.fail_sends(lambda message: OSError() if message["type"] == "websocket.send" else None)
        await turns()
        loop = asyncio.get_running_loop()

        def look() -> None:
            done.append(sum(task.done() for task in tasks))
            if done[-1] < number:
                loop.call_soon(look)

        loop.call_later(DRAIN_S, look)
        for send in sends:
            await send({"type": "websocket.send", "text": "x"})
        await asyncio.wait(tasks)
        await turns()
        assert [after - before for before, after in pairwise([0, *done]) if after > before] == [
            CALLS_AT_ONCE,
            CALLS_AT_ONCE,
            3,
        ]

    run(main)


def test_the_watch_looks_at_some_at_a_time() -> None:
    """So many handlers stop to receive that to read ahead for all in one turn would hold up the loop."""
    over, per_turn = asyncio.Event(), PerTurn()

    class Noting(ScriptedServer):
        async def receive(self) -> Message:
            per_turn.note()
            return await super().receive()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await over.wait()

    async def main() -> None:
        number, guard = 2 * LOOKS_AT_ONCE + 3, WebSocketGuardMiddleware(app, observers=())
        tasks: list[asyncio.Task[Any]] = []
        for _ in range(number):
            server = Noting()
            server.connect()
            tasks.append(server.call(guard))
        await turns()
        watch = guard._watch()
        watch._look()
        watch._look()  # the one before is not over
        assert watch.looks == 1
        await turns()
        per_turn.counts.clear()
        await asyncio.sleep(IDLE_S + 3 * TICK_S)
        assert per_turn.counts == [LOOKS_AT_ONCE, LOOKS_AT_ONCE, 3]
        over.set()
        await asyncio.wait(tasks)

    run(main)


def test_a_broadcast_that_finds_many_dead_leaves_time_for_their_ends() -> None:
    """However quick it is itself: what the ends take of the next turn counts as its own."""

    async def main() -> None:
        hub, left = Hub(), list[int]()
        hub._slices._clock = lambda: 0.0
        peers: list[Peer] = [await peer(hub, "a") for _ in range(100)]
        for one in peers:
            one.server.fail_sends(OSError())
        work = asyncio.create_task(hub.send_to_room("a", "x"))
        while not work.done():
            left.append(hub.connections)
            await asyncio.sleep(0)
        assert work.result() == DeliveryReport(dropped={"transport_lost": 100})
        at_once = [before - after for before, after in zip(left, [*left[1:], 0], strict=True)]
        assert 0 < max(at_once) <= SLICE_S / END_S + LOOK_EVERY

    run(main)
