"""
Finds the route template that a framework matched: a finite label, unlike the path (DESIGN's telemetry, `http.route`).

Frameworks write it into the scope that the guard handed down, or into a context variable of their own. They are never
imported. Channels' `URLRouter` gives none; where an application replaces the scope below the guard, none is found.

The template is the innermost one. What mounts an application (Starlette's and FastAPI's `mount`) leaves of its own
template nothing in the scope but the path that it matched, in ``root_path``: a parameter of the mount would be there
with its value. So a mount's prefix is left out, although two mounted applications may then share a template. A
router's prefix (FastAPI's `include_router`, Quart's blueprints, Litestar's routers) is part of the template.
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
        A template such as ``"/rooms/{room}"``, without the prefix of a mount; None when the framework gives none, or
        has not routed yet, or what it gives cannot be read.
    """
    for find in (_starlette, _fastapi, _litestar, _quart):
        try:
            template = find(scope)
        except Exception:  # noqa: BLE001, S112 - these are foreign objects, and a label is worth no connection
            continue
        if template and isinstance(template, str):
            return template
    return None


def _starlette(scope: Scope) -> Any:
    """Starlette 1.7 and FastAPI 0.115, and later: ``scope["route"]``, a route object with its path."""
    return _template(scope.get("route"))


def _fastapi(scope: Scope) -> Any:
    """FastAPI 0.165: a route of Starlette's in an included router, with the router's prefix; it is no ``"route"``."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    return _template(getattr(context, "starlette_route", None))


def _litestar(scope: Scope) -> Any:
    """Litestar 2: ``scope["path_template"]``."""
    return scope.get("path_template")


def _quart(scope: Scope) -> Any:
    """Quart 0.20 and later: the rule of the websocket context, which the handler's task has."""
    quart: Any = sys.modules.get("quart.globals")
    return None if quart is None else quart.websocket.url_rule.rule


def _template(route: object) -> Any:
    return getattr(route, "path_format", None) or getattr(route, "path", None)
