"""
The application of ``ASGI_WS_GUARD_APP`` as it is, for the servers that `verify` starts to compare with.

The counterpart of `asgi_ws_guard.wrap`: importing it imports the application. Only servers import it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .._environment import application, leave
from .._target import TargetError


def _from_environment() -> Callable[..., object]:
    """Return the application of the environment."""
    try:
        return application(os.environ)
    except TargetError as error:
        leave(error)


app = _from_environment()
