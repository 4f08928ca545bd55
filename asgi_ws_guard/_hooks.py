"""
The place in each server where the application has been loaded: the guard is put around it there, and nowhere else.

It knows no environment and no OpenTelemetry. It never imports a server: a hook waits until the server is imported. It
needs `wrapt`, which opentelemetry-instrumentation brings. Imported by `instrumentor` only.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import wrapt

_log = logging.getLogger("asgi_ws_guard")

Guard = Callable[[Callable[..., object]], Callable[..., object]]
"""Wraps an application."""
Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]

# What uvicorn puts around every application itself. The guard goes inside of it, as `app = Guard(app)` would, so that
# it sees the client's address behind a proxy.
_UVICORN_OWN = ("uvicorn.middleware.proxy_headers", "uvicorn.middleware.message_logger")


@dataclass(frozen=True, slots=True)
class Hook:
    """
    One callable of a server.

    Attributes:
        server: Name of the server's distribution.
        versions: Versions in which the callable was seen; each has a test in tests/interop/test_from_outside.py.
        module: Where the callable stands.
        name: Its name there, dotted.
        wrapper: Makes what replaces it, for a guard and a seed.
    """

    server: str
    versions: str
    module: str
    name: str
    wrapper: Callable[[Guard, object], Wrapper]


def _after_uvicorn_loads(guard: Guard, _: object) -> Wrapper:
    """``Config.load()`` leaves the application in ``loaded_app``: after the factory, the WSGI and ASGI 2 shims."""

    def wrapper(load: Callable[..., Any], config: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        load(*args, **kwargs)
        holder, name = config, "loaded_app"
        while type(getattr(holder, name)).__module__ in _UVICORN_OWN:
            holder, name = getattr(holder, name), "app"
        setattr(holder, name, guard(getattr(holder, name)))

    return wrapper


def _after(attribute: str) -> Callable[[Guard, object], Wrapper]:
    """Guard what a constructor has stored in *attribute*."""

    def for_guard(guard: Guard, _: object) -> Wrapper:
        def wrapper(init: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            init(*args, **kwargs)
            setattr(instance, attribute, guard(getattr(instance, attribute)))

        return wrapper

    return for_guard


def _first_argument(guard: Guard, _: object) -> Wrapper:
    """Guard the application that is the first argument."""

    def wrapper(call: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(guard(args[0]), *args[1:], **kwargs)

    return wrapper


def _seed_instance(_: Guard, seed: object) -> Wrapper:
    """Let a configuration that its constructor has made carry the seed to the workers."""

    def wrapper(init: Callable[..., Any], config: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        init(*args, **kwargs)
        config._asgi_ws_guard = seed

    return wrapper


def _seed_argument(_: Guard, seed: object) -> Wrapper:
    """Let the configuration that is the first argument carry the seed to the workers."""

    def wrapper(run: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args[0]._asgi_ws_guard = seed
        return run(*args, **kwargs)

    return wrapper


HOOKS: tuple[Hook, ...] = (
    Hook("uvicorn", "0.54", "uvicorn.config", "Config.load", _after_uvicorn_loads),
    Hook("hypercorn", "0.18", "hypercorn.app_wrappers", "ASGIWrapper.__init__", _after("app")),
    Hook("daphne", "4.2", "daphne.server", "Server.__init__", _after("application")),
    # Each of granian's servers has a name of its own for the function that makes the workers' callable.
    Hook("granian", "2.8", "granian.server.mp", "_asgi_call_wrap", _first_argument),
    Hook("granian", "2.8", "granian.server.mt", "_asgi_call_wrap", _first_argument),
    Hook("granian", "2.8", "granian.server.embed", "_asgi_call_wrap", _first_argument),
    # hypercorn always, and uvicorn with --workers or --reload, spawn new interpreters and pickle the configuration.
    # opentelemetry-instrumentation 0.50 hides itself from them; later it does not, and this does no harm.
    Hook("uvicorn", "0.54", "uvicorn.config", "Config.__init__", _seed_instance),
    Hook("hypercorn", "0.18", "hypercorn.run", "run", _seed_argument),
)


class Hooks:
    """
    The hooks of one process, put in and taken out together.

    Args:
        guard: What to do with each application that a server loads.
        seed: An object that puts the hooks in where it is unpickled: in a worker that a server has spawned.
    """

    def __init__(self, guard: Guard, seed: object) -> None:
        self._guard = guard
        self._seed = seed
        self._is_in = False
        self._undo: list[tuple[Any, str, Any]] = []

    def put_in(self) -> None:
        """Hook every server, those that are imported now and those that are imported later."""
        self._is_in = True
        for hook in HOOKS:
            wrapt.register_post_import_hook(partial(self._apply, hook), hook.module)

    def take_out(self) -> None:
        """Give every server its own callable back; what has been loaded stays guarded."""
        self._is_in = False
        while self._undo:
            holder, name, original = self._undo.pop()
            setattr(holder, name, original)

    def _apply(self, hook: Hook, module: object) -> None:
        if not self._is_in:
            return
        holder, _, name = hook.name.rpartition(".")
        try:
            owner = getattr(module, holder) if holder else module
            original = getattr(owner, name)
        except AttributeError:
            # An exception here would leave the server's own import statement.
            version = importlib.metadata.version(hook.server)
            _log.warning("%s %s is not known: its applications are not guarded from outside", hook.server, version)
            return
        self._undo.append((owner, name, original))
        setattr(owner, name, wrapt.FunctionWrapper(original, hook.wrapper(self._guard, self._seed)))
