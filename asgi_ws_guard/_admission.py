"""
Asks the policies: who may come in, and what of a message.

It knows answers and no actions. A policy that raises is taken as the strictest answer it could have given, and that is
reported through the standard logger ``asgi_ws_guard``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Literal

from ._close import CloseCode, CloseStatus
from ._dispatch import name_of
from ._events import Handshake
from ._plugin import ALLOW, Allow, Close, Deny, Drop, MessagePolicy, Policy

_log = logging.getLogger("asgi_ws_guard")
FAILED = "policy_failed"


async def admit(policies: Sequence[Policy], handshake: Handshake) -> tuple[str, Allow | Deny]:
    """
    Ask every policy whether a client may come in, until one denies.

    Args:
        policies: In the order in which they are asked.
        handshake: What the client asked for.

    Returns:
        The name of the policy that answered last, and its answer.
    """
    for policy in policies:
        try:
            answer = policy.admit(handshake)
            decision = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - fail closed
            _log.error("policy %s raised at a handshake: denied", name_of(policy), exc_info=error)
            decision = Deny(status=500, reason=FAILED)
        if not isinstance(decision, Allow):
            return name_of(policy), decision if isinstance(decision, Deny) else Deny(reason="not_a_decision")
    return "", ALLOW


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
            _log.error("policy %s raised at a message: closed", name_of(policy), exc_info=error)
            decision = Close(int(CloseCode.INTERNAL_ERROR), FAILED, CloseStatus.APP_ERROR)
        if not isinstance(decision, Allow):
            return name_of(policy), decision
    return "", ALLOW
