"""
The options of the guard as environment variables, for those who wrap an application from outside.

One table: an option of `WebSocketGuardMiddleware`, how its text is read, and what is allowed. The constructor reads no
variable; `wrap`, `instrumentor` and the command line do, through `guard`.
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ._exceptions import ConfigurationError
from ._layers import is_guarded
from ._middleware import WebSocketGuardMiddleware
from ._options import Drain
from ._target import TargetError, load_application, load_target
from ._types import Receive, Scope, Send

PREFIX = "ASGI_WS_GUARD_"
APP = PREFIX + "APP"
# uvicorn 0.54 and gunicorn take this status of a worker for "it would fail again" and end; any other starts it again.
STARTUP_FAILURE = 3

_log = logging.getLogger("asgi_ws_guard")
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Variable:
    """
    One option as text.

    Attributes:
        read: Makes the value of the text; raises ValueError or KeyError when it cannot.
        allowed: What the text may be, for the sentence about a wrong one.
        is_secret: The value stands in no message.
        names_objects: Reading it imports modules of the application.
    """

    read: Callable[[str], object]
    allowed: str
    is_secret: bool = False
    names_objects: bool = False


def _or_none(read: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: None if text.lower() == "none" else read(text)


def _truth(text: str) -> bool:
    return _TRUTHS[text.lower()]


def _objects(word: str, value: object) -> Callable[[str], object]:
    """Read *word* as *value*, ``none`` as no object, and anything else as names of objects."""

    def read(text: str) -> object:
        if text.lower() == word:
            return value
        return () if text.lower() == "none" else tuple(load_target(one.strip()) for one in text.split(","))

    return read


def _deadline(text: str) -> Drain:
    return Drain(deadline_s=float(text))


_NAMES = "names such as package.module:attribute or package.module:Class(), separated by commas"
_OWN_GUARD = "none: the application has a guard of its own, give it the policies"
_CODE = "a close code that may be sent (1000 to 1014, 3000 to 4999), or none"

VARIABLES: Mapping[str, Variable] = {
    "late_sends": Variable(str.lower, "drop or raise"),
    "linger_s": Variable(float, "a number of seconds, 0 or more"),
    "cancel_after_s": Variable(_or_none(float), "a number of seconds, 0 or more, or none"),
    "watch": Variable(_truth, "true or false"),
    "send_timeout_s": Variable(_or_none(float), "a number of seconds, more than 0, or none"),
    "close_on_return": Variable(_or_none(int), _CODE),
    "close_on_error": Variable(_or_none(int), _CODE),
    "observers": Variable(_objects("default", None), f"default, none, or {_NAMES}", names_objects=True),
    "policies": Variable(_objects("none", ()), f"none, or {_NAMES}", names_objects=True),
    "adapters": Variable(_objects("auto", "auto"), f"auto, none, or {_NAMES}", names_objects=True),
    "drain": Variable(_or_none(_deadline), "the deadline of a drain, a number of seconds, more than 0, or none"),
    "health_path": Variable(_or_none(str), "a path that begins with /, or none"),
    "health_token": Variable(_or_none(str), "a token, or none", is_secret=True),
}
"""Each option of the constructor: how its variable is read."""


class VariableError(ConfigurationError):
    """A variable that does not exist, or has a value that is not allowed."""


def variable_of(option: str) -> str:
    """Give the name of the variable of an option."""
    return PREFIX + option.upper()


def read_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """
    Read all variables of the guard. An empty one counts as not set.

    Args:
        environment: Variables, name -> text.

    Returns:
        Dict: option -> value, for the constructor; without those that are not set.

    Raises:
        VariableError: One has no option, or its text cannot be read. The range of a value is checked by the guard.
    """
    known = {variable_of(option): option for option in VARIABLES}
    options: dict[str, Any] = {}
    for name in sorted(environment):
        text = environment[name].strip()
        if not name.startswith(PREFIX) or name == APP or not text:
            continue
        if name not in known:
            raise VariableError(name, text, _known(name, [APP, *known]))
        option = known[name]
        try:
            options[option] = VARIABLES[option].read(text)
        except TargetError as error:
            raise VariableError(name, text, f"{VARIABLES[option].allowed}; {error}") from None
        except (KeyError, ValueError):
            raise _wrong(option, text) from None
    return options


def check_texts(environment: Mapping[str, str]) -> None:
    """
    Check the variables before there is a server process that could: their names, and every value that names no object.

    Raises:
        VariableError: One is wrong.
    """
    unimported = {variable_of(option) for option, variable in VARIABLES.items() if variable.names_objects}
    guard(_nothing, {name: text for name, text in environment.items() if name not in unimported})


def guard(app: Callable[..., object], environment: Mapping[str, str]) -> Callable[..., object]:
    """
    Wrap an application with the options that the variables give.

    Returns:
        The guard; the application as it is when it has a guard already, whose options are its own. Policies are never
        left out silently.

    Raises:
        VariableError: A variable is wrong; it names the variable, the value and what is allowed.
    """
    options = read_options(environment)
    if is_guarded(app):
        if options.get("policies"):  # a warning would leave the application open that was to be closed
            name = variable_of("policies")
            raise VariableError(
                name, environment[name].strip(), "none: the application has a guard, which is to have them"
            )
        if options:
            names = ", ".join(map(variable_of, options))
            _log.warning("the application has a guard with options of its own: not used: %s", names)
        return app
    try:
        return WebSocketGuardMiddleware(app, **options)
    except ConfigurationError as error:
        if error.option not in options:
            raise
        raise _wrong(error.option, environment[variable_of(error.option)].strip()) from None


def application(environment: Mapping[str, str]) -> Callable[..., object]:
    """
    Find the application that ``ASGI_WS_GUARD_APP`` names.

    Raises:
        TargetError: The variable is not set, or leads nowhere; it names the variable, the value and what was tried.
    """
    target = environment.get(APP, "").strip()
    if not target:
        raise TargetError(f"{APP} is not set: set it to the application, such as {APP}=package.module:app")
    try:
        return load_application(target)
    except TargetError as error:
        raise TargetError(f"{APP}={target!r} is wrong: {error}") from None


def leave(error: TargetError | ConfigurationError) -> NoReturn:
    """
    End the process at its start with one sentence.

    A server catches `Exception` here and there and prints tracebacks; it catches no `SystemExit`.

    Raises:
        SystemExit: with status 3.
    """
    sys.stderr.write(f"asgi-ws-guard: {error}\n")
    raise SystemExit(STARTUP_FAILURE)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an application."""


def _wrong(option: str, text: str) -> VariableError:
    variable = VARIABLES[option]
    return VariableError(variable_of(option), "***" if variable.is_secret else text, variable.allowed)


def _known(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"{near[0]}, the nearest variable that exists" if near else f"one of {', '.join(sorted(names))}"
