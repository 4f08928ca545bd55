"""Runs the tasks of a hub, each in an empty context, and holds them while they run. It ends none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from .._loops import AsyncioLoop

Work = set[asyncio.Task[Any]]
"""The tasks of one hub that run; the event loop alone would not hold them."""


def begin_work(work: Work, made: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """
    Run a task until it ends.

    Args:
        work: Holds it.
        made: What it does.
    """
    task = AsyncioLoop().start(made, Context())
    work.add(task)
    task.add_done_callback(work.discard)
    return task
