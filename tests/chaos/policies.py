"""
What may be decided about a connection of the storm: each plan names at most one policy, and everybody has limits.

The guard's own policies where there is one, else one that draws: gates that drop, delay and close, denials late and at
once, a policy that raises. Runs in the server's process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import parse_qs

from asgi_ws_guard import Allow, Close, Delay, Deny, Drop, Handshake, Identity, Policy
from asgi_ws_guard.plugins.auth import FirstMessageAuth
from asgi_ws_guard.plugins.limits import Limits
from asgi_ws_guard.plugins.origin import Origin
from asgi_ws_guard.plugins.shedding import Shedding
from asgi_ws_guard.plugins.timeouts import Timeouts

from .mishaps import Mishap

SHARE = 0.05
"""Of the messages that a gate does not allow."""


@dataclass(frozen=True)
class Gated:
    """Let everybody in, behind a gate that gives an answer now and then."""

    answer: Drop | Delay | Close

    def admit(self, handshake: Handshake) -> Allow:
        """Lay down the gate."""
        drawn = random.Random(handshake.query_string)
        return Allow(gate=lambda _: self.answer if drawn.random() < SHARE else Allow())


class Undecided:
    """Take a moment to answer, and deny some."""

    async def admit(self, handshake: Handshake) -> Allow | Deny:
        """Answer, or raise."""
        drawn = random.Random(handshake.query_string)
        await asyncio.sleep(drawn.uniform(0.0, 0.1))
        if drawn.random() < 0.2:
            raise Mishap("a policy")
        return Deny(429, reason="drawn") if drawn.random() < 0.5 else Allow()


async def _authenticate(token: str) -> Identity | None:
    """Know some, late; raise at some."""
    await asyncio.sleep(len(token) / 200)
    if len(token) % 5 == 0:
        raise Mishap("an authenticator")
    return Identity(token) if len(token) % 2 else None


class Drawn:
    """Ask the policy that the query string names."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {
            "idle": Timeouts(idle_s=0.2),
            "age": Timeouts(max_age_s=0.4, jitter=0.9),
            "handshake": Timeouts(handshake_s=0.05),
            "slow": Timeouts(send_s=0.2),
            "first": FirstMessageAuth(_authenticate, timeout_s=0.3),
            "origin": Origin(["https://chaos.example"], missing="deny"),
            "drop": Gated(Drop()),
            "delay": Gated(Delay(0.05)),
            "close": Gated(Close(4008, "drawn")),
            "undecided": Undecided(),
        }

    def admit(self, handshake: Handshake) -> Allow | Deny | Awaitable[Allow | Deny]:
        """Answer, or let the one that is named answer."""
        names = parse_qs(handshake.query_string.decode()).get("policy")
        return self._policies[names[0]].admit(handshake) if names else Allow()


def policies() -> tuple[Policy, ...]:
    """Make those of one guard. The limit counts alone, so that a connection which is not released shows."""
    return (Shedding(max_lag_s=5.0), Limits(connections=100_000), Drawn())
