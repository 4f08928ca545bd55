"""
What goes wrong in the server's process on purpose: tasks that somebody cancels, observers that raise.

Everything that it raises says so: `Mishap`, or a cancellation with the text `CANCELLED`. Runs in the server's process.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakSet

import asgi_ws_guard


def quart_handler_ends_with_reader() -> bool:
    """
    Tell whether Quart ends a handler whose reader is cancelled.

    It did up to 0.22; 0.23 waits for the handler alone, which waits for ever in a queue that nobody fills any more.
    """
    return tuple(int(part) for part in importlib.metadata.version("quart").split(".")[:2]) < (0, 23)


CANCELLED = "chaos cancelled it"
OURS = (Path(__file__).parent, Path(asgi_ws_guard.__file__).parent)
SPARED = (
    *("report_to_monitor", "app", "_read_the_rest", "receive_outside"),
    *(() if quart_handler_ends_with_reader() else ("handle_messages",)),
)
"""What lives as long as the server, what daphne runs without a coroutine of its own around it, what the guard does for
hypercorn behind a handler, with the task that `asyncio.wait_for` makes of it up to 3.11, and Quart's reader where it
alone ends the handler: nothing would do it again."""
SPARED_BEFORE_ACCEPT = () if quart_handler_ends_with_reader() else ("handle_websocket",)
"""Quart's handlers where Quart waits for its reader when one is cancelled: a client without an answer waits on, too."""


class Mishap(Exception):
    """Raised on purpose by an application or an observer."""


class UnluckyObserver:
    """
    An observer that raises now and then.

    Args:
        seed: Which times.
        wants_messages: Whether it hears of every message too.
        share: Share of the events at which it raises.
    """

    def __init__(self, seed: str, *, wants_messages: bool, share: float) -> None:
        self.wants_messages = wants_messages
        self._random = random.Random(seed)
        self._share = share

    def __call__(self, event: object) -> None:
        """Hear an event, and raise at some."""
        if self._random.random() < self._share:
            raise Mishap(type(event).__name__)


def arrange(options: Mapping[str, str]) -> None:
    """
    Let the running task, or any other task of this application, be cancelled later, if the plan says so.

    Args:
        options: The query string of the connection.
    """
    if "cancel" not in options:
        return
    task = asyncio.current_task()
    assert task is not None
    who = None if options["cancel"] == "any" else task
    asyncio.get_running_loop().call_later(float(options["at_s"]), _cancel, who, int(options["who"]))


def is_ours(error: BaseException | None) -> bool:
    """
    Tell whether a cancellation, or one that was handled when it came, was made on purpose.

    Its text may be lost on the way: `asyncio.gather` that is cancelled raises the cancellation of one of its own.

    Args:
        error: What ended the running task.
    """
    while error is not None and CANCELLED not in error.args:
        error = error.__context__
    return error is not None or asyncio.current_task() in _cancelled


def accepted() -> None:
    """Take note that the running task has accepted its connection."""
    task = asyncio.current_task()
    assert task is not None
    _accepted.add(task)


_cancelled: WeakSet[asyncio.Task[object]] = WeakSet()
_accepted: WeakSet[asyncio.Task[object]] = WeakSet()


def _cancel(task: asyncio.Task[object] | None, who: int) -> None:
    if task is None:
        tasks = sorted(filter(may_be_cancelled, asyncio.all_tasks()), key=_name)
        task = tasks[who % len(tasks)] if tasks else None
    if task is not None:
        _cancelled.add(task)
        task.cancel(CANCELLED)


def may_be_cancelled(task: asyncio.Task[object]) -> bool:
    """
    Tell whether a task is the application's, its framework's or the guard's, not the server's, and not spared.

    Args:
        task: Of this process.
    """
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None or code.co_name in SPARED or (code.co_name in SPARED_BEFORE_ACCEPT and task not in _accepted):
        return False
    path = Path(code.co_filename)
    return any(folder in path.parents for folder in OURS) or "quart" in path.parts


def _name(task: asyncio.Task[object]) -> str:
    return task.get_name()
