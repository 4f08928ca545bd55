"""
The handle on a connection: what a handler may know of it, and the context variable that leads there.

Beside the record of what the adapters replaced, the context variable is the only global of this package. A session sets
it for its handler; the tasks that the handler creates inherit it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ._close import Initiator
from ._events import Books
from ._state import State

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
    def books(self) -> Books:
        """What became of every message so far, frozen."""
        return self._session.books()

    async def wait_closed(self) -> None:
        """
        Wait for the end of the connection; a handler that never receives learns of a disconnect by it.

        Returns at once when the connection has ended. Any number of tasks may wait; cancelling one is harmless.
        """
        await self._session.wait_closed()


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
