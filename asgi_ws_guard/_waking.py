"""
Wakes a task that waits in a server's awaitable, without a cancellation, and runs such an awaitable by hand.

No event loop offers either. It knows awaitables and tasks of asyncio alone, and neither connections nor messages: what
is awaited must bear to be given up.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any

from ._loops import cancel_requests


def interrupt(awaitable: Awaitable[Any]) -> bool:
    """
    Wake the task that waits in *awaitable* with a `CancelledError` that no `Task.cancel` stands behind.

    The future is cancelled on which a suspended coroutine waits in the end. A coroutine names what it awaits;
    CPython's C iterators (of a future, of an asynchronous generator) do so only to the garbage collector. granian's
    own awaitables have a ``cancel``.

    Args:
        awaitable: What a task awaits, usually a server's coroutine.

    Returns:
        Whether a future was cancelled; False when it is done, or not to be found (another event loop).
    """
    cancel = getattr(_innermost(awaitable), "cancel", None)
    return bool(cancel is not None and cancel())


class Waker:
    """
    Wakes tasks by `interrupt`, and recognises the `CancelledError` of it.

    A cancellation from outside that comes at the same moment must not be taken for it. What was asked for before is no
    sign of one: a task may have taken a cancellation and gone on (`asyncio.TaskGroup` up to 3.12 leaves one behind).
    """

    __slots__ = ("_requests", "_unknown")

    def __init__(self) -> None:
        self._requests: dict[asyncio.Task[Any], int] = {}
        self._unknown = 0

    def wake(self, awaitable: Awaitable[Any]) -> None:
        """
        Wake the task that waits in *awaitable*, if it does.

        Args:
            awaitable: What a task awaits.
        """
        task = _waiting_in(_innermost(awaitable))
        requests = cancel_requests(task)
        if interrupt(awaitable):
            if task is None:
                self._unknown += 1
            else:
                self._requests.setdefault(task, requests)  # the first time tells, when it is woken again in a clean-up

    def woke(self, error: BaseException) -> bool:
        """
        Tell whether the running task got *error* because it was woken, and nobody else has asked to cancel it since.

        Args:
            error: What came out of the awaitable.
        """
        if not isinstance(error, asyncio.CancelledError):
            return False
        task = asyncio.current_task()
        if task in self._requests:
            return cancel_requests(task) <= self._requests.pop(task)
        if not self._unknown or cancel_requests(task):
            return False
        self._unknown -= 1
        return True


def step(awaitable: Awaitable[Any]) -> tuple[bool, Any]:
    """
    Run an awaitable by hand for as long as it does not suspend, and give it up when it does.

    Args:
        awaitable: A coroutine of a server that keeps its messages when it is cancelled.

    Returns:
        Whether it finished, and its result.
    """
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        return True, stop.value
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
    return False, None


def _innermost(awaitable: Awaitable[Any]) -> Any:
    """Give the future on which a suspended coroutine waits in the end, or the last thing that can be found."""
    current: Any = awaitable
    for _ in range(100):
        following = current if isinstance(current, asyncio.Future) else _awaited_by(current)
        if following is None or following is current:
            break
        current = following
    return current


def _waiting_in(future: Any) -> asyncio.Task[Any] | None:
    """Give the task that a future wakes; it is the owner of the future's callback."""
    owners = (getattr(callback, "__self__", None) for callback, _ in getattr(future, "_callbacks", None) or ())
    return next((owner for owner in owners if isinstance(owner, asyncio.Task)), None)


def _awaited_by(value: object) -> Any:
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        following = getattr(value, name, None)
        if following is not None:
            return following
    referents = gc.get_referents(value)
    return next((one for one in referents if isinstance(one, asyncio.Future) or _is_suspended(one)), None)


def _is_suspended(value: object) -> bool:
    return any(getattr(value, name, None) is not None for name in ("cr_await", "gi_yieldfrom", "ag_await"))
