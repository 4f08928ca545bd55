"""
Whether the connections of this process are well, over HTTP: a small ASGI application, and the verdict that it gives.

It keeps no number; it asks a registry, of which it knows no more than `Source` says. Users import from here.
"""

from __future__ import annotations

from ._app import health_app, health_at
from ._verdict import HubSource, Reason, Source, Thresholds, Verdict, judge

__all__ = ["HubSource", "Reason", "Source", "Thresholds", "Verdict", "health_app", "health_at", "judge"]
