"""Checks the numbers among the options of a hub; an error names the option, its value and what is allowed."""

from __future__ import annotations

import math

from .._exceptions import ConfigurationError


def check_count(option: str, value: object, least: int = 1) -> int:
    """
    Check a number of things.

    Args:
        option: Its name.
        value: Its value.
        least: The smallest that is allowed.

    Raises:
        ConfigurationError: It is no `int`, or less.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(option, value, f"an int, {least} or more")
    return value


def check_seconds(option: str, value: object, allowed: str = "a number of seconds, more than 0") -> float:
    """
    Check a time.

    Args:
        option: Its name.
        value: Its value.
        allowed: What the error says is allowed; None is for the caller to let pass.

    Raises:
        ConfigurationError: It is no number, not more than 0, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(option, value, allowed)
    return float(value)
