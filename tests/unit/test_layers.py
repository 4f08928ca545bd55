"""What an application is wrapped in, seen without calling it."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.middleware.cors import CORSMiddleware

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._layers import is_guarded, layers
from asgi_ws_guard._types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


class Holds:
    """A middleware that keeps what it wraps under some name."""

    def __init__(self, name: str, inner: object) -> None:
        self.__dict__[name] = inner

    def __call__(self) -> None:
        """Be callable."""


def names(application: object) -> list[str]:
    """Name the layers, without their modules."""
    return [layer.kind.__qualname__ for layer in layers(application)]


@pytest.mark.parametrize("name", ["app", "asgi_app", "application", "inner", "_app", "wrapped_app", "asgi_handler"])
def test_what_is_wrapped_is_found(name: str) -> None:
    """Under each name by which middleware keeps it."""
    assert names(Holds(name, Holds("app", app))) == ["Holds", "Holds", "function"]
    assert is_guarded(Holds(name, WebSocketGuardMiddleware(app)))
    assert not is_guarded(Holds(name, app))


def test_the_middleware_of_starlette_is_found() -> None:
    """Also before it is built, with its options, from the outside in."""
    api = FastAPI()
    api.__dict__["app"] = WebSocketGuardMiddleware(app)  # something of its own: it wraps nothing
    api.add_middleware(CORSMiddleware, allow_origins=["*"])
    assert not is_guarded(api)
    api.add_middleware(WebSocketGuardMiddleware)
    found = list(layers(Holds("app", api)))
    assert [layer.kind for layer in found] == [Holds, FastAPI, WebSocketGuardMiddleware, CORSMiddleware]
    assert found[3].options == {"allow_origins": ["*"]}
    assert found[3].name == "starlette.middleware.cors.CORSMiddleware"
    assert (found[3].item, found[1].item) == (None, api)
    assert is_guarded(api)


def test_the_guard_of_quart_is_found() -> None:
    """It stands on an attribute of the application."""
    quart = Quart("layers")
    assert not is_guarded(quart)
    quart.asgi_app = WebSocketGuardMiddleware(quart.asgi_app)  # type: ignore[method-assign, assignment]
    assert is_guarded(quart)


def test_a_circle_ends() -> None:
    """An object that holds itself is looked at once."""
    one, two = Holds("app", None), Holds("app", None)
    one.__dict__["app"], two.__dict__["app"] = two, one
    assert names(one) == ["Holds", "Holds"]


def test_an_endless_stack_ends() -> None:
    """A stack that is deeper than any real one is not followed to its end."""
    deep: object = app
    for _ in range(100):
        deep = Holds("app", deep)
    assert len(names(deep)) == 64


def test_nothing_runs() -> None:
    """No property and no `__getattr__` of the application is asked, and objects without a dictionary are the end."""

    class Shy:
        __slots__ = ()

    class Loud:
        @property
        def app(self) -> Any:
            """Fail."""
            raise AssertionError

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    assert names(Loud()) == [Loud.__qualname__]
    assert names(Shy()) == [Shy.__qualname__]
    assert names(Holds("app", "a text")) == ["Holds"]
    assert names(Holds("user_middleware", ["no middleware"])) == ["Holds"]
