"""
How one connection begins: its two sides, its path, and whether its client may come in.

It ends when the application is to be called, or the handshake was denied. What policies say is asked and carried out by
`_policing.py`; the application's own answer, the accept, is not its business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._adapter import HANDLE_KEY
from ._drain import POLICY as DRAIN
from ._entrance import Entrance
from ._events import Handshake, Opened
from ._gates import one_gate
from ._handle import _current
from ._path import Path
from ._policing import admits, refuse
from ._receiving import Receiving
from ._scope import handshake_of, hide
from ._sending import Sending
from ._servers import cancel_loses_messages
from ._terms import NO_TERMS
from ._types import Receive, Scope, Send

if TYPE_CHECKING:
    from ._session import Session


async def start(session: Session, scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Make the path of a connection, and ask the policies whether the client may come in.

    Args:
        session: The connection's session, which is new.
        scope: The application's scope; the handle is put into it.
        receive: The server's `receive`.
        send: The server's `send`.

    Returns:
        Whether the application is to be called, with the receive and send of the session; else it was denied.
    """
    _make_sides(session, receive, send)
    scope[HANDLE_KEY] = session.handle
    session.outer = _current.get()
    _current.set(session.handle)
    handshake: Handshake | None = None
    if session.watch.dispatch.observers or session.options.policies:
        handshake = handshake_of(scope, session.connection_id)
        session.tell((Opened(session.connection_id, session.loop.time(), handshake),))
    await session.receiving.connect()
    if await _is_refused(session, send):
        return False
    if handshake is None or not session.options.policies:
        return True
    try:
        is_admitted = await admits(session, handshake, send)
    except asyncio.CancelledError:
        if not (session.is_asking and session.handler_done()):
            raise
        is_admitted = True  # as far as they answered before the deadline of a drain, which denies
    session.is_asking = False
    if is_admitted and await _is_refused(session, send):
        return False
    hide(scope, session.terms.hidden_subprotocols)
    if is_admitted and session.terms is not NO_TERMS:
        _agree(session, receive, send)
    if session.terms.first_messages:
        session.entrance = Entrance(session)
    return is_admitted


def _make_sides(session: Session, receive: Receive, send: Send) -> None:
    """Make the receiving and the sending side, and a path between them."""
    never_direct = session.loop.has_tasks and cancel_loses_messages()
    session.receiving = Receiving(session, receive, never_direct=never_direct)
    session.sending = Sending(session, send)
    if session.options.send_timeout_s is not None:
        session.watch.keep(session.options.send_timeout_s)
        session.sending.keep_deadline(session.options.send_timeout_s, session.watch.in_flight)
    _make_path(session, receive, send)


async def _is_refused(session: Session, send: Send) -> bool:
    """Deny the handshake when it comes in a drain, and say whether it did."""
    drain = session.watch.drain
    if drain.is_begun:
        await refuse(session, DRAIN, drain.denial(), send)
    return drain.is_begun


def _agree(session: Session, receive: Receive, send: Send) -> None:
    """Keep to the terms on which the client was let in."""
    deadlines, before = session.terms.deadlines, session.sending.in_flight
    limits = (deadlines.handshake_s, deadlines.idle_s, deadlines.max_age_s, deadlines.send_s)
    for limit_s in limits:
        if limit_s is not None:
            session.watch.keep(limit_s)
    if deadlines.send_s is not None:
        session.sending.keep_deadline(deadlines.send_s, session.watch.in_flight)
    if session.sending.in_flight is not before or session.terms.gates:
        _make_path(session, receive, send)
    session.keep_time().identify()


def _make_path(session: Session, receive: Receive, send: Send) -> None:
    """Make the path, of the lanes that are wanted now, and let the watch look at it."""
    sides, in_flight = (session.receiving, session.sending), session.sending.in_flight
    measured, gate = session.watch.dispatch.asks_for("wants_sizes"), one_gate(session.terms.gates)
    session.path = Path(receive, send, *sides, in_flight, measured=measured, gate=gate)
    if session.receiving.stop_before_close:
        session.path.block_reads()
    session.watch.add(session)
