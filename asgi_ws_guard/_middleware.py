"""
`WebSocketGuardMiddleware`: the front door.

It checks the options, keeps what all connections of one guard share, and hands each websocket connection to a session
of its own. Nothing of one connection is stored here, and other scopes pass untouched (G9).
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, cast
from weakref import WeakKeyDictionary

from asgiref.compatibility import guarantee_single_callable

from ._adapter import HANDLE_KEY
from ._dispatch import Dispatch
from ._drain import DrainReport
from ._ending import finish, settle
from ._events import Books
from ._exceptions import ConfigurationError
from ._ledger import Ledger
from ._loops import AsyncioLoop, TrioLoop, running_loop
from ._opening import start
from ._options import Apply, Drain, LateSends, check_adapters, check_observers, check_options
from ._plugin import MessagePolicy, Observer, Policy
from ._scope import whole_scope
from ._session import Session
from ._sigterm import drained_first, hold
from ._types import ASGIApp, Receive, Scope, Send
from ._watch import Watch

if TYPE_CHECKING:
    from .adapters import Waiting


class WebSocketGuardMiddleware:
    """
    Give every WebSocket connection of an ASGI application the same contract on every server.

    Wrap any application: ``app = WebSocketGuardMiddleware(app)``. A guard inside of another one does nothing, unless it
    has policies: then it is a guard in full, for which the other one is the server, and the observers of both hear.
    Under trio, options that need a timer (``cancel_after_s``, ``send_timeout_s``, ``watch``) have no effect.

    Args:
        app: An ASGI application, of ASGI 3 or 2.
        late_sends: ``"drop"``, or ``"raise"`` `ConnectionClosed` at the first late send.
        linger_s: Seconds after the end in which late sends are quietly dropped, 0 or more.
        cancel_after_s: Cancel a handler that still runs this many seconds after the end; None: never.
        watch: Learn of a disconnect although the handler does not receive.
        send_timeout_s: End a connection whose peer does not take a message for this many seconds; None: no limit.
        close_on_return: Close code when the handler returns without closing; None: leave it to the server.
        close_on_error: Close code when an exception leaves the handler; None: leave it to the server.
        observers: Callables that hear every event; None: `Telemetry`, `LogContext`, `StructlogObserver`; (): none.
        policies: Objects with a method ``admit`` or ``message`` that are asked before.
        adapters: Names of adapters, applied as soon as their frameworks are imported, and callables, called once, now;
            "auto": all that there are; (): none by this guard.
        drain: How the connections are brought to their end on SIGTERM, before the server hears of it, and at the latest
            at the lifespan's shutdown; None: both are left to the server. See `drain` for doing it by hand.
        health_path: Answer http requests at this path and below it as `health_app` does; None: answer none.
        health_token: The token of that `health_app`; None: no list of connections.

    Raises:
        ConfigurationError: An option has a value that is not allowed.
    """

    def __init__(
        self,
        app: Callable[..., object],
        *,
        late_sends: LateSends = "drop",
        linger_s: float = 10.0,
        cancel_after_s: float | None = None,
        watch: bool = True,
        send_timeout_s: float | None = None,
        close_on_return: int | None = 1000,
        close_on_error: int | None = 1011,
        observers: Iterable[Observer] | None = None,
        policies: Iterable[Policy | MessagePolicy] = (),
        adapters: Literal["auto"] | Sequence[str | Apply] = "auto",
        drain: Drain | None = None,
        health_path: str | None = None,
        health_token: str | None = None,
    ) -> None:
        if not callable(app):
            raise ConfigurationError("app", app, "an ASGI application")
        self.app = _single_callable(app)
        self._options = check_options(
            late_sends=late_sends,
            linger_s=linger_s,
            cancel_after_s=cancel_after_s,
            watch=watch,
            send_timeout_s=send_timeout_s,
            close_codes=(close_on_return, close_on_error),
            policies=policies,
            drain=drain,
        )
        heard = _default_observers() if observers is None else check_observers(observers)
        registry, self._health = _health(health_path, health_token)
        self._dispatch = Dispatch((*heard, *registry))
        self._ledger = Ledger(self._dispatch)
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()
        self._trio_watch: Watch | None = None
        self._adapters = _apply(adapters)
        self._dispatch.attach(self._ledger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope.get("type") != "websocket" or (HANDLE_KEY in scope and not self._options.asks):
            is_lifespan = scope.get("type") == "lifespan"
            if is_lifespan and self._options.drain is not None:
                receive = drained_first(receive, self.drain)
            try:
                await (self._health(scope) or self.app)(scope, receive, send)
            finally:
                if is_lifespan:
                    self._dispatch.flush()
            return
        self._adapters.look()
        whole = whole_scope(scope)
        watch = self._watch()
        self._hold(watch)
        session = Session(secrets.token_hex(8), whole, self._options, watch)
        raised: BaseException | None = None
        try:
            try:
                if await start(session, whole, receive, send):
                    try:
                        await self.app(whole, session.receive, session.path.send)
                    except GeneratorExit:  # thrown away by its loop, as nobody may await any more
                        raise
                    except BaseException as error:  # noqa: BLE001 - raised again below, unless it is a disconnect
                        raised = error
                    raised = await settle(session, raised)
            finally:
                finish(session, raised)
            if raised is not None:
                raise raised
        finally:
            del raised  # its traceback leads here, and to the server's own: granian ends who nothing leads to

    @property
    def connections(self) -> int:
        """Number of connections whose handler is running."""
        return len(self._ledger.live())

    @property
    def observer_failures(self) -> dict[str, int]:
        """Exceptions of observers that were contained. Dict: name of an observer -> number."""
        return self._ledger.observer_failures()

    def totals(self) -> Books:
        """
        Sum up what became of every message of every connection of this guard, live or over.

        Returns:
            The books; ``attempted = forwarded + failed + refused + dropped`` holds at any time.

        Note:
            Costs a few microseconds per live connection.
        """
        return self._ledger.totals()

    async def drain(self, drain: Drain | None = None) -> DrainReport:
        """
        Bring all connections of the running event loop to their end, and admit nobody any more.

        Handshakes are denied with 503 and ``Retry-After``; connections are told (`ConnectionHandle.is_draining`, the
        event `Draining`), closed a batch at a time, and their handlers cancelled at the deadline. A second call joins
        the first. Cancelling who waits does not stop the drain, and is logged. A handler that calls it is one of those
        who are waited for.

        Args:
            drain: How; None: as the option says, or as `Drain` does by default.

        Returns:
            What became of the connections.

        Raises:
            ConfigurationError: It is no `Drain`.
        """
        if drain is not None and not isinstance(drain, Drain):
            raise ConfigurationError("drain", drain, "a Drain, or None")
        return await self._watch().drain.run(drain or self._options.drain or Drain())

    def _hold(self, watch: Watch) -> None:
        """Drain on SIGTERM, from the first connection of an event loop on: by then its server has its own handler."""
        drain = self._options.drain
        if drain is not None and not watch.is_held and isinstance(watch.loop, AsyncioLoop):
            watch.is_held = True
            hold(asyncio.get_running_loop(), lambda: watch.drain.start(drain))

    def _watch(self) -> Watch:
        """Give the watch of the running loop; under trio, where it has no timer, one does for all loops."""
        loop = running_loop()
        if loop is None:
            if self._trio_watch is None:
                self._trio_watch = self._new_watch(TrioLoop())
            return self._trio_watch
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = self._new_watch(AsyncioLoop())
        return watch

    def _new_watch(self, loop: AsyncioLoop | TrioLoop) -> Watch:
        watch = Watch(loop, self._dispatch, self._ledger)
        self._ledger.add_watch(watch)
        return watch


def _single_callable(app: Callable[..., object]) -> ASGIApp:
    """Make ASGI 2 applications ASGI 3; a class whose instances are awaited (Starlette's endpoints) is that already."""
    if inspect.isclass(app) and hasattr(app, "__await__"):
        return cast(ASGIApp, app)
    return cast(ASGIApp, guarantee_single_callable(app))  # type: ignore[no-untyped-call]


def _apply(adapters: object) -> Waiting:
    """Apply the adapters, and give those that wait for their frameworks."""
    from .adapters import KNOWN, Waiting

    names, others = check_adapters(adapters, KNOWN)
    waiting = Waiting(names)
    waiting.look()
    for apply in others:
        apply()
    return waiting


def _default_observers() -> tuple[Observer, ...]:
    from .plugins.logcontext import LogContext
    from .plugins.otel import Telemetry
    from .plugins.structlog import StructlogObserver

    return (Telemetry(), LogContext(), StructlogObserver())


def _health(path: str | None, token: str | None) -> tuple[tuple[Observer, ...], Callable[[Scope], ASGIApp | None]]:
    """Give the observer that health needs, and a function that gives the health application for its own requests."""
    if path is None:
        if token is not None:
            raise ConfigurationError("health_token", "...", "None without health_path")
        return (), lambda scope: None
    from .plugins.health import health_at
    from .plugins.registry import Registry

    registry = Registry()
    return (registry,), health_at(path, registry, token=token)
