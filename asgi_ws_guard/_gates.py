"""
Asks the gates of one connection about a message that it received, and takes their answers for what they are.

It knows answers and no actions, as `_admission.py`. A gate that raises, or answers what is none, is taken as closing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ._admission import FAILED
from ._close import CloseCode, CloseStatus
from ._plugin import ALLOW, Allow, Close, Delay, Drop, Gate
from ._terms import close_fault, is_finite

_log = logging.getLogger("asgi_ws_guard")


class Answered(NamedTuple):
    """
    What the gate of a policy said.

    Attributes:
        policy: Name of its policy.
        answer: Its answer, or what it raised.
    """

    policy: str
    answer: object


def one_gate(gates: tuple[tuple[str, Gate], ...]) -> Callable[[int], object] | None:
    """
    Make one gate of those of a connection.

    Args:
        gates: Name of the policy and its gate, in the order in which they are asked.

    Returns:
        The gate itself when it is alone; else one that asks until a gate does not allow; None when there is none.
    """
    if len(gates) < 2:
        return gates[0][1] if gates else None
    return partial(ask, gates)


def ask(gates: tuple[tuple[str, Gate], ...], size: int) -> object:
    """
    Ask the gates of a connection until one does not allow.

    Args:
        gates: Name of the policy and its gate, in the order in which they are asked.
        size: Length of the payload, in bytes of UTF-8 for text.

    Returns:
        `ALLOW`, or what the last of them `Answered`.
    """
    for policy, gate in gates:
        try:
            answer: object = gate(size)
        except Exception as error:  # noqa: BLE001 - fail closed
            answer = error
        if answer is not ALLOW and not isinstance(answer, Allow):
            return Answered(policy, answer)
    return ALLOW


def decided(gates: tuple[tuple[str, Gate], ...], answer: object) -> tuple[str, Allow | Drop | Delay | Close]:
    """
    Make a decision of what a gate answered or raised.

    Args:
        gates: Those that were asked.
        answer: What came of it.

    Returns:
        The name of the policy, and its decision, in which there is no fault.
    """
    policy = gates[0][0]
    if isinstance(answer, Answered):
        policy, answer = answer
    if isinstance(answer, Exception):
        _log.error("the gate of policy %s raised: closed", policy, exc_info=answer)
        return policy, Close(int(CloseCode.INTERNAL_ERROR), FAILED, CloseStatus.APP_ERROR)
    fault = _fault(answer)
    if fault is None and isinstance(answer, Allow | Drop | Delay | Close):
        return policy, answer
    _log.error("the gate of policy %s gave a malformed answer: closed: %s", policy, fault)
    return policy, Close(int(CloseCode.INTERNAL_ERROR), FAILED, CloseStatus.APP_ERROR)


def _fault(answer: object) -> str | None:
    """Say what is wrong with an answer of a gate; None when nothing is."""
    if isinstance(answer, Close):
        return close_fault(answer)
    reason: object = getattr(answer, "reason", "")
    if not isinstance(reason, str):
        return f"reason is {type(reason).__name__}, not str"
    if isinstance(answer, Delay) and not (is_finite(answer.delay_s) and answer.delay_s > 0):
        return f"delay_s is {answer.delay_s!r}, not a number of seconds more than 0"
    then: object = getattr(answer, "then", None)
    if then is not None and not callable(then):
        return "then is not callable, or None"
    return None if isinstance(answer, Allow | Drop | Delay) else f"{type(answer).__name__} is not a decision"
