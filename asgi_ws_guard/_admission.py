"""
Asks the policies: who may come in, and what of a message.

It knows answers and no actions. A policy that raises is taken as the strictest answer it could have given, and that is
reported through the standard logger ``asgi_ws_guard``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ._close import CloseCode, CloseStatus
from ._dispatch import name_of
from ._events import Handshake, Identity
from ._loops import AsyncioLoop, TrioLoop, cancelled_itself
from ._plugin import ALLOW, Allow, Close, Deny, Drop, FirstMessage, MessagePolicy, Policy, ReleasingPolicy
from ._terms import NO_TERMS, Terms, allow_fault, close_fault, deny_fault

_log = logging.getLogger("asgi_ws_guard")
FAILED = "policy_failed"


async def admit(policies: Sequence[Policy], handshake: Handshake, admitted: list[Policy]) -> tuple[str, Terms | Deny]:
    """
    Ask every policy whether a client may come in, until one denies.

    Args:
        policies: In the order in which they are asked.
        handshake: What the client asked for; each policy gets it with the identity that those before it found.
        admitted: Takes each policy that answered `Allow`, at once, for `release`.

    Returns:
        The name of the policy that denied and its answer, or an empty name and the terms of all.
    """
    terms = NO_TERMS
    for policy in policies:
        if handshake.identity is not terms.identity:
            handshake = replace(handshake, identity=terms.identity)
        decision = await _ask(policy, handshake, admitted)
        if isinstance(decision, Deny):
            return name_of(policy), decision
        terms = terms.adding(name_of(policy), decision)
    return "", terms


async def _ask(policy: Policy, handshake: Handshake, admitted: list[Policy]) -> Allow | Deny:
    """Ask one policy; its answer is known to be without fault."""
    try:
        answer = policy.admit(handshake)
        decision: object = await answer if inspect.isawaitable(answer) else answer
        if isinstance(decision, Allow):
            admitted.append(policy)
            fault = allow_fault(decision)
        elif isinstance(decision, Deny):
            fault = deny_fault(decision)
        else:
            return Deny(body=b"", reason="not_a_decision")
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and not cancelled_itself():
            raise
        _report(name_of(policy), error, "a handshake: denied")  # fail closed
        return Deny(status=500, body=b"", reason=FAILED)
    if fault is not None:
        _log.error("policy %s gave a malformed answer at a handshake: denied: %s", name_of(policy), fault)
        return Deny(status=500, body=b"", reason=FAILED)
    return decision


async def welcome(
    first_messages: Sequence[tuple[str, FirstMessage]],
    payload: str | bytes,
    loop: AsyncioLoop | TrioLoop,
    until_s: float,
) -> tuple[str, Identity | Close | None]:
    """
    Ask every policy that wants to about the first message of a connection, until one does not allow it.

    Args:
        first_messages: Name of the policy and what answers, in the order in which they are asked.
        payload: The message.
        loop: The connection's loop.
        until_s: Time of the loop until which all have to have answered.

    Returns:
        The name of the policy that answered last, and its `Close`, or the last identity that was found, None without
        any.
    """
    name, known = "", None
    for name, first in first_messages:
        is_done, decision, fault = True, None, None
        try:
            decision = first(payload)
            if inspect.isawaitable(decision):
                is_done, decision = await loop.within(decision, until_s - loop.time())
            fault = _welcome_fault(decision) if is_done else None
        except Exception as error:  # noqa: BLE001 - fail closed
            _report(name, error, "a first message: closed")
            return name, _FAILED
        if not is_done:
            return name, LATE
        if fault is not None:
            _log.error("policy %s gave a malformed answer at a first message: closed: %s", name, fault)
            return name, _FAILED
        if isinstance(decision, Close):
            return name, decision
        known = decision.identity or known
    return name, known


LATE = Close(int(CloseCode.UNAUTHORIZED), "first_message_timeout")
"""How a connection is closed whose first message, or the answer to it, does not come in time."""
_FAILED = Close(int(CloseCode.UNAUTHORIZED), FAILED)


def _welcome_fault(answer: object) -> str | None:
    if isinstance(answer, Allow):
        return allow_fault(answer)
    return close_fault(answer) if isinstance(answer, Close) else f"{type(answer).__name__} is no Allow and no Close"


def release(admitted: list[Policy], connection_id: str) -> None:
    """
    Tell the policies that let a connection in of its end, those that want to know, each once, the last one first.

    Args:
        admitted: Those that answered `Allow`; empty afterwards.
        connection_id: The connection.
    """
    while admitted:
        policy = admitted.pop()
        try:
            if isinstance(policy, ReleasingPolicy):
                policy.release(connection_id)
        except Exception as error:  # noqa: BLE001 - the others are to hear of it too
            _report(name_of(policy), error, "a release")


def judge(
    policies: Sequence[MessagePolicy], connection_id: str, direction: Literal["received", "sent"], size: int
) -> tuple[str, Allow | Drop | Close]:
    """
    Ask every policy about one message, until one does not allow it.

    Args:
        policies: In the order in which they are asked.
        connection_id: The connection it belongs to.
        direction: ``"received"`` from the client or ``"sent"`` by the application.
        size: Length of the payload, in bytes of UTF-8 for text.

    Returns:
        The name of the policy that answered last, and its answer.
    """
    for policy in policies:
        try:
            decision = policy.message(connection_id, direction, size)
        except Exception as error:  # noqa: BLE001 - fail closed
            _report(name_of(policy), error, "a message: closed")
            decision = Close(int(CloseCode.INTERNAL_ERROR), FAILED, CloseStatus.APP_ERROR)
        if not isinstance(decision, Allow):
            return name_of(policy), decision
    return "", ALLOW


def _report(policy: str, error: BaseException, at: str) -> None:
    """Log what a policy raised and where, without its text: that of a `KeyError` is the token which was looked up."""
    stack = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    _log.error("policy %s raised %s at %s\n%s", policy, type(error).__qualname__, at, stack)
