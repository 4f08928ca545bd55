"""
Does what policies say about one connection: denies its handshake, drops a message, closes it.

`_admission.py` asks them and knows answers alone; here the answers are carried out.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ._admission import admit, judge
from ._close import CloseCode, legal_code, legal_reason
from ._events import DropReason, Handshake, PolicyApplied
from ._lanes import payload_size
from ._plugin import Allow, Close, Deny, Drop
from ._servers import peer_lost
from ._terms import Terms
from ._types import Message, Send

if TYPE_CHECKING:
    from ._session import Session


async def admits(session: Session, handshake: Handshake, send: Send) -> bool:
    """
    Ask the policies whether a client may come in, and deny for them.

    Args:
        session: The connection's session.
        handshake: What the client asked for.
        send: The server's `send`.

    Returns:
        Whether the application is to be called.
    """
    policy, decision = await admit(session.options.policies, handshake, session.admitted)
    if isinstance(decision, Terms):
        if decision.subprotocol not in handshake.subprotocols:  # what nobody offered fails the client's handshake
            decision = replace(decision, subprotocol=None)
        session.terms = decision
        if decision.identity is not None:
            session.identify(decision.identity)
        return True
    session.release()
    _tell(session, policy, "deny", decision.reason)
    session.tell(session.connection.deny(session.loop.time(), status=decision.end, response_status=decision.status))
    try:
        await deny(decision, send, can_answer=handshake.can_deny)
    except Exception as error:
        if not peer_lost(error):
            raise
    session.has_ended()
    return False


async def passes(session: Session, direction: Literal["received", "sent"], message: Message) -> bool:
    """
    Ask the policies about one message, and close if one says so.

    Args:
        session: The connection's session.
        direction: ``"received"`` from the client or ``"sent"`` by the application.
        message: The message.

    Returns:
        Whether it goes on its way.
    """
    if not session.asks_about_messages:
        return True
    decision = _judged(session, direction, message)
    if isinstance(decision, Close) and session.connection.ended is None:
        code, reason = legal_code(decision.code), legal_reason(decision.reason)
        session.end(DropReason.GUARD_CLOSED, decision.end, code, reason)
        await session.sending.close(code, reason, keep_errors=True)
    return isinstance(decision, Allow)


def allows(session: Session, direction: Literal["received", "sent"], message: Message) -> bool:
    """
    Ask the policies about one message of a connection that has ended: there is nothing left to close.

    Args:
        session: The connection's session.
        direction: ``"received"`` from the client or ``"sent"`` by the application.
        message: The message.

    Returns:
        Whether it goes on its way.
    """
    return not session.asks_about_messages or isinstance(_judged(session, direction, message), Allow)


def _judged(session: Session, direction: Literal["received", "sent"], message: Message) -> Allow | Drop | Close:
    policies, size = session.options.message_policies, payload_size(message)
    policy, decision = judge(policies, session.connection_id, direction, size)
    if not isinstance(decision, Allow):
        _tell(session, policy, type(decision).__name__.lower(), decision.reason)
    elif direction == "received" and session.telling is not None:
        session.telling.received(message)
    return decision


def _tell(session: Session, policy: str, decision: str, reason: str) -> None:
    session.tell((PolicyApplied(session.connection_id, session.loop.time(), policy, decision, reason),))


async def deny(decision: Deny, send: Send, *, can_answer: bool) -> None:
    """
    Send a denial, in one go: uvicorn's websockets implementation loses a body that comes a turn later.

    Args:
        decision: The denial.
        send: The server's `send`.
        can_answer: Whether the server can send an HTTP answer.
    """
    if not can_answer:
        await send({"type": "websocket.close", "code": int(CloseCode.POLICY_VIOLATION), "reason": ""})
        return
    body = decision.body
    if body is None:
        body = json.dumps({"error": decision.reason, "status": decision.status}).encode("ascii")
    headers = [(name, value) for name, value in decision.headers if name != b"content-length"]
    if body and all(name != b"content-type" for name, _ in headers):
        headers.append((b"content-type", _JSON if decision.body is None else _PLAIN))
    headers.append((b"content-length", str(len(body)).encode("ascii")))
    await send({"type": "websocket.http.response.start", "status": decision.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


_JSON = b"application/json"
_PLAIN = b"text/plain; charset=utf-8"
