"""Those that were delayed go on one after the other when that is dear, and together when it is not."""

from __future__ import annotations

import asyncio
import itertools

from asgi_ws_guard import Allow, Delay, Handshake, WebSocketGuardMiddleware
from asgi_ws_guard._loops import AsyncioLoop
from asgi_ws_guard._pacing import AT_ONCE, DEAR_S, Pacer
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import ScriptedServer, VirtualTimeLoop, run


def _times(number: int, price_s: float) -> list[float]:
    """Let many go on whose read, two turns later, takes its time; give when each did, and when a thing beside could."""
    times: list[float] = []

    async def main() -> None:
        loop, pacer = asyncio.get_running_loop(), Pacer(AsyncioLoop())
        assert isinstance(loop, VirtualTimeLoop)

        def go_on() -> None:
            times.append(loop.time())
            loop.call_soon(loop.call_soon, loop.advance, price_s)

        for _ in range(number):
            pacer.let_go(go_on)
        await asyncio.sleep(100)
        assert len(times) == number
        pacer.let_go(go_on)
        assert len(times) == number + 1  # nobody else waits any more

    run(main)
    return times[:number]


def test_what_is_cheap_goes_on_at_the_same_time() -> None:
    """Nobody waits for a timer, but not all go on in one turn of the loop."""
    assert _times(50, 0.0) == [0.0] * 50
    turns: list[int] = []

    async def main() -> None:
        pacer, turn = Pacer(AsyncioLoop()), [0]
        for _ in range(5 * AT_ONCE):
            pacer.let_go(lambda: turns.append(turn[0]))
        while len(turns) < 5 * AT_ONCE:
            await asyncio.sleep(0)
            turn[0] += 1

    run(main)
    assert max(turns.count(one) for one in turns) == AT_ONCE


def test_what_is_dear_leaves_the_loop_to_others_for_as_long() -> None:
    """One at a time; between two of them the loop has had as much time for others as the first one took."""
    price_s = 5 * DEAR_S
    times = _times(30, price_s)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(pauses) > 2 * price_s - 1e-9
    assert max(pauses) < 2 * price_s + 1e-9


def test_what_was_dear_may_become_cheap_again() -> None:
    """After one that was dear ever more go on together again."""
    times: list[float] = []

    async def main() -> None:
        loop, pacer = asyncio.get_running_loop(), Pacer(AsyncioLoop())
        assert isinstance(loop, VirtualTimeLoop)
        prices = [1.0] + [0.0] * 20

        def go_on() -> None:
            times.append(loop.time())
            loop.call_soon(loop.advance, prices[len(times) - 1])

        for _ in prices:
            pacer.let_go(go_on)
        await asyncio.sleep(100)

    run(main)
    assert times == [0.0] + [2.0] * 20


class _Delaying:
    """A policy whose gate delays everything."""

    def admit(self, handshake: Handshake) -> Allow:
        return Allow(gate=lambda size: Delay(5.0))


def test_connections_that_were_delayed_together_do_not_go_on_together() -> None:
    """Where a server reads a lump whenever it is asked for more, all other tasks have their turns between the lumps."""
    price_s, got = 5 * DEAR_S, list[float]()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                got.append(loop.time())

        guard = WebSocketGuardMiddleware(app, observers=(), policies=(_Delaying(),))

        async def serve() -> None:
            server = ScriptedServer()

            async def receive() -> Message:
                if len(server.sent) and loop.time() > 1.0:
                    loop.advance(price_s)
                return await server.receive()

            server.connect()
            server.text("x")
            loop.call_later(50.0, server.disconnect)
            await guard(server.scope, receive, server.send)

        await asyncio.gather(*(serve() for _ in range(20)))

    run(main)
    assert len(got) == 20
    assert min(later - earlier for earlier, later in itertools.pairwise(sorted(got)[1:])) > price_s
