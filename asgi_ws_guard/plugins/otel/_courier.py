"""
Hand batches to an exporter that may be slow, broken or gone, so that nobody else notices.

A `Courier` has one thread of its own, on which the exporter runs: whoever hands a batch over waits for a bounded time,
also for an exporter that hangs. It knows nothing of the SDK. Only this plugin imports it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ._quiet import Health, Hush

_NO_ANSWER = "no answer in time"


class _Job:
    __slots__ = ("batch", "is_done", "is_good", "started")

    def __init__(self, batch: object) -> None:
        self.batch = batch
        self.started = time.monotonic()
        self.is_done = False
        self.is_good = False


class Courier:
    """
    Runs one exporter on one daemon thread, one batch at a time.

    Args:
        export: Hands a batch to the exporter; gives True when it was taken. May raise, may hang.
        signal: ``"spans"`` or ``"metrics"``.
        health: Hears of every outcome.
        loggers: Names of the loggers that the exporter speaks through.
        timeout_s: For how long `hand` waits for the exporter.

    Attributes:
        failures: Number of exports that failed, or that somebody waited for in vain.

    Note:
        At most one batch is here at any time. A forked child starts a thread of its own.
    """

    def __init__(
        self, export: Callable[[Any], bool], signal: str, health: Health, loggers: Iterable[str], timeout_s: float
    ) -> None:
        self.hush = Hush(loggers)
        self.failures = 0
        self._export = export
        self._signal = signal
        self._health = health
        self._timeout_s = timeout_s
        self._ends_at: float | None = None
        self._turn = threading.Condition()
        self._job: _Job | None = None
        self._is_stopped = False
        self._pid = 0
        self._start()

    @property
    def is_healthy(self) -> bool:
        """Whether the last export went well, or there was none."""
        return not self._health.is_failing(self._signal)

    def hand(self, batch: object) -> bool:
        """
        Hand a batch over and wait for the outcome.

        Returns:
            False if the exporter failed, or had no answer within the time. Never raises.
        """
        if self._pid != os.getpid():
            try:
                self._start()
            except RuntimeError:  # a forked child that ends before its first export gets no thread any more
                with self.hush:
                    return self._carry(batch)
        started = time.monotonic()
        with self._turn:
            if self._is_stopped:
                return False
            while self._job is not None:  # one that nobody waits for any longer
                if not self._wait(started):
                    return self._give_up()
            job = self._job = _Job(batch)
            self._turn.notify_all()
            while not job.is_done:
                if not self._wait(started):
                    return self._give_up()
            return job.is_good

    def late(self, waited_s: float) -> None:
        """Hear that somebody waited in vain: the export under way is late if it began in the first half of the wait."""
        job = self._job
        if job is not None and time.monotonic() - job.started >= waited_s / 2:
            self._failed(self.hush.reason or _NO_ANSWER)

    def end_by(self, timeout_s: float, failing_s: float) -> None:
        """
        Bound what is still to come: from now on nobody waits past a common time.

        Args:
            timeout_s: Seconds that an exporter has which works so far.
            failing_s: Seconds that one has which does not.
        """
        with self._turn:
            self._ends_at = time.monotonic() + (timeout_s if self.is_healthy else failing_s)
            self._turn.notify_all()

    def stop(self) -> None:
        """End the thread once it is free."""
        with self._turn:
            self._is_stopped = True
            self._turn.notify_all()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._turn = threading.Condition()
        self._job = None
        threading.Thread(target=self._run, name="asgi-ws-guard-telemetry", daemon=True).start()

    def _wait(self, started: float) -> bool:
        ends_at = started + self._timeout_s
        if self._ends_at is not None:  # a batch that comes when the time is up still gets a moment from who works
            ends_at = min(ends_at, max(self._ends_at, started + 0.5) if self.is_healthy else self._ends_at)
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            return False
        self._turn.wait(left_s)
        return True

    def _give_up(self) -> bool:
        self._failed(self.hush.reason or _NO_ANSWER)
        return False

    def _failed(self, reason: str) -> None:
        self.failures += 1
        self._health.failed(self._signal, reason)

    def _run(self) -> None:
        turn = self._turn
        try:
            with self.hush:
                while True:
                    with turn:
                        while self._job is None and not self._is_stopped:
                            turn.wait()
                        job = self._job
                    if job is None:
                        return
                    job.is_good = self._carry(job.batch)
                    with turn:
                        job.is_done, self._job = True, None
                        turn.notify_all()
        finally:
            self.hush.remove()

    def _carry(self, batch: object) -> bool:
        self.hush.reason = ""
        try:
            is_good, reason = self._export(batch), self.hush.reason
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, the application does not hear of it
            is_good, reason = False, type(error).__name__
        if is_good:
            self._health.worked(self._signal)
        else:
            self._failed(reason)
        return is_good
