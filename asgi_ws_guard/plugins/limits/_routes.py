"""
Which route template a path matches: the framework has not routed yet when a client is admitted.

It knows ``{name}`` for one segment and ``{name:path}`` for the rest, as Starlette, Litestar and Quart's variants mean
them, and nothing of methods, hosts and types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..._events import Handshake
from ..._exceptions import ConfigurationError
from ._checks import count

_SEGMENT = re.compile(r"\{[A-Za-z_]\w*(:path)?\}", re.ASCII)
_ALLOWED = "a dict of path templates such as '/rooms/{room}' and whole numbers, 1 or more"


def route_limits(per_route: object) -> dict[str, int]:
    """
    Check the limits by route.

    Returns:
        dict: template -> number of live connections.

    Raises:
        ConfigurationError: It is not a mapping of templates and numbers.
    """
    if per_route is None:
        return {}
    if not isinstance(per_route, Mapping):
        raise ConfigurationError("per_route", per_route, _ALLOWED)
    found = {}
    for template, value in per_route.items():
        number = None if value is None else count(f"per_route[{template!r}]", value)
        if not isinstance(template, str) or number is None:
            raise ConfigurationError("per_route", per_route, _ALLOWED)
        found[template] = number
    return found


def matcher(templates: Mapping[str, int]) -> Callable[[Handshake], str | None]:
    """
    Make what finds the template of a handshake.

    Args:
        templates: In the order in which they are tried.

    Returns:
        A function that gives the first template that matches the whole path, else None.

    Raises:
        ConfigurationError: A template does not begin with a slash, or a brace does not belong to a ``{name}``.
    """
    patterns = [(template, _pattern(template)) for template in templates]

    def match(handshake: Handshake) -> str | None:
        return next((template for template, pattern in patterns if pattern.fullmatch(handshake.path)), None)

    return match


def _pattern(template: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for found in _SEGMENT.finditer(template):
        pattern += re.escape(template[end : found.start()]) + ("(?s:.*)" if found[1] else "[^/]+")
        end = found.end()
    if not template.startswith("/") or set(_SEGMENT.sub("", template)) & set("{}"):
        raise ConfigurationError(
            "per_route", template, "path templates such as '/rooms/{room}' or '/files/{path:path}'"
        )
    return re.compile(pattern + re.escape(template[end:]))
