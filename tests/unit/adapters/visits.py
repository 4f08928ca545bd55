"""
One visit to an application of a framework, on a scripted server and a virtual clock.

No expectation stands here, and no framework.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from asgi_ws_guard import Closed, ConnectionClosed, HandlerStopped, LateSend, WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

LINGER_S = 3.0  # more than the second in which the guard waits for what the server may still deliver
STOPPED_BY_S = 4 * LINGER_S
GIVEN_UP_S = 10 * LINGER_S
REAL_LINGER_S = 0.05

E = TypeVar("E", bound=Exception)
Handler = Callable[[Any], Awaitable[None]]
MakeApp = Callable[[Handler], ASGIApp]
"""Makes an application of a framework; the handler is given its websocket object, connected but not accepted."""
Call = Callable[[], Awaitable[Any]]


@dataclass
class Tries:
    """
    What each call of a handler gave.

    Attributes:
        outcomes: dict: label -> ``"ok"``, the value, or type, code and text of the exception.
    """

    outcomes: dict[str, str] = field(default_factory=dict)

    async def __call__(self, label: str, call: Awaitable[Any]) -> None:
        """Await one call, and note what it gave."""
        try:
            value = await call
        except Exception as error:
            code = getattr(error, "code", None)
            words = (type(error).__name__, "" if code is None else str(code), getattr(error, "reason", ""))
            name = " ".join(word for word in words if word)
            text = "" if code is not None or not str(error) else f": {error}"
            self.outcomes[label] = f"{name}{text}"
        else:
            self.outcomes[label] = "ok" if value is None else str(value)


@dataclass
class Visit:
    """
    A visit that is over.

    Attributes:
        server: The scripted server.
        seen: What the observer heard; nothing without a guard.
        error: What left the guard.
        took_s: Virtual seconds until the handler was done, None when it was still running.
    """

    server: ScriptedServer
    seen: Recorder
    error: BaseException | None
    took_s: float | None

    @property
    def late(self) -> list[tuple[str, str]]:
        """Type and reason of each `LateSend`."""
        return [(event.message_type, event.reason) for event in self.seen.of(LateSend)]

    @property
    def dropped(self) -> dict[str, int]:
        """The dropped messages by reason."""
        return dict(self.seen.one(Closed).books.dropped)

    @property
    def stopped(self) -> list[str]:
        """How the guard stopped the handler."""
        return [event.how for event in self.seen.of(HandlerStopped)]


def visit(
    make_app: MakeApp,
    handler: Handler,
    *,
    leaves: bool = False,
    guarded: bool = True,
    adapters: Any = "auto",
    texts: tuple[str, ...] = (),
    leaves_at_s: float = 0.0,
    real_time: bool = False,
) -> Visit:
    """
    Let a client connect.

    Args:
        make_app: Makes the application.
        handler: Its handler.
        leaves: Whether the client closes with 4321 "cya".
        guarded: Whether a guard is around the application.
        adapters: The guard's option.
        texts: What the client sends before.
        leaves_at_s: When the client closes.
        real_time: Whether to use the real clock, which goes on while a handler never sleeps.
    """
    server, seen = ScriptedServer(), Recorder()
    linger_s = REAL_LINGER_S if real_time else LINGER_S

    async def main() -> Visit:
        app = make_app(handler)
        if guarded:
            app = WebSocketGuardMiddleware(app, observers=(seen,), adapters=adapters, linger_s=linger_s)
        server.connect()
        server.text(*texts)
        loop = asyncio.get_running_loop()
        if leaves and leaves_at_s:
            loop.call_later(leaves_at_s, server.disconnect, 4321, "cya")
        elif leaves:
            server.disconnect(4321, "cya")
        began_s = loop.time()
        task = server.call(app)
        done, _ = await asyncio.wait({task}, timeout=GIVEN_UP_S)
        took_s = loop.time() - began_s if done else None
        error = task.exception() if done and not task.cancelled() else None
        return Visit(server, seen, error, took_s)

    return asyncio.run(main()) if real_time else run(main)


@dataclass(frozen=True)
class Framework:
    """
    How a framework's connections are made to end, and what is called too late then.

    Attributes:
        make_app: Makes an application.
        end: Accepts, then closes with 4001 "bye", or reads that the client has left.
        calls: Gives one late call of each sort. Dict: label -> call.
    """

    make_app: MakeApp
    end: Callable[..., Awaitable[None]]
    calls: Callable[[Any], dict[str, Call]]

    def tried(self, *, leaves: bool, but: tuple[str, ...] = (), **options: Any) -> tuple[Tries, Visit]:
        """
        Make every late call once.

        Args:
            leaves: Whether the client leaves; else the application closes.
            but: Labels of the calls that are left out.
            options: As for `visit`.

        Returns:
            What each gave, and the visit.
        """
        tries = Tries()

        async def handler(websocket: Any) -> None:
            await self.end(websocket, leaves=leaves)
            for label, call in self.calls(websocket).items():
                if label not in but:
                    await tries(label, call())

        return tries, self.visit(handler, leaves=leaves, **options)

    def visit_for_ever(self, label: str, *, leaves: bool, pause_s: float | None = 0.1, **options: Any) -> Visit:
        """
        Make one late call again and again, whatever it raises.

        Args:
            label: Which.
            leaves: As for `tried`.
            pause_s: As for `forever`.
            options: As for `visit`.
        """

        async def handler(websocket: Any) -> None:
            await self.end(websocket, leaves=leaves)
            await forever(self.calls(websocket)[label], pause_s)

        return self.visit(handler, leaves=leaves, **options)

    def visit_until_refused(
        self, label: str, kind: type[E], *, leaves: bool = True, link: str = "__cause__"
    ) -> tuple[Visit, E]:
        """
        Make one late call again and again, until what it raises is the end of the guard's patience.

        Args:
            label: Which.
            kind: The framework's exception for a connection that is gone.
            leaves: As for `tried`.
            link: Where the guard's own exception stands behind the framework's.

        Returns:
            The visit, and the last exception.
        """
        caught: list[E] = []

        async def handler(websocket: Any) -> None:
            await self.end(websocket, leaves=leaves)
            while True:
                try:
                    await self.calls(websocket)[label]()
                except kind as error:
                    caught.append(error)
                    if isinstance(getattr(error, link), ConnectionClosed):
                        raise
                await asyncio.sleep(0.1)

        return self.visit(handler, leaves=leaves), caught[-1]

    def visit(self, handler: Handler, **options: Any) -> Visit:
        """Let a client connect; see `visit`."""
        return visit(self.make_app, handler, **options)


def failing_below(app: ASGIApp) -> ASGIApp:
    """Put something between an application and its guard whose every send but the accept and the close fails."""

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        async def fail(message: Message) -> None:
            if message["type"] == "websocket.send":
                raise OSError("not the guard's")
            await send(message)

        await app(scope, receive, fail)

    return between


def ending_below(app: ASGIApp, code: int = 1000) -> ASGIApp:
    """Put something between an application and its guard that makes a disconnect of every message of the client."""

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        async def made_up() -> Message:
            message = await receive()
            return message if message["type"] == "websocket.connect" else {"type": "websocket.disconnect", "code": code}

        await app(scope, made_up, send)

    return between


async def forever(call: Call, pause_s: float | None = 0.1) -> None:
    """
    Do the same again and again, whatever it raises: the handler that catches everything.

    Args:
        call: What to do.
        pause_s: Seconds between two calls; None: it never sleeps.
    """
    while True:
        with contextlib.suppress(Exception):
            await call()
        if pause_s is not None:
            await asyncio.sleep(pause_s)
