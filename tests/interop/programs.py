"""Finds the programs of other projects that tests start."""

from __future__ import annotations

import os
import shutil

import pytest


def find_program(name: str, install: str) -> str:
    """
    Find a program, or skip the test; where CI runs, a missing one is a failure.

    Args:
        name: Of the program.
        install: How to get it.
    """
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing: {install}")
        pytest.skip(f"{name} is missing: {install}")
    return found
