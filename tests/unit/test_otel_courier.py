"""One exporter on a thread of its own: how long anybody waits for it, and what is said of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asgi_ws_guard.plugins.otel._courier import Courier
from asgi_ws_guard.plugins.otel._quiet import Health, Hush
from asgi_ws_guard.plugins.otel._running import Running

LOGGER = "test.exporter"
LONG_S = 10.0


class Exporter:
    """Does as told: waits for `goes_on`, then gives `is_good`, and logs."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.taken: list[object] = []
        self.is_good = True

    def export(self, batch: object) -> bool:
        """Export one batch."""
        logging.getLogger(LOGGER).error("Failed to export to %s: %s", "s3cr3t", TimeoutError("s3cr3t"))
        assert self.goes_on.wait(LONG_S)
        self.taken.append(batch)
        return self.is_good


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """Give an exporter that does not outlive its test."""
    one = Exporter()
    yield one
    one.goes_on.set()


Make = Callable[..., Courier]


@pytest.fixture
def make(exporter: Exporter) -> Iterator[Make]:
    """Make a courier for it that ends with the test."""
    made: list[Courier] = []

    def one(timeout_s: float = LONG_S) -> Courier:
        made.append(Courier(exporter.export, "spans", Health("test"), [LOGGER], timeout_s))
        return made[-1]

    yield one
    for courier in made:
        courier.stop()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List what was logged, by whom it may be."""
    return [f"{one.name} {one.levelname}" for one in caplog.records]


def test_a_batch_is_handed_over(exporter: Exporter, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """In the exporter's own thread; what it logs there is held back."""
    assert make().hand([1]) is True
    assert exporter.taken == [[1]]
    assert said(caplog) == []


def test_nobody_waits_longer_than_allowed(exporter: Exporter, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Neither for a batch of one's own, nor behind one that hangs; that one still arrives, and so it is told."""
    caplog.set_level(logging.INFO)
    courier = make(0.05)
    exporter.goes_on.clear()
    began = time.monotonic()
    assert (courier.hand([1]), courier.hand([2])) == (False, False)
    assert time.monotonic() - began < LONG_S / 2
    exporter.goes_on.set()
    while not exporter.taken or not courier.is_healthy:
        threading.Event().wait(0.001)
    assert courier.hand([3]) is True
    assert exporter.taken == [[1], [3]]
    assert said(caplog) == ["asgi_ws_guard WARNING", "asgi_ws_guard INFO"]
    assert "TimeoutError" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_an_end_is_an_end(exporter: Exporter, make: Make) -> None:
    """Whoever waits when the end is set waits no longer than that; afterwards nothing is taken."""
    courier = make()
    exporter.goes_on.clear()
    outcome: list[bool] = []
    waiting = threading.Thread(target=lambda: outcome.append(courier.hand([1])))
    began = time.monotonic()
    waiting.start()
    courier.end_by(0.05, 0.0)
    waiting.join(LONG_S)
    assert outcome == [False]
    assert time.monotonic() - began < LONG_S / 2
    exporter.goes_on.set()
    courier.stop()
    assert courier.hand([2]) is False


def test_who_works_gets_a_moment_after_the_end(exporter: Exporter, make: Make) -> None:
    """An exporter whose turn comes late, because another one used the time up, still gets its last batch."""
    courier = make()
    courier.end_by(0.0, 0.0)
    assert courier.hand([1]) is True
    exporter.is_good = False
    assert courier.hand([2]) is False
    exporter.is_good = True
    assert courier.hand([3]) is False
    assert exporter.taken in ([[1], [2]], [[1], [2], [3]])


def test_spans_and_metrics_fail_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning for both; the end is said when both work again, and success before any failure is no news."""
    caplog.set_level(logging.INFO)
    health = Health("test")
    health.worked("spans")
    health.failed("spans", "status 500")
    health.failed("metrics", "")
    health.failed("spans", "")
    assert said(caplog) == ["asgi_ws_guard WARNING"]
    health.worked("metrics")
    assert health.is_failing("spans")
    health.worked("spans")
    health.worked("spans")
    assert said(caplog) == ["asgi_ws_guard WARNING", "asgi_ws_guard INFO"]
    assert "after 2 failed exports of spans" in caplog.text
    health.failed("spans", "")
    assert len(said(caplog)) == 3


def test_others_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Only the threads inside are silent, and only on the loggers named."""
    hush = Hush([LOGGER, LOGGER])
    theirs = threading.Thread(target=lambda: logging.getLogger(LOGGER).warning("theirs"))
    with hush:
        logging.getLogger(LOGGER).warning("ours")
        logging.getLogger("test.other").warning("of another")
        theirs.start()
        theirs.join()
    logging.getLogger(LOGGER).warning("afterwards")
    hush.remove()
    heard = [one.getMessage() for one in caplog.records if one.name in (LOGGER, "test.other")]
    assert heard == ["of another", "theirs", "afterwards"]
    assert hush.held == 1


def test_a_flush_counts_only_what_fails_meanwhile(exporter: Exporter, make: Make) -> None:
    """An old failure makes no new flush fail; one flush at a time, and none after the end."""
    courier, running = make(), Running()
    running.couriers.append(courier)
    exporter.is_good = False
    running.flushes.append(lambda _: courier.hand([1]))
    assert running.flush(LONG_S) is False
    running.flushes[:] = [lambda _: None]
    assert running.flush(LONG_S) is True
    exporter.goes_on.clear()
    running.flushes[:] = [lambda _: courier.hand([1])]
    threads = threading.active_count()
    assert [running.flush(0.05) for _ in range(5)] == [False] * 5
    assert threading.active_count() <= threads + 1
    exporter.goes_on.set()
    running.end()
    running.end()
    assert running.flush(LONG_S) is False
