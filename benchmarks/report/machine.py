"""The conditions of a run: machine, versions, date. Neither a host's name nor a path nor a user is among them."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "asgi-correlation-id",
    "asgi-ws-guard",
    "ddtrace",
    "granian",
    "hypercorn",
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-sdk",
    "sentry-sdk",
    "structlog",
    "uvicorn",
    "uvloop",
    "websockets",
)
"""What has a part in the numbers."""


def conditions() -> dict[str, Any]:
    """Describe this machine and what is installed, now."""
    return {
        "date": datetime.now(timezone.utc).strftime("%d %B %Y"),
        "cpu": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: found for name in DISTRIBUTIONS if (found := _version(name)) is not None},
    }


def _line(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
