"""The policy `Shedding`: it denies while the event loop lags, and only then."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
import trio
from newcomers import handshake

from asgi_ws_guard import Allow, ConfigurationError, Deny
from asgi_ws_guard.plugins.shedding import IDLE_TICKS, Shedding
from asgi_ws_guard.testing import VirtualTimeLoop, run


def block(seconds: float) -> None:
    """Hold the loop up: its clock goes on and nothing is called."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.advance(seconds)


def answers(policy: Shedding) -> bool:
    """Tell whether a client is admitted."""
    return isinstance(policy.admit(handshake()), Allow)


def timers() -> int:
    """Count the timers of the running loop."""
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


def test_the_denial() -> None:
    """503, Retry-After, and one word for the answer and the logs."""

    async def main() -> None:
        policy = Shedding(max_lag_s=0.5, retry_after_s=2.5)
        assert answers(policy)
        block(0.7)
        answer = policy.admit(handshake())
        assert isinstance(answer, Deny)
        assert (answer.status, answer.reason, answer.end) == (503, "overload", "rate_limited")
        assert dict(answer.headers)[b"retry-after"] == b"3"

    run(main)


def test_a_lag_is_seen_before_the_timer_is_called() -> None:
    """A handshake that comes first after a block is denied already; below the threshold it is not."""

    async def main() -> None:
        policy = Shedding(max_lag_s=0.5, interval_s=0.1)
        assert answers(policy)
        block(0.59)
        assert answers(policy)
        block(0.02)
        assert not answers(policy)

    run(main)


def test_hysteresis() -> None:
    """It goes on while the lag is above the lower threshold, and ends at the first measurement below."""

    async def main() -> None:
        policy = Shedding(max_lag_s=0.5, resume_lag_s=0.2, interval_s=0.1)
        assert answers(policy)
        for lag_s, is_admitted in ((0.3, True), (0.6, False), (0.3, False), (0.1, True), (0.3, True)):
            block(0.1 + lag_s)
            await asyncio.sleep(0)  # the timer is called, and asks for the next
            await asyncio.sleep(0)
            assert answers(policy) is is_admitted, lag_s

    run(main)


def test_half_is_the_lower_threshold() -> None:
    """Without one the lower threshold is half of the upper."""

    async def main() -> None:
        policy = Shedding(max_lag_s=0.4, interval_s=0.1)
        assert answers(policy)
        for lag_s, is_admitted in ((0.45, False), (0.21, False), (0.19, True)):
            block(0.1 + lag_s)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert answers(policy) is is_admitted, lag_s

    run(main)


def test_the_timer_ends_when_nobody_comes() -> None:
    """One timer whatever the number of handshakes; none before the first and some time after the last."""

    async def main() -> None:
        policy = Shedding(interval_s=0.1)
        assert timers() == 1  # of the test's own time limit
        for _ in range(5):
            assert answers(policy)
        assert timers() == 2
        await asyncio.sleep(0.1 * IDLE_TICKS / 2)
        assert answers(policy)
        await asyncio.sleep(0.1 * IDLE_TICKS - 0.05)
        assert timers() == 2
        await asyncio.sleep(0.1)
        assert timers() == 1
        block(100.0)
        assert answers(policy)
        assert timers() == 2

    run(main)


def test_one_policy_on_two_loops() -> None:
    """Each loop has its own lag, and none is kept alive."""
    policy = Shedding()

    async def late() -> weakref.ref[asyncio.AbstractEventLoop]:
        assert answers(policy)
        block(5.0)
        assert not answers(policy)
        return weakref.ref(asyncio.get_running_loop())

    async def fresh() -> None:
        assert answers(policy)

    gone = run(late)
    run(fresh)
    gc.collect()
    assert gone() is None


def test_trio_is_not_measured() -> None:
    """Where there is no timer nobody is denied."""

    async def main() -> None:
        assert answers(Shedding(max_lag_s=1e-9))

    trio.run(main)


@pytest.mark.parametrize("option", ["max_lag_s", "resume_lag_s", "interval_s", "retry_after_s"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "1", True])
def test_wrong_options(option: str, value: Any) -> None:
    """A wrong option is said when it is built."""
    with pytest.raises(ConfigurationError) as raised:
        Shedding(**{option: value})
    assert raised.value.option == option


def test_the_lower_threshold_is_lower() -> None:
    """Two thresholds the wrong way round are said."""
    with pytest.raises(ConfigurationError, match="at most max_lag_s"):
        Shedding(max_lag_s=0.5, resume_lag_s=0.6)
