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
)
from ._encoding import Encoded, Encoder
from ._hub import Hub, Presence
from ._publication import Publication, StreamId
from ._report import DeliveryReport
from ._resuming import Resumed
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
    "Resumed",
    "StreamId",
    "Target",
    "attach",
]
