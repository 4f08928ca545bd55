"""Names of objects: what is found, and the sentence when nothing is."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asgi_ws_guard._target import TargetError, is_target, load_application, load_target
from asgi_ws_guard._types import Receive, Scope, Send

HERE = __name__
FOLDER = f"the current folder is {Path.cwd()}"
IS_NO_APPLICATION = "what is there is no ASGI application but"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an application."""


def create_app() -> Any:
    """Make one."""
    return app


async def create_late() -> Any:
    """Make one, too late."""
    return app


def create_from(settings: str) -> Any:
    """Make one of something that nobody gives."""
    return app


def create_nothing() -> None:
    """Make none."""


def create_wrongly() -> Any:
    """Raise an error that is the application's own."""
    return app.no_such_attribute  # type: ignore[attr-defined]


def wsgi(environ: dict[str, str], start_response: object) -> list[bytes]:
    """Be an application of the other kind."""
    return []


def asgi2(scope: Scope) -> Any:
    """Be an application of ASGI 2."""
    return partial(app, scope)


class Endpoint:
    """Is awaited, as Starlette's endpoints are."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def __await__(self) -> Any: ...


class Holder:
    """Holds one."""

    api = staticmethod(app)

    def make(self) -> Any:
        """Make one."""
        return app


holder = Holder()
number = 5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app", app),
        ("holder.api", app),
        ("create_app()", app),
        ("holder.make()", app),
        ("Holder().api", app),
        ("asgi2", asgi2),
        ("Endpoint", Endpoint),
    ],
)
def test_an_application_is_found(name: str, found: object) -> None:
    """By its name, dotted, as a factory or behind one; of ASGI 3 and 2."""
    assert load_application(f"{HERE}:{name}") is found


def test_what_has_no_signature_is_believed() -> None:
    """A callable that nobody can look into is taken for an application."""
    assert load_application("builtins:print") is print
    assert load_application("builtins:type") is type


@pytest.mark.parametrize(
    "target",
    [
        "",
        "app",
        "module.app",
        "module:",
        ":app",
        "a/b.py:app",
        "a:b:c",
        "a:b(1)",
        "a:b()()",
        "a:.b",
        "a..b:c",
        "a:b c",
        "1a:b",
    ],
)
def test_another_form_is_one_sentence(target: str) -> None:
    """The sentence shows the form that is expected; nothing is imported."""
    assert not is_target(target)
    with pytest.raises(TargetError, match=r"^expected package\.module:attribute, or package\.module:factory\(\)"):
        load_target(target)


@pytest.mark.parametrize("target", ["a:b", "a.b:c.d", "a:b()", "a:b().c", "ä:ö"])
def test_the_form_is_known_without_an_import(target: str) -> None:
    """There is no module of these names."""
    assert is_target(target)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_such:x", f"there is no module 'no_such' (tried to import 'no_such'; {FOLDER})"),
        ("no_such.at:x", f"there is no module 'no_such' (tried to import 'no_such.at'; {FOLDER})"),
        (
            "asgi_ws_guard.nope:x",
            f"there is no module 'asgi_ws_guard.nope' (tried to import 'asgi_ws_guard.nope'; {FOLDER})",
        ),
        (f"{HERE}:qqq", f"there is no 'qqq' in {HERE} (tried {HERE}.qqq)"),
        (f"{HERE}:ap", f"there is no 'ap' in {HERE} (tried {HERE}.ap); did you mean 'app'?"),
        (f"{HERE}:holder.qqq", f"there is no 'qqq' in {HERE}.holder (tried {HERE}.holder.qqq)"),
        (f"{HERE}:number()", f"{HERE}.number is no factory but an object of builtins.int"),
        (f"{HERE}:create_from()", f"{HERE}.create_from is no factory: it cannot be called without arguments"),
        (f"{HERE}:create_late()", f"{HERE}.create_late is an async function: a factory may not be one"),
        (f"{HERE}:number", f"{IS_NO_APPLICATION} an object of builtins.int"),
        (f"{HERE}:create_nothing()", f"{IS_NO_APPLICATION} an object of builtins.NoneType"),
        (
            f"{HERE}:create_app",
            f"{IS_NO_APPLICATION} the function create_app, which may be a factory: write () after its name",
        ),
        (
            f"{HERE}:wsgi",
            f"{IS_NO_APPLICATION} the function wsgi, which may be a WSGI application",
        ),
    ],
)
def test_what_leads_nowhere_is_one_sentence(target: str, sentence: str) -> None:
    """The sentence says what was tried, and what may be meant."""
    with pytest.raises(TargetError, match="^" + re.escape(sentence) + "$"):
        load_application(target)


def test_an_error_of_the_module_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that misses another one, or fails, is not a wrong name: its traceback helps."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "target_misses.py").write_text("import no_such_module")
    (tmp_path / "target_fails.py").write_text("1 / 0")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load_target("target_misses:app")
    with pytest.raises(ZeroDivisionError):
        load_target("target_fails:app")


def test_an_error_of_a_factory_goes_on() -> None:
    """So does what a factory raises."""
    with pytest.raises(AttributeError, match="no_such_attribute"):
        load_target(f"{HERE}:create_wrongly()")
