"""
Flush and end a set of exporters within a bounded time, whatever state they are in.

It knows nothing of the SDK but that its parts can be flushed and shut down. Only this plugin imports it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ._courier import Courier

SHUTDOWN_S = 3.0  # for an exporter that works so far: whoever restarts a process waits for its end
FAILING_S = 1.0  # for one that is down already: one more try


class Running:
    """
    What was set up: couriers to bound, parts to flush, providers to end.

    Attributes:
        couriers: Those of the exporters that are ours.
        flushes: ``force_flush`` of every processor and reader; takes milliseconds, may hang, may raise.
        shutdowns: What ends the parts, in order; may raise.
    """

    def __init__(self) -> None:
        self.couriers: list[Courier] = []
        self.flushes: list[Callable[[int], object]] = []
        self.shutdowns: list[Callable[[], object]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_ended = False

    def flush(self, timeout_s: float) -> bool:
        """
        Flush every part at the same time, each on a thread of its own, since the SDK's own flush heeds no timeout.

        Returns:
            True if all of it was exported within the time. Never raises.

        Note:
            While an earlier flush hangs there is no second one: a dead exporter holds one thread, not many.
        """
        ends_at = time.monotonic() + max(timeout_s, 0.0)
        if not self._lock.acquire(timeout=max(timeout_s, 0.0)):
            return False
        try:
            failures = self._failures()
            if self._is_ended or not self._join(ends_at, timeout_s):
                return False
            done: list[bool] = []
            self._threads = []
            for one in self.flushes:
                thread = threading.Thread(
                    target=_flush, args=(one, timeout_s, done), name="asgi-ws-guard-flush", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # the interpreter ends, or the system gives no more threads
                    break
                self._threads.append(thread)
            self._join(ends_at, timeout_s)
        finally:
            self._lock.release()
        return done == [True] * len(self.flushes) and failures == self._failures()

    def end(self, timeout_s: float = SHUTDOWN_S, failing_s: float = FAILING_S) -> None:
        """Export what waits and end all parts; the second time it does nothing. Never raises."""
        if self._is_ended:
            return
        self._is_ended = True
        for courier in self.couriers:
            courier.end_by(timeout_s, failing_s)
        for one in self.shutdowns:
            with suppress(Exception):
                one()

    def _failures(self) -> int:
        return sum(one.failures for one in self.couriers)

    def _join(self, ends_at: float, timeout_s: float) -> bool:
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        is_done = not any(thread.is_alive() for thread in self._threads)
        if not is_done:
            for courier in self.couriers:
                courier.late(timeout_s)
        return is_done


def _flush(flush: Callable[[int], object], timeout_s: float, done: list[bool]) -> None:
    with suppress(Exception):
        done.append(flush(max(1, int(timeout_s * 1000))) is not False)
