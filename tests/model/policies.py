"""
Policies of every mood: they let in, deny, raise, and answer at once or later, as the story's draws say.

Each is asked through a spy (`spying.py`), which notes what it said. The last choice of each draw is the mild one, for
at the end of a story nothing else is drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_ws_guard import Handshake, Identity
from asgi_ws_guard._plugin import ALLOW, Allow, Close, Deadlines, Delay, Deny, Drop
from asgi_ws_guard.plugins.limits import Limits, Rate
from asgi_ws_guard.plugins.timeouts import Timeouts

from .actors import TELLS_APART
from .server import Bug

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")
CODES = (1008, 4400, 1009, 1005)


def drawn(world: World) -> list[Any]:
    """Draw the policies of a story: none, or one to three."""
    if world.draw(5) > 1:
        return []
    return [world.pick(_KINDS)(world) for _ in range(world.pick((1, 1, 2, 3)))]


class Moody:
    """Answers handshakes as it is drawn."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __repr__(self) -> str:
        return type(self).__name__

    def admit(self, handshake: Handshake) -> Any:
        """Answer, at once or later."""
        what, when = self.world.pick((0, 1, 2, 3, *[4] * 20)), self.world.pick((0.3, 2.0, 0.0, *[None] * 6))
        if when is None:
            return self._answer(what)
        return self._later(when, what)

    def release(self, connection_id: str) -> None:
        """Raise, now and then: all others are to hear of the end nevertheless."""
        if self.world.draw(8) == 0:
            raise Bug("release")

    async def _later(self, when: float, what: int) -> object:
        for _ in range(self.world.draw(3)):
            await asyncio.sleep(0)
        await asyncio.sleep(when)
        return self._answer(what)

    def _answer(self, what: int) -> object:
        if what == 0:
            raise Bug("admit")
        if what == 1 and TELLS_APART:
            raise asyncio.CancelledError
        if what == 2:
            return self.world.pick((None, Deny(200), Allow(gate=7)))  # type: ignore[arg-type]
        if what == 3:
            return Deny(self.world.pick((403, 429)), reason="moody")
        return self._allowed()

    def _allowed(self) -> Allow:
        return ALLOW


class MoodyGate(Moody):
    """Lets in, with a gate that lets pass, delays, drops, closes, raises."""

    def _allowed(self) -> Allow:
        return Allow(gate=self._gate())

    def _gate(self) -> Any:
        return Credits(self.world) if self.world.draw(2) else self._judge

    def _judge(self, size: int) -> Any:
        return judged(self.world)


class MoodyFirst(Moody):
    """Lets in who says the right first message."""

    timeout_s = 0.5

    def _allowed(self) -> Allow:
        first = MoodyFirst(self.world)
        first.timeout_s = self.world.pick((0.5, 2.0, 5.0))
        return Allow(first_message=first)

    def __call__(self, payload: str | bytes) -> Any:
        """Answer the first message, at once or later."""
        what, when = self.world.pick((0, 1, 2, *[3] * 9)), self.world.pick((0.1, 0.6, 0.0, 0.0, None, None))
        return self._first(what) if when is None else self._first_later(when, what)

    async def _first_later(self, when: float, what: int) -> object:
        await asyncio.sleep(when)
        return self._first(what)

    def _first(self, what: int) -> object:
        if what == 0:
            raise Bug("first message")
        if what == 1:
            return Close(4403, "moody")
        return None if what == 2 else Allow(identity=Identity("ada"))


class MoodyDeadlines(Moody):
    """Lets in for a while."""

    def _allowed(self) -> Allow:
        pick = self.world.pick
        expires_s = pick((None, None, 0.4, 3.0))
        identity = None if expires_s is None else Identity("ada", expires_unix_s=self.world.loop.time() + expires_s)
        return Allow(
            identity=identity,
            deadlines=Deadlines(
                handshake_s=pick((0.3, 2.0, None, None)),
                idle_s=pick((0.4, 3.0, None)),
                max_age_s=pick((0.2, 3.0, None)),
                send_s=pick((0.3, None, None)),
                idle_code=pick((1000, 4000)),
            ),
        )


class MoodyMessages(Moody):
    """Answers each message of both directions."""

    def message(self, connection_id: str, direction: str, size: int) -> object:
        """Answer one message."""
        answer = judged(self.world)
        return ALLOW if isinstance(answer, Delay) else answer


class Credits:
    """A gate that gives credit, as it is drawn."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.credit_bytes = world.pick((40, 1000, 1000))

    def __call__(self, size: int) -> object:
        """Answer one message."""
        return judged(self.world)

    def credit(self) -> int:
        """Let some pass unasked."""
        return self.world.pick((0, 2, 1, 1))

    def settle(self, messages: int, size: int) -> None:
        """Hear what passed."""


def judged(world: World) -> object:
    """Answer a message."""
    what = world.draw(24)
    if what == 0:
        raise Bug("a gate")
    if what == 1:
        return Close(world.pick(CODES), "moody")
    if what < 4:
        return Drop("moody")
    if what < 6:
        return Delay(world.pick((0.1, 0.6)), "moody")
    if what < 8:
        return Delay(world.pick((0.1, 0.6)), "moody", then=_then(world))
    return ALLOW


def _then(world: World) -> Callable[[], Any]:
    def then() -> Any:
        what = world.draw(8)
        if what == 0:
            raise Bug("then")
        if what < 4:
            return (Close(4401, "then"), Drop("then"), Delay(0.2, "then", then=then))[what - 1]
        return ALLOW

    return then


def _limits(world: World) -> Limits:
    """Make the real thing, with small bounds."""
    answer: Any = world.pick(("delay", "drop", "close"))
    volume: Any = world.pick(("delay", "drop"))
    number = world.pick((1, 3, 32))
    return Limits(
        connections=world.pick((1, 2, None)),
        messages=Rate(number, per_s=1.0, burst=world.pick((1, 3, 100)), answer=answer),
        bytes_received=Rate(300, per_s=1.0, answer=volume),
        max_message_bytes=world.pick((20, 200)),
        clock=world.loop.time,
    )


def _timeouts(world: World) -> Timeouts:
    return Timeouts(handshake_s=2.0, idle_s=world.pick((0.5, 3.0)), max_age_s=world.pick((1.0, 10.0)), jitter=0.0)


_KINDS: tuple[Callable[[Any], Any], ...] = (
    Moody,
    MoodyGate,
    MoodyGate,
    MoodyFirst,
    MoodyDeadlines,
    MoodyMessages,
    _limits,
    _timeouts,
)
