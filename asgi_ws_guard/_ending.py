"""
What the guard does when a handler is done (G6, G8): it closes what the handler left open, and closes the books.

What ends a connection while its handler runs is not its business: `Session.end` and `Session.has_ended` are the way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._close import CloseStatus, Initiator
from ._edge import without_disconnects
from ._events import DropReason
from ._handle import _current
from ._remains import take_remains
from ._state import State

if TYPE_CHECKING:
    from ._session import Session


async def settle(session: Session, error: BaseException | None) -> BaseException | None:
    """
    End a connection if its handler, which is done, did not.

    Args:
        session: The connection's session.
        error: What left the application.

    Returns:
        What is left of the error: None when it says no more than that the connection is gone (G8).
    """
    cancelled_by_guard = session.handler_done()
    if cancelled_by_guard and isinstance(error, asyncio.CancelledError):
        error = None
    if session.connection.ended is None:
        session.receiving.poll()
    end = session.connection.ended
    if end is not None and error is not None:
        left = without_disconnects(error, peer_left=end.initiator is not Initiator.APPLICATION)
        session.absorbed = error if left is None else None
        error = left
    try:
        await _wind_up(session, error)
    except asyncio.CancelledError:
        if not session.was_stopped():
            raise
    return error


def finish(session: Session, error: BaseException | None) -> None:
    """
    Close the books of a connection, and tell the terminal event.

    Args:
        session: The connection's session, also when it was denied, or lost in its start.
        error: What leaves the guard.
    """
    _current.set(session.outer)
    session.handler_done()  # a client that was denied by a policy, or lost in `start`, has had no handler
    session.release()
    session.end(DropReason.HANDLER_DONE, CloseStatus.SHUTDOWN, None)
    session.has_ended()
    session.let_go()
    if session.timing is not None:
        session.timing.let_go()
    if session.entrance is not None:
        session.entrance.let_go()
    take_remains(session)
    session.receiving.finish()
    session.sending.finish()
    session.path.let_go()
    if session.telling is not None:
        session.telling.handled()
    session.tell(session.bookkeeping.close(error))
    session.absorbed = None


async def _wind_up(session: Session, error: BaseException | None) -> None:
    """Close, unless that was done, and wait for what the guard still does."""
    try:
        if session.connection.ended is None:
            await _end_for_handler(session, error)
        if session.timing is not None:
            await session.timing.finish()
        if session.entrance is not None:
            await session.entrance.stop()
        await session.sending.finish_close(keep_errors=error is None)
    finally:
        session.give_up_close()  # no task is left behind when the wait for one was cancelled
        await session.receiving.stop()


async def _end_for_handler(session: Session, error: BaseException | None) -> None:
    """Close for a handler that is done; a handshake without an answer is left to the server."""
    status = CloseStatus.APP_CLOSE if session.connection.accepted else CloseStatus.DENIED
    code = session.options.close_on_return
    if error is not None:
        is_error = isinstance(error, Exception)
        status = CloseStatus.APP_ERROR if is_error else CloseStatus.SHUTDOWN
        code = session.options.close_on_error if is_error else None
    if session.connection.state is not State.OPEN or not session.connection.answers:
        code = None  # also when the server did not take the accept: a close would be a denial (403) to it
    session.end(DropReason.HANDLER_DONE, status, code)
    if code is None:
        session.has_ended()  # before anything is awaited: no close comes that would shut the path
    else:
        await session.sending.close(code, "", keep_errors=error is None, translate=error is None)
