"""`Timeouts` lays down deadlines, the same for everybody but for the age, which is spread."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from asgi_ws_guard import Allow, ConfigurationError, Deadlines
from asgi_ws_guard._scope import handshake_of, whole_scope
from asgi_ws_guard.plugins.timeouts import Timeouts

HANDSHAKE = handshake_of(whole_scope({"type": "websocket"}))


def test_it_lets_everybody_in_on_its_terms() -> None:
    """Each option is a deadline, and without options there is none."""
    assert Timeouts().admit(HANDSHAKE) == Allow(deadlines=Deadlines())
    timeouts = Timeouts(handshake_s=1, idle_s=2, max_age_s=3, send_s=4, idle_code=4001, max_age_code=4002, jitter=0)
    expected = Deadlines(handshake_s=1, idle_s=2, max_age_s=3, send_s=4, idle_code=4001, max_age_code=4002)
    assert timeouts.admit(HANDSHAKE) == Allow(deadlines=expected)


def test_ages_are_spread() -> None:
    """Within the jitter below the maximum, and never above it."""
    timeouts = Timeouts(max_age_s=1000.0, jitter=0.2)
    ages = [answer.max_age_s for answer in (timeouts.admit(HANDSHAKE).deadlines for _ in range(500)) if answer]
    assert all(age is not None and 800.0 <= age <= 1000.0 for age in ages)
    assert max(map(float, filter(None, ages))) - min(map(float, filter(None, ages))) > 100.0


@pytest.mark.parametrize("option", ["handshake_s", "idle_s", "max_age_s", "send_s"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "5"])
def test_a_limit_that_is_none_is_refused(option: str, value: Any) -> None:
    """When it is built, with the option, the value and what is allowed."""
    allowed = f"{option}.*{re.escape(repr(value))}.*more than 0"
    with pytest.raises(ConfigurationError, match=allowed):
        Timeouts(**{option: value})


@pytest.mark.parametrize("option", ["idle_code", "max_age_code"])
@pytest.mark.parametrize("value", [1005, 1006, 2000, True, "1000", None])
def test_a_code_that_may_not_be_sent_is_refused(option: str, value: Any) -> None:
    """As everywhere."""
    with pytest.raises(ConfigurationError, match=f"{option}.*may be sent"):
        Timeouts(**{option: value})


@pytest.mark.parametrize("value", [-0.1, 1, math.nan, True, "0.1", None])
def test_a_jitter_that_is_no_part_is_refused(value: Any) -> None:
    """All of the age would leave none."""
    with pytest.raises(ConfigurationError, match=r"jitter.*less than 1"):
        Timeouts(jitter=value)
