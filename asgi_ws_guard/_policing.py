"""
Does what policies say about one connection: denies its handshake, closes it, and tells of what becomes of a message.

`_admission.py` asks them and knows answers alone; here the answers are carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ._admission import admit, judge
from ._close import CloseCode, legal_code, legal_reason
from ._events import DropReason, Handshake
from ._gates import Answered, ask, decided
from ._plugin import ALLOW, Allow, Close, Delay, Deny, Drop
from ._servers import peer_lost
from ._terms import Terms
from ._ticks import payload_size
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

    Raises:
        CancelledError: Somebody stopped it, a drain too, while they were asked or the denial was sent.
    """
    session.admitted, session.is_asking = [], True
    policy, decision = await admit(session.options.policies, handshake, session.admitted)
    session.is_asking = False
    if isinstance(decision, Terms):
        if decision.subprotocol not in handshake.subprotocols:  # what nobody offered fails the client's handshake
            decision = replace(decision, subprotocol=None)
        session.terms = decision
        if decision.identity is not None:
            session.identify(decision.identity)
        return True
    await refuse(session, policy, decision, send)
    return False


async def refuse(session: Session, policy: str, decision: Deny, send: Send) -> None:
    """
    Deny a handshake, of which the application has not heard.

    Args:
        session: The connection's session.
        policy: Name of the policy.
        decision: What it said.
        send: The server's `send`.
    """
    session.release()
    session.bookkeeping.decided(policy, "deny", decision.reason)
    session.tell(session.connection.deny(session.loop.time(), status=decision.end, response_status=decision.status))
    try:
        await deny(decision, send, can_answer=session.connection.can_deny)
    except Exception as error:
        if not peer_lost(error):
            raise
    session.has_ended()


async def passes(session: Session, message: Message) -> bool:
    """
    Ask the policies about one message of the application, and close if one says so.

    Args:
        session: The connection's session.
        message: A `websocket.send`.

    Returns:
        Whether it goes on its way.
    """
    if not session.asks_about_messages:
        return True
    decision = _judged(session, "sent", payload_size(message))
    if isinstance(decision, Close):
        await close_for(session, decision)
    return isinstance(decision, Allow)


def judged(session: Session, message: Message) -> Allow | Drop | Delay | Close:
    """
    Ask the policies, then the gates, about one message of the client, and tell of their answer.

    Args:
        session: The connection's session.
        message: A `websocket.receive`.

    Returns:
        What is to be done with it.
    """
    gates = session.terms.gates
    if not gates and not session.asks_about_messages:
        return ALLOW
    size = payload_size(message)
    decision = _judged(session, "received", size)
    if isinstance(decision, Allow) and gates:
        decision = gate_judged(session, _asked(session, size))
    if isinstance(decision, Allow | Delay) and session.telling is not None:
        session.telling.received(message)
    return decision


def gate_judged(session: Session, answer: object) -> Allow | Drop | Delay | Close:
    """
    Tell of what a gate answered.

    Args:
        session: The connection's session.
        answer: What the connection's gates answered or raised.

    Returns:
        What is to be done with the message.
    """
    policy, decision = decided(session.terms.gates, answer)
    if not isinstance(decision, Allow):
        session.bookkeeping.decided(policy, type(decision).__name__.lower(), decision.reason)
    return _with_name(session, policy, decision)


def _with_name(session: Session, policy: str, decision: Allow | Drop | Delay | Close) -> Allow | Drop | Delay | Close:
    """Let what a delay asks later be told of as the answer of its policy."""
    if isinstance(decision, Delay) and decision.then is not None:
        return replace(decision, then=partial(_judged_later, session, policy, decision.then))
    return decision


def _judged_later(session: Session, policy: str, then: Callable[[], object]) -> Allow | Drop | Delay | Close:
    """Ask what is to become of a message that was delayed, and tell of it: but one message is delayed once."""
    try:
        answer: object = then()
    except Exception as error:  # noqa: BLE001 - fail closed
        answer = error
    _, decision = decided(session.terms.gates, Answered(policy, answer))
    if isinstance(decision, Delay) and session.connection.ended is not None:
        decision = Drop(decision.reason)  # nobody waits any more
    if isinstance(decision, Drop | Close):
        session.bookkeeping.decided(policy, type(decision).__name__.lower(), decision.reason)
    return _with_name(session, policy, decision)


def close_soon(session: Session, decision: Close) -> None:
    """
    Close a connection for a policy, unless it has ended; a task of the guard's sends the close.

    Whoever received or sent the message may be cancelled, or done, before the server has taken it.

    Args:
        session: The connection's session, on an event loop with tasks.
        decision: What the policy said.
    """
    if session.connection.ended is None:
        code, reason = _end_for(session, decision)
        session.sending.close_soon(code, reason)


async def close_for(session: Session, decision: Close) -> None:
    """
    Close a connection for a policy, unless it has ended; where there are no tasks, in the caller's.

    Args:
        session: The connection's session.
        decision: What the policy said.
    """
    if session.loop.has_tasks:
        close_soon(session, decision)
    elif session.connection.ended is None:
        code, reason = _end_for(session, decision)
        await session.sending.close(code, reason, keep_errors=True)


def _end_for(session: Session, decision: Close) -> tuple[int, str]:
    code, reason = legal_code(decision.code), legal_reason(decision.reason)
    session.end(DropReason.GUARD_CLOSED, decision.end, code, reason)
    return code, reason


def _judged(session: Session, direction: Literal["received", "sent"], size: int) -> Allow | Drop | Delay | Close:
    policies = session.options.message_policies
    policy, decision = judge(policies, session.connection_id, direction, size)
    if not isinstance(decision, Allow):
        session.bookkeeping.decided(policy, type(decision).__name__.lower(), decision.reason)
    return decision


def _asked(session: Session, size: int) -> object:
    """Ask the gates beside the path; what passed there on credit comes first."""
    try:
        session.path.settle()
    except Exception as error:  # noqa: BLE001 - fail closed
        return error
    return ask(session.terms.gates, size)


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
