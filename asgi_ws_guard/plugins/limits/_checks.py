"""
What a number among the options may be, for every part of the limits.

It checks and converts nothing else; a wrong value is a `ConfigurationError` that names the option.
"""

from __future__ import annotations

import math

from ..._exceptions import ConfigurationError


def count(option: str, value: object) -> int | None:
    """
    Check a number of things.

    Args:
        option: Name of the option.
        value: What was given.

    Returns:
        The number, None without a limit.

    Raises:
        ConfigurationError: It is not a whole number of 1 or more.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(option, value, "a whole number, 1 or more, or None")
    return value


def positive(option: str, value: object, allowed: str) -> float:
    """
    Check a number.

    Args:
        option: Name of the option.
        value: What was given.
        allowed: What to say of it.

    Raises:
        ConfigurationError: It is not a finite number of more than 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(option, value, allowed)
    return float(value)
