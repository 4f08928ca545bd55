"""What the tests of gates share: a policy that has one, and an observer for whom sizes are measured."""

from __future__ import annotations

from typing import Any

from asgi_ws_guard import Allow, Deny, Handshake
from asgi_ws_guard.testing import Recorder


class Gated:
    """A policy that lets everybody in through a gate."""

    def __init__(self, gate: Any) -> None:
        self.gate = gate

    def admit(self, handshake: Handshake) -> Allow | Deny:
        """Let it in."""
        return Allow(gate=self.gate)


class Measuring(Recorder):
    """An observer that wants to know how much passes."""

    wants_sizes = True
