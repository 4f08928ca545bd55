"""
Finds an object by its name: `package.module:attribute`, dotted attributes, and factories, `package.module:create()`.

It says in one sentence what is wrong with a name, and what was tried. An exception of the named module itself goes on
unchanged, because its traceback is what helps. Imported by `wrap`, `_environment` and the command line.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

from ._exceptions import GuardError

_NAME = r"[^\W\d]\w*"
_TARGET = re.compile(rf"({_NAME}(?:\.{_NAME})*):({_NAME}(?:\(\))?(?:\.{_NAME}(?:\(\))?)*)")
FORM = "package.module:attribute, or package.module:factory() for a function that makes it"


class TargetError(GuardError):
    """A name leads nowhere; the text says what was tried."""


def is_target(target: str) -> bool:
    """Tell whether *target* has the right form; nothing is imported."""
    return _TARGET.fullmatch(target) is not None


def load_target(target: str) -> Any:
    """
    Import the module of *target* and follow its attributes.

    Args:
        target: Such as ``package.module:attribute.attribute`` or ``package.module:factory()``.

    Returns:
        The object.

    Raises:
        TargetError: The name has another form, or leads nowhere.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        raise TargetError(f"expected {FORM}")
    thing: Any = _import(found[1])
    path = found[1]
    for step in found[2].split("."):
        name = step.removesuffix("()")
        thing = _attribute(thing, name, path)
        path += f".{name}"
        if step != name:
            thing = _made_by(thing, path)
    return thing


def load_application(target: str) -> Callable[..., object]:
    """
    Find an ASGI application.

    Returns:
        The application, of ASGI 3 or 2.

    Raises:
        TargetError: There is none of that name, or what is there takes other arguments.
    """
    application: object = load_target(target)
    if not callable(application):
        raise TargetError(f"what is there is no ASGI application but {_kind(application)}")
    if not (_takes(application, 3) or _takes(application, 1)):
        raise TargetError(
            f"what is there is no ASGI application but {_kind(application)}"
            + (", which may be a factory: write () after its name" if _takes(application, 0) else "")
            + (", which may be a WSGI application" if _takes(application, 2) else "")
        )
    return application


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another one
        raise TargetError(
            f"there is no module {error.name!r} (tried to import {name!r}; the current folder is {os.getcwd()})"
        ) from None


def _attribute(thing: object, name: str, path: str) -> Any:
    try:
        return getattr(thing, name)
    except AttributeError:
        near = difflib.get_close_matches(name, [one for one in dir(thing) if not one.startswith("_")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TargetError(f"there is no {name!r} in {path} (tried {path}.{name}){hint}") from None


def _made_by(factory: Any, path: str) -> Any:
    if not callable(factory):
        raise TargetError(f"{path} is no factory but {_kind(factory)}")
    if not _takes(factory, 0):
        raise TargetError(f"{path} is no factory: it cannot be called without arguments")
    made = factory()
    if inspect.iscoroutine(made):
        made.close()
        raise TargetError(f"{path} is an async function: a factory may not be one")
    return made


def _takes(thing: Callable[..., object], arguments: int) -> bool:
    """Tell whether *thing* can be called with so many positional arguments; True when nobody knows."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True


def _kind(thing: object) -> str:
    kind = type(thing)
    if inspect.isroutine(thing):
        return f"the function {thing.__qualname__}"
    return f"an object of {kind.__module__}.{kind.__qualname__}"
