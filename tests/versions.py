"""What is installed, for tests whose expectation depends on it: an explicit rule in place of a broad skip."""

from __future__ import annotations

import importlib.metadata
import re


def at_least(distribution: str, *version: int) -> bool:
    """
    Tell whether a distribution is installed in this version or a later one.

    Args:
        distribution: Its name on PyPI.
        version: Numbers, such as 1, 7.
    """
    try:
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(number) for number in re.findall(r"\d+", installed)[: len(version)]) >= version
