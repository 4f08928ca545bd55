"""
The seam to a framework's adapter: what an adapter says of itself, and all that it may ask about a connection.

An adapter only describes what it would replace; `adapters/__init__.py` decides whether, and keeps what is to be
restored. An adapter imports this module, the events and the vocabulary, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

from asgiref.sync import markcoroutinefunction

from ._types import Scope

HANDLE_KEY = "asgi_ws_guard.connection"
"""Where the handle on the connection stands in the application's scope."""


@dataclass(frozen=True, slots=True)
class Patch:
    """
    One attribute of a framework that an adapter replaces.

    Attributes:
        owner: A class or a module.
        name: Name of the attribute.
        value: What stands there while the adapter is in place.
    """

    owner: object
    name: str
    value: object


@dataclass(frozen=True, slots=True)
class FrameworkAdapter:
    """
    What makes one framework's own object hand late messages down to the guard.

    Attributes:
        distribution: Name of the framework on PyPI.
        since: First version that it was tested with, as numbers.
        before: First version that it is not meant for.
        patches: Gives what it replaces; called only when the framework is imported, and its version known.
    """

    distribution: str
    since: tuple[int, ...]
    before: tuple[int, ...]
    patches: Callable[[], tuple[Patch, ...]]


def replaces(own: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Decorate a plain function that stands in for a coroutine function, and gives its coroutine or another.

    It costs a message one call, a coroutine around the framework's would cost twice that. It looks like the original to
    `inspect.signature`, and as a coroutine function to mocks and frameworks that ask.

    Args:
        own: What the framework has there.

    Returns:
        The decorator.
    """

    def decorate(stand_in: Callable[..., Any]) -> Callable[..., Any]:
        marked: Callable[..., Any] = markcoroutinefunction(update_wrapper(stand_in, own))
        return marked

    return decorate


def has_ended(scope: Scope) -> bool:
    """
    Tell whether a scope belongs to a guarded connection that has ended, so that what its application does is late.

    Args:
        scope: The scope that the framework was given.

    Returns:
        False before the end, and for every connection that carries no guard.
    """
    handle = scope.get(HANDLE_KEY)
    return handle is not None and handle.initiator is not None
