"""
The guard from outside: ``ASGI_WS_GUARD_APP=package.module:app uvicorn asgi_ws_guard.wrap:app``.

Importing this module reads the environment, imports the application and wraps it; nothing else of the package does
anything at import. It cannot wait for the first access: hypercorn looks into the module's dictionary. Only servers
import it, under any of their workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ._environment import application, guard, leave
from ._exceptions import ConfigurationError
from ._target import TargetError

__all__ = ["app", "create_app"]


def _from_environment() -> Callable[..., object]:
    """Return the application of the environment, guarded."""
    try:
        return guard(application(os.environ), os.environ)
    except (TargetError, ConfigurationError) as error:
        leave(error)


app = _from_environment()


def create_app() -> Callable[..., object]:
    """Return the same application, for servers that are told to expect a factory."""
    return app
