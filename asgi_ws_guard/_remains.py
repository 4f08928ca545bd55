"""
Takes from hypercorn what it still holds of a connection whose handler is done, as it keeps the connection until then.

Nobody receives it: only the books hear of it. Other servers are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ._loops import AsyncioLoop
from ._receiving import DRAIN_S
from ._servers import Hypercorn, hypercorn_of
from ._types import Receive

if TYPE_CHECKING:
    from ._session import Session


def take_remains(session: Session) -> None:
    """
    Let the server be rid of what the handler, which is done, left unread, if it waits until somebody reads.

    Args:
        session: The connection's session, which has not let go of the server.
    """
    loop, receiving = session.loop, session.receiving
    if not isinstance(loop, AsyncioLoop) or not session.connection.accepted:
        return
    with contextlib.suppress(RuntimeError):  # the handler is thrown away, and its loop is gone
        hypercorn = hypercorn_of(loop.current_task())
        if hypercorn is not None:
            loop.start(_read_the_rest(session, hypercorn, receiving.read), receiving.context)


async def _read_the_rest(session: Session, hypercorn: Hypercorn, read: Receive) -> None:
    """
    Read until nothing has come for a while, and nothing can.

    Whether there is anything cannot be seen: who waits for room goes on only in the next turn. And it delivers behind
    the disconnect what it had in its hands when the connection closed. Who repeats the disconnect is not hypercorn but
    a guard in between, which would do so for ever.
    """
    disconnects = 0
    with contextlib.suppress(Exception):  # nothing comes behind it, and there is nobody to raise it to
        is_served = True
        while is_served and disconnects < 2:
            is_served = hypercorn.is_served
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                while disconnects < 2:
                    message = await asyncio.wait_for(read(), DRAIN_S)
                    disconnects += message.get("type") == "websocket.disconnect"
                    session.take_in(message)
