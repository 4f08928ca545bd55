"""
Rooms, users and broadcast on guarded connections.

``hub = Hub()`` replaces a hand-written ``ConnectionManager``; `attach` repairs one that stays.
"""

from __future__ import annotations

from ._attach import Attachment, attach
from ._backend import (
    Backend,
    BackendHealth,
    BackendUnavailable,
    Deliver,
    MemoryBackend,
    MemoryBus,
    Publication,
    StreamId,
)
from ._encoding import Encoded, Encoder
from ._hub import Hub, Presence
from ._report import DeliveryReport
from ._target import Target

__all__ = [
    "Attachment",
    "Backend",
    "BackendHealth",
    "BackendUnavailable",
    "Deliver",
    "DeliveryReport",
    "Encoded",
    "Encoder",
    "Hub",
    "MemoryBackend",
    "MemoryBus",
    "Presence",
    "Publication",
    "StreamId",
    "Target",
    "attach",
]
