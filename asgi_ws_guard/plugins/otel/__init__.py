"""
OpenTelemetry: traces, metrics and log records of every connection.

`Telemetry` is on by default, through the global providers. It needs ``opentelemetry-api`` alone; exporters by option
need the extra ``otel``. The modules of this folder know one another and no other plugin.
"""

from __future__ import annotations

from .metrics import MetricsObserver
from .telemetry import Telemetry
from .tracing import TracingObserver

__all__ = ["MetricsObserver", "Telemetry", "TracingObserver"]
