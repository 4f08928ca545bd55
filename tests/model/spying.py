"""Spies before policies and what they lay down: each notes the answers in the connection's facts, and changes none."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asgi_ws_guard import Handshake
from asgi_ws_guard._plugin import Allow, Deadlines, Delay, Deny, Drop

from .facts import INF, Seen, size_of

if TYPE_CHECKING:
    from .world import World


class Spy:
    """Stands before a policy, and notes what it says."""

    def __init__(self, world: World, inner: Any) -> None:
        self.world, self.inner = world, inner
        if hasattr(inner, "message"):
            self.message = self._message

    def __repr__(self) -> str:
        return repr(self.inner)

    def admit(self, handshake: Handshake) -> Any:
        """Ask the policy."""
        seen = self.world.seen(handshake)
        if seen.denial is not None:
            self.world.broken("policies: one was asked behind a denial")
        try:
            answer = self.inner.admit(handshake)
        except BaseException:
            seen.denial = 500
            raise
        return self._later(seen, answer) if inspect.isawaitable(answer) else self._noted(seen, answer)

    async def _later(self, seen: Seen, answer: Any) -> Any:
        try:
            return self._noted(seen, await answer)
        except BaseException:
            if not seen.conn.actor.asked and not self.world.is_draining:
                seen.denial = 500
            raise

    def release(self, connection_id: str) -> None:
        """Pass it on."""
        seen = self.world.by_id[connection_id].seen
        if seen.conn.watcher.terminals:
            self.world.broken("policies: one heard of the end after the terminal event")
        seen.released.append(self)
        if hasattr(self.inner, "release"):
            self.inner.release(connection_id)

    def _noted(self, seen: Seen, answer: Any) -> Any:
        seen.admitted_s = self.world.loop.time()
        if isinstance(answer, Allow):
            seen.allowed.append(self)
            gate: object = answer.gate
            if gate is not None and not callable(gate):
                seen.denial = 500
                return answer
            return self._spied(seen, answer)
        is_fault = isinstance(answer, Deny) and answer.status < 400
        seen.denial = 500 if is_fault else (answer.status if isinstance(answer, Deny) else 403)
        return answer

    def _spied(self, seen: Seen, answer: Allow) -> Allow:
        if answer.identity is not None and answer.identity.expires_unix_s is not None:
            seen.expires_s = answer.identity.expires_unix_s
        elif answer.identity is not None:
            seen.expires_s = INF
        if answer.deadlines is not None:
            seen.deadlines = _both(seen.deadlines, answer.deadlines)
        if answer.gate is not None:
            spy = SpyCreditGate if hasattr(answer.gate, "credit") else SpyGate
            answer = replace(answer, gate=spy(seen, answer.gate))
        if answer.first_message is not None:
            seen.firsts.append(SpyFirst(seen, answer.first_message))
            answer = replace(answer, first_message=seen.firsts[-1])
        return answer

    def _message(self, connection_id: str, direction: str, size: int) -> Any:
        seen = self.world.by_id[connection_id].seen
        try:
            answer = self.inner.message(connection_id, direction, size)
        except Exception as error:
            answer = error
        if direction == "sent":
            seen.closing(answer)
        elif not isinstance(answer, Allow):
            seen.judge(size, answer)
        if isinstance(answer, Exception):
            raise answer
        return answer


class SpyGate:
    """Stands before a gate."""

    def __init__(self, seen: Seen, inner: Any) -> None:
        self.seen, self.inner = seen, inner

    def __call__(self, size: int) -> Any:
        """Ask the gate."""
        try:
            answer = self.inner(size)
        except Exception as error:
            self.seen.judge(size, error)
            raise
        self.seen.judge(size, answer)
        if isinstance(answer, Delay) and answer.then is not None:
            return replace(answer, then=self._asked_later(size, answer.then))
        return answer

    def _asked_later(self, size: int, then: Callable[[], Any]) -> Callable[[], Any]:
        def asked() -> Any:
            self.seen.verdicts[size].not_before_s = 0.0
            try:
                answer = then()
            except Exception as error:
                self.seen.judge(size, error)
                raise
            is_over = isinstance(answer, Delay) and self.seen.conn.state == "CLOSED"
            self.seen.judge(size, Drop() if is_over else answer)  # behind the end nobody waits any more
            if isinstance(answer, Delay) and answer.then is not None:
                return replace(answer, then=self._asked_later(size, answer.then))
            return answer

        return asked


class SpyCreditGate(SpyGate):
    """Stands before a gate that gives credit, and minds that it hears of all that passed."""

    def __init__(self, seen: Seen, inner: Any) -> None:
        super().__init__(seen, inner)
        self.credit_bytes = inner.credit_bytes

    def __call__(self, size: int) -> Any:
        """Ask the gate, which must know by now what passed unasked."""
        seen = self.seen
        sizes = [size_of(one) for one in seen.conn.server.handed]
        at = sizes.index(size)
        unasked = sum(one is not None and one not in seen.verdicts for one in sizes[seen.asked_at : at])
        if unasked != seen.settled or unasked > seen.granted:
            seen.conn.world.broken(f"policies: {unasked} passed unasked, of {seen.granted}; {seen.settled} were told")
        seen.asked_at, seen.settled, seen.granted = at, 0, 0
        return super().__call__(size)

    def credit(self) -> int:
        """Give credit."""
        self.seen.granted = self.inner.credit()
        return self.seen.granted

    def settle(self, messages: int, size: int) -> None:
        """Hear what passed."""
        self.seen.settled += messages
        self.inner.settle(messages, size)


class SpyFirst:
    """Stands before what answers the first message."""

    def __init__(self, seen: Seen, inner: Any) -> None:
        self.seen, self.inner, self.timeout_s = seen, inner, inner.timeout_s

    def __call__(self, payload: str | bytes) -> Any:
        """Ask it."""
        seen = self.seen
        if seen.first not in (None, len(payload)):
            seen.conn.world.broken("policies: a second message was taken as the first")
        seen.first = len(payload)
        answer = self.inner(payload)
        if not inspect.iscoroutine(answer):
            return self._noted(answer)
        later = self._later(answer)
        weakref.finalize(later, answer.close)  # when it is cancelled before it has begun
        return later

    async def _later(self, answer: Any) -> Any:
        return self._noted(await answer)

    def _noted(self, answer: Any) -> Any:
        if isinstance(answer, Allow):
            self.seen.let_in += 1
            self.seen.let_in_s = self.seen.conn.world.loop.time()
            if answer.identity is not None:
                expires_s = answer.identity.expires_unix_s
                self.seen.expires_s = INF if expires_s is None else expires_s
        return answer


def _both(one: Deadlines, other: Deadlines) -> Deadlines:
    def least(name: str) -> Any:
        values = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        return min(values, default=None)

    return Deadlines(**{name: least(name) for name in ("handshake_s", "idle_s", "max_age_s", "send_s")})
