"""Who is sending: the innermost line of the application among the coroutines of the running task."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from asgi_ws_guard import CallSite
from asgi_ws_guard._callsite import call_site

Give = Callable[[], Coroutine[Any, Any, CallSite | None]]


def in_module(name: str, source: str, **names: object) -> Any:
    """
    Run *source* as a module of another name.

    Args:
        name: The module's ``__name__``.
        source: Python code that defines ``call``.
        names: What it can use.

    Returns:
        What it called ``call``.
    """
    space: dict[str, Any] = {"__name__": name, **names}
    exec(compile(source, f"/{name}.py", "exec"), space)
    return space["call"]


def through(name: str, give: Give) -> Give:
    """Let a coroutine of the module *name* await *give*."""
    call: Give = in_module(name, "async def call():\n    return await give()\n", give=give)
    return call


SENDING = """
def late():
    return call_site()

async def call():
    return late()
"""
send: Give = in_module("asgi_ws_guard._sending", SENDING, call_site=call_site)
"""The guard's own frames, coroutines and functions."""


def answer(give: Give) -> CallSite | None:
    """Run a coroutine that waits for nothing, without a loop: below it is no coroutine."""
    with pytest.raises(StopIteration) as done:
        give().send(None)
    found: CallSite | None = done.value.value
    return found


def test_the_line_of_the_application() -> None:
    """File, line and function of the coroutine that sends."""

    async def handler() -> tuple[CallSite | None, int]:
        return await send(), sys._getframe().f_lineno

    found, line = asyncio.run(handler())
    assert found == CallSite(__file__, line, "handler")


def test_the_line_is_the_one_that_runs_now() -> None:
    """The line is that of the send, not of the function's beginning."""
    call = in_module("shop.chat", "\n\nasync def call():\n    x = 1\n    return await give()\n", give=send)
    assert answer(call) == CallSite("/shop.chat.py", 5, "call")


@pytest.mark.parametrize(
    "skipped",
    [
        "asgi_ws_guard",
        "asgi_ws_guard._sending",
        "asgi_ws_guard.plugins.structlog",
        "starlette.websockets",
        "fastapi.routing",
        "quart.wrappers.websocket",
        "litestar.connection.websocket",
        "falcon.asgi.ws",
        "blacksheep.server.websocket",
        "channels.generic.websocket",
        "django.core",
        "sanic",
        "socketio.async_server",
        "engineio",
        "strawberry.asgi",
        "ariadne",
        "uvicorn.protocols",
        "hypercorn",
        "granian",
        "daphne.server",
        "asgiref.sync",
        "anyio._core",
        "trio",
        "uvloop",
        "websockets",
        "wsproto",
        "sentry_sdk.integrations",
        "opentelemetry.instrumentation.asgi",
        "structlog",
        "asyncio.tasks",
        "contextlib",
        "json.encoder",
        "threading",
        "concurrent.futures",
        "_frozen_importlib",
        "functools",
    ],
)
def test_frames_of_others_are_skipped(skipped: str) -> None:
    """Frames of the guard, of frameworks and servers and of the standard library are not the application."""
    inner = through(skipped, through(skipped, send))
    assert answer(inner) is None
    assert answer(through("shop.chat", inner)) == CallSite("/shop.chat.py", 2, "call")


def test_an_adapter_above_a_middleware_is_skipped() -> None:
    """Between the two stands a middleware of somebody else: the adapter's frame is not next to the guard's."""
    below = through("opentelemetry.instrumentation.asgi", send)
    adapter = through("starlette.websockets", through("asgi_ws_guard.adapters.starlette", below))
    assert answer(through("shop.chat", adapter)) == CallSite("/shop.chat.py", 2, "call")


@pytest.mark.parametrize("name", ["shop", "shop.asyncio", "my_starlette", "starlette_app", "chat.fastapi", "__main__"])
def test_frames_of_the_application_are_not_skipped(name: str) -> None:
    """Only the top-level package counts: an application's own module may be named like anything below it."""
    give = through("shop.outer", through("starlette.websockets", through(name, send)))
    assert answer(give) == CallSite(f"/{name}.py", 2, "call")


def test_nobody_of_the_application() -> None:
    """A task that runs `send` itself, or a framework's, has no line of the application, and that is no error."""
    assert answer(send) is None
    assert answer(through("starlette.websockets", send)) is None


def test_who_started_the_task_is_not_looked_at() -> None:
    """Below the task's coroutines is the loop, and below that whoever runs it: they do not send."""
    run = in_module("shop.main", "def call(give):\n    return run(give())\n", run=asyncio.run)
    assert run(through("starlette.websockets", send)) is None
    assert run(through("shop.chat", send)) == CallSite("/shop.chat.py", 2, "call")


class Promise:
    """An awaitable of the application's own."""

    def __await__(self) -> Generator[Any, None, CallSite | None]:
        """Send."""
        return (yield from send().__await__())


def test_everything_that_awaits_is_followed() -> None:
    """A task, a context manager, an asynchronous generator and an awaitable object lead to the application."""

    @contextlib.asynccontextmanager
    async def managed() -> AsyncIterator[CallSite | None]:
        yield await send()

    async def generated() -> AsyncIterator[CallSite | None]:
        yield await send()

    async def promised() -> CallSite | None:
        promise: Awaitable[CallSite | None] = Promise()
        return await promise

    async def tasked() -> CallSite | None:
        return await send()

    async def handler() -> list[str]:
        async with managed() as one:
            pass
        two = [found async for found in generated()]
        found = [one, *two, await promised(), await asyncio.create_task(tasked())]
        return [site.function for site in found if site is not None and site.file == __file__]

    assert asyncio.run(handler()) == ["managed", "generated", "__await__", "tasked"]


def test_no_value_is_looked_at() -> None:
    """A frame whose local values cannot even be shown is no obstacle, and they are nowhere."""

    class Secret:
        def __repr__(self) -> str:
            raise AssertionError("somebody looked")

        __str__ = __repr__

    source = "async def call():\n    token = secret\n    return await give()\n"
    found = answer(in_module("shop.chat", source, give=send, secret=Secret()))
    assert repr(found) == "CallSite(file='/shop.chat.py', line=3, function='call')"
