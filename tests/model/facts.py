"""
What the policies of a story said about each connection, and what must become of that.

Nothing here knows how the guard carries answers out. `spying.py` is told the answers, and tells them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_ws_guard._close import legal_code
from asgi_ws_guard._events import PolicyApplied
from asgi_ws_guard._plugin import Allow, Close, Deadlines, Delay, Drop

if TYPE_CHECKING:
    from .connection import Conn
    from .spying import Spy, SpyFirst

INF = float("inf")


@dataclass
class Verdict:
    """What was said about one received message: whether it is not to be delivered, and not before when."""

    is_out: bool
    not_before_s: float = 0.0


class Seen:
    """
    What the policies said about one connection.

    Attributes:
        denial: The status of a denial, None: nobody has denied.
        allowed: The policies that let it in, in order.
        released: Those that heard of its end.
        firsts: Those that want a first message.
        first: The size of the first message, None: none has come.
        let_in: How many of `firsts` allowed it, and when the last did.
        verdicts: What was said about each received message, by its size: no two are as long.
        close: The code of the first close that a policy asked for, None: none did.
        deadlines: All that were laid down.
        expires_s: When its identity ends.
        held_s: When the last delay is over.
        granted: Messages that may pass unasked.
    """

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.denial: int | None = None
        self.allowed: list[Spy] = []
        self.released: list[Spy] = []
        self.firsts: list[SpyFirst] = []
        self.first: int | None = None
        self.let_in, self.let_in_s = 0, 0.0
        self.admitted_s = 0.0
        self.verdicts: dict[int, Verdict] = {}
        self.close: int | None = None
        self.deadlines = Deadlines()
        self.expires_s = INF
        self.held_s = 0.0
        self.granted = self.settled = self.asked_at = 0

    @property
    def is_let_in(self) -> bool:
        """Whether nobody waits for a first message any more, as far as policies go."""
        return self.let_in >= len(self.firsts)

    @property
    def is_held(self) -> bool:
        """Whether the guard lets nothing pass, for it waits for the first message or the answer to it."""
        session = self.conn.handle._session
        return session is not None and session.is_held

    @property
    def was_refused(self) -> bool:
        """Whether the connection ended before the guard had let the client in."""
        entrance = self.conn.handle._session.entrance
        return entrance is not None and entrance._is_refused

    def is_withheld(self, message: object) -> bool:
        """Tell whether the application must not see a message that the server handed over."""
        size = size_of(message)
        if size is None:
            return False
        if size == self.first or not self.is_let_in or self.was_refused:
            return True
        verdict = self.verdicts.get(size)
        return verdict is not None and verdict.is_out

    def delivered(self, message: object) -> None:
        """Mind a message that the application was given."""
        size = size_of(message)
        if size is None:
            return
        if self.is_withheld(message):
            self.conn.world.broken(f"policies: the message of {size} bytes was delivered")
        verdict = self.verdicts.get(size)
        now = self.conn.world.loop.time()
        if verdict is not None and now < verdict.not_before_s - 1e-6 and self.conn.state != "CLOSED":
            self.conn.world.broken(f"policies: the message of {size} bytes was delivered before {verdict.not_before_s}")

    def judge(self, size: int, answer: object) -> None:
        """Take note of the answer to a received message; an exception is one."""
        now = self.conn.world.loop.time()
        is_out = not isinstance(answer, Allow | Delay)
        self.verdicts[size] = Verdict(is_out, now + answer.delay_s if isinstance(answer, Delay) else 0.0)
        if isinstance(answer, Delay):
            self.held_s = max(self.held_s, now + answer.delay_s)
        self.closing(answer)

    def closing(self, answer: object) -> None:
        """Take note of an answer that closes, if it does."""
        if not isinstance(answer, Allow | Delay | Drop) and self.close is None and self.conn.state != "CLOSED":
            self.close = legal_code(answer.code) if isinstance(answer, Close) else 1011

    def check(self) -> None:
        """Check what holds after each step."""
        conn, broken = self.conn, self.conn.world.broken
        if self.denial is not None and conn.has_begun:
            broken("policies: the application was called for a client that was denied")
        if not conn.has_begun:
            return
        if self.close is not None:
            ended = conn.handle._session.connection.ended
            if ended is None:
                broken(f"policies: one closed with {self.close}, and the connection is open")
        if not self.is_let_in and any(one["type"] == "websocket.send" for one in conn.server.begun):
            broken("policies: a message went to a client that was not let in")

    def heard(self, event: PolicyApplied) -> None:
        """Mind that no deadline is kept too early."""
        if event.policy != "deadlines":
            return
        conn, terms = self.conn, self.deadlines
        handed = [at_s for one, at_s in zip(conn.server.handed, conn.server.handed_s, strict=True) if size_of(one)]
        at_s = {
            "handshake_timeout": conn.opened_s + (terms.handshake_s or INF),
            "max_age": conn.accepted_s + (terms.max_age_s or INF),
            "idle": max(conn.accepted_s, *handed, 0.0) + (terms.idle_s or INF),
            "expired": self.expires_s,
        }[event.reason]
        if event.at_s < at_s - 1e-6:
            conn.world.broken(f"policies: {event.reason} at {event.at_s}, not at {at_s}")

    def is_rightful(self, code: int | None) -> bool:
        """Tell whether the guard may have closed with a code for a policy, a deadline, or a drain."""
        kinds = {(one.decision, one.policy) for one in self.conn.watcher.events if isinstance(one, PolicyApplied)}
        return any(decision == "close" for decision, _ in kinds) and code not in (None, 1006)

    def ended(self) -> None:
        """Mind the releases when the terminal event is told."""
        if sorted(map(id, self.released)) != sorted(map(id, self.allowed)):
            self.conn.world.broken(f"policies: {self.allowed} let it in, {self.released} heard of the end")

    def over(self) -> None:
        """Mind what the server saw of a client that was denied."""
        begun, world = self.conn.server.begun, self.conn.world
        self._judge_given_up()
        starts = [one for one in begun if one["type"] == "websocket.http.response.start" and "tag" not in one]
        if self.denial is not None and not self.conn.actor.was_asked:
            if [one["status"] for one in starts] != [self.denial]:
                world.broken(f"policies: the client was denied with {self.denial}, the server saw {begun}")
        elif self.conn.has_begun and self.close is not None:
            self._judge_close()

    def _judge_given_up(self) -> None:
        """Mind that nobody cancels a close or a denial halfway but the guard's own bounds, and who cancels its task."""
        conn = self.conn
        timeouts = (conn.world.options["send_timeout_s"], self.deadlines.send_s)
        least_s = 60.0 if timeouts == (None, None) else 0.0  # a send that takes too long takes the close with it
        for after_s, task in conn.server.given_up:
            is_own = task is conn.actor.task and (conn.actor.was_asked or conn.cancelled_in_settle)
            is_excused = is_own or conn.world.is_draining or conn.cancelled_in_settle
            if after_s < least_s - 0.05 - conn.world.jumped_s and not is_excused:
                conn.world.broken(f"policies: a close was given up after {after_s} s")

    def _judge_close(self) -> None:
        """Mind that the server saw the close that a policy asked for, unless something else came before it."""
        conn = self.conn
        if conn.cancelled_in_settle:  # while the close was waited for: it is given up, sent or not
            return
        ended = conn.handle._session.connection.ended
        codes = [one["code"] for one in conn.server.begun if one["type"] == "websocket.close" and "tag" not in one]
        if (
            ended is not None
            and ended.initiator.value == "guard"
            and ended.code == self.close
            and codes[:1] != [self.close]
        ):
            conn.world.broken(f"policies: one closed with {self.close}, the server saw {codes}")


def size_of(message: object) -> int | None:
    """Give the size of a message of the client, None for anything else."""
    if not isinstance(message, dict) or message["type"] != "websocket.receive":
        return None
    return len(message.get("text") or message.get("bytes") or "")
