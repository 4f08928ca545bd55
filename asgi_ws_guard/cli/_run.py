"""
`asgi-ws-guard run`: the server's own command line, with the application replaced by `asgi_ws_guard.wrap`.

It becomes the server (`exec`), so that signals and the exit status need no one in between. It imports neither the
server nor the application: `wrap` does, in the server's process. Imported by `_app.py` only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from .._environment import APP, check_texts
from .._target import FORM, is_target

_INTERFACES = ("asgi", "asginl")


class RunError(Exception):
    """The server cannot be started; the text says what to do."""


def _plain(options: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    return []


def _granian(options: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Granian serves RSGI unless it is told otherwise: add the interface that is missing, refuse a wrong one."""
    asked = _value_of("--interface", options) or environment.get("GRANIAN_INTERFACE")
    if asked is None:
        return ["--interface", "asgi"]
    if asked not in _INTERFACES:
        raise RunError(f"granian's --interface is {asked!r}: a guard needs {' or '.join(_INTERFACES)}")
    return []


@dataclass(frozen=True)
class ServerCommand:
    """
    How a server's command line is started.

    Attributes:
        name: The server's module, and its distribution.
        missing_options: Gives the options that the server needs, in view of those that were given, and of variables.
    """

    name: str
    missing_options: Callable[[Sequence[str], Mapping[str, str]], list[str]] = _plain

    @property
    def is_installed(self) -> bool:
        """Tell whether the server can be imported; it is not."""
        return find_spec(self.name) is not None


SERVERS = (
    ServerCommand("uvicorn"),
    ServerCommand("hypercorn"),
    ServerCommand("daphne"),
    ServerCommand("granian", _granian),
)
"""The servers, in the order in which the first one that is installed is taken."""

NAMES = tuple(server.name for server in SERVERS)


@dataclass(frozen=True)
class Command:
    """A process to become: its arguments, and its whole environment."""

    arguments: list[str]
    environment: dict[str, str]


def command(
    target: str, server_name: str | None, options: Sequence[str], environment: Mapping[str, str] = os.environ
) -> Command:
    """
    Build the command line of the server.

    Args:
        target: The application, ``package.module:app``.
        server_name: One of NAMES; None: the first one that is installed.
        options: The server's own options, passed on as they are.
        environment: Variables of this process, name -> text.

    Returns:
        What to start; ``ASGI_WS_GUARD_APP`` is in its environment.

    Raises:
        RunError: The name has another form, or there is no such server.
        ConfigurationError: A variable ``ASGI_WS_GUARD_*`` is wrong.
    """
    if not is_target(target):
        raise RunError(f"{target!r} is no application: expected {FORM}")
    check_texts(environment)
    server = _choose(server_name)
    is_factory = "--factory" in options
    attribute = "create_app" if is_factory else "app"
    if is_factory and not target.endswith("()"):
        target += "()"
    arguments = [sys.executable, "-m", server.name, f"asgi_ws_guard.wrap:{attribute}"]
    missing = server.missing_options(options, environment)
    return Command([*arguments, *missing, *options], {**environment, APP: target})


def become(process: Command) -> int:
    """
    Replace this process by the server; where that is not possible (Windows), wait for it.

    Returns:
        The server's exit status, where this process outlives it.
    """
    if os.name != "nt":
        os.execve(process.arguments[0], process.arguments, process.environment)  # noqa: S606 - there is no shell
    return subprocess.call(process.arguments, env=process.environment)


def _choose(name: str | None) -> ServerCommand:
    asked = [server for server in SERVERS if name in (None, server.name)]
    if not asked:
        raise RunError(f"--server {name!r} is not known: expected {', '.join(NAMES)}")
    for server in asked:
        if server.is_installed:
            return server
    if name is None:
        raise RunError(f"no server is installed ({', '.join(NAMES)}): pip install {NAMES[0]}")
    raise RunError(f"{name} is not installed: pip install {name}")


def _value_of(option: str, options: Sequence[str]) -> str | None:
    """Return what is given to *option*, as ``--option value`` or ``--option=value``; the last one counts."""
    value = None
    for word, following in zip(options, [*options[1:], ""], strict=False):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value
