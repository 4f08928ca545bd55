"""
The handle on a connection: what a handler may know of it, and the context variable that leads there.

Beside the record of what the adapters replaced, the context variable is the only global of this package. A session sets
it for its handler; the tasks that the handler creates inherit it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from ._close import Initiator
from ._events import Books, Identity
from ._exceptions import ProtocolError
from ._state import State
from ._terms import identity_fault, is_finite

if TYPE_CHECKING:
    from ._session import Session

_current: ContextVar[ConnectionHandle | None] = ContextVar("asgi_ws_guard.connection", default=None)


class ConnectionHandle:
    """
    One live or ended connection, seen from its application.

    It is at ``scope["asgi_ws_guard.connection"]`` and what `current_connection` gives. Reading it costs no I/O; it
    may be kept after the end.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<ConnectionHandle {self.connection_id} {self.state.value}>"

    @property
    def connection_id(self) -> str:
        """16 hexadecimal digits, the same as in every event and log line."""
        return self._session.connection.connection_id

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._session.connection.state

    @property
    def is_open(self) -> bool:
        """Whether a message that is sent now goes to the server."""
        return self.state is State.OPEN

    @property
    def close_code(self) -> int | None:
        """Close code of the end; None before it, and when there was none."""
        end = self._session.connection.ended
        return None if end is None else end.code

    @property
    def close_reason(self) -> str:
        """Close reason of the end, foreign text when the client gave it; empty before the end."""
        end = self._session.connection.ended
        return "" if end is None else end.reason

    @property
    def initiator(self) -> Initiator | None:
        """Who ended the connection, None before the end."""
        end = self._session.connection.ended
        return None if end is None else end.initiator

    @property
    def identity(self) -> Identity | None:
        """Who is behind the connection, as a policy or `identify` said; None: nobody knows."""
        return self._session.terms.identity

    def identify(self, identity: Identity) -> None:
        """
        Say who is behind the connection: for an application that finds out by itself, or learns that it is another.

        What policies counted for the identity before stays counted there. After the end nothing hangs on it.

        Args:
            identity: Counts from now on, its expiry too.

        Raises:
            ValueError: It is no `Identity`, or malformed.
        """
        fault = identity_fault(identity)
        if fault is not None:
            raise ValueError(f"identity: {fault}")
        self._session.identify(identity)

    def renew(self, expires_unix_s: float | None) -> None:
        """
        Move the time at which the connection is closed with 4401, for a client that showed a fresh token.

        Args:
            expires_unix_s: Seconds since 1970; what is over closes the connection; None: never.

        Raises:
            ValueError: It is not a number of seconds.
            ProtocolError: Nobody knows who is behind the connection, so that nothing expires; see `identify`.
        """
        if expires_unix_s is not None and not is_finite(expires_unix_s):
            raise ValueError(f"expires_unix_s={expires_unix_s!r} is not a number of seconds since 1970, or None")
        identity = self.identity
        if identity is None:
            raise ProtocolError("renew() of a connection without an identity", self.state.value, None, ())
        self._session.identify(replace(identity, expires_unix_s=expires_unix_s))

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to end: the connection will be closed soon, and then its handler stopped."""
        return self._session.watch.drain.is_begun

    async def wait_draining(self) -> None:
        """
        Wait until `is_draining`: for a handler that wants to finish its work before it is closed.

        It does not return at the end of a connection that is not drained. Any number of tasks may wait; cancelling one
        is harmless.
        """
        await self._session.watch.drain.wait()

    @property
    def books(self) -> Books:
        """What became of every message so far, frozen."""
        return self._session.bookkeeping.books()

    async def wait_closed(self) -> None:
        """
        Wait for the end of the connection; a handler that never receives learns of a disconnect by it.

        Returns at once when the connection has ended. Any number of tasks may wait; cancelling one is harmless.
        """
        await self._session.wait_closed()

    def on_end(self, call: Callable[[ConnectionHandle], object]) -> None:
        """
        Call somebody at the end of the connection, whoever ends it; at once when it has ended.

        It is called once, on the event loop's thread, in whatever task brought the end about, before any observer hears
        of it and any other task can run: membership in a collection that is given up there is never seen of a
        connection that is gone.

        Args:
            call: A plain function that takes this handle and does not block; what it raises is logged.
        """
        self._session.on_end(call)


def current_connection() -> ConnectionHandle:
    """
    Give the handle on the connection whose handler is running, also in the tasks that the handler created.

    Returns:
        The handle; always the same object for one connection.

    Raises:
        LookupError: The caller runs in no guarded WebSocket connection.
    """
    handle = _current.get()
    if handle is None:
        raise LookupError("current_connection() needs a WebSocket connection behind WebSocketGuardMiddleware")
    return handle
