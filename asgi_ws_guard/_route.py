"""
Finds the route template that a framework matched: a finite label, unlike the path (DESIGN's telemetry, `http.route`).

Frameworks write it into the scope that the guard handed down, or into a context variable of their own. They are never
imported. Channels' `URLRouter` gives none; where an application replaces the scope below the guard, none is found.
"""

from __future__ import annotations

import sys
from typing import Any

from ._types import Scope


def route_of(scope: Scope) -> str | None:
    """
    Find the route template of a connection; to be asked in the task that answers the handshake.

    Args:
        scope: The scope that the application was given.

    Returns:
        A template such as ``"/rooms/{room}"``; None when the framework gives none, or has not routed yet.
    """
    for find in (_starlette, _litestar, _quart):
        template = find(scope)
        if isinstance(template, str):
            return template
    return None


def _starlette(scope: Scope) -> Any:
    """Starlette from 1.0 on, FastAPI 0.100 and later: ``scope["route"]``, a route object with its path."""
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None)


def _litestar(scope: Scope) -> Any:
    """Litestar 2: ``scope["path_template"]``."""
    return scope.get("path_template")


def _quart(scope: Scope) -> Any:
    """Quart 0.20 and later: the rule of the websocket context, which the handler's task has."""
    context = getattr(sys.modules.get("quart.globals"), "_cv_websocket", None)
    websocket = getattr(context.get(None) if context is not None else None, "websocket", None)
    return getattr(getattr(websocket, "url_rule", None), "rule", None)
