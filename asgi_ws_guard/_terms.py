"""
What the policies of one connection laid down when they let it in, merged; and what is wrong with an answer of theirs.

A policy is foreign code: whatever it answers is looked at before anything is done by it. This module asks nobody and
carries nothing out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ._close import CloseCode, CloseStatus, may_send
from ._events import Identity
from ._plugin import ALLOW, Allow, Close, Deadlines, Deny, FirstMessage, Gate, gives_credit

_NO_DEADLINES = Deadlines()


@dataclass(frozen=True, slots=True)
class Terms:
    """
    On what terms a client was let in. It is replaced as a whole when an identity becomes known or is renewed.

    Attributes:
        identity: Who it is; the last policy that knew counts. None: unknown.
        subprotocol: What is answered for an application that accepts without one; the last policy with one counts.
        hidden_subprotocols: Offers that the application is not to see.
        gates: Name of the policy and its gate, in the order in which they are asked.
        first_messages: Name of the policy and what answers the first message, in the order in which they are asked.
        deadlines: The shortest of each.
    """

    identity: Identity | None = None
    subprotocol: str | None = None
    hidden_subprotocols: frozenset[str] = field(default=frozenset(), repr=False)
    gates: tuple[tuple[str, Gate], ...] = ()
    first_messages: tuple[tuple[str, FirstMessage], ...] = ()
    deadlines: Deadlines = _NO_DEADLINES

    def adding(self, policy: str, answer: Allow) -> Terms:
        """
        Add what one more policy laid down.

        Args:
            policy: Name of the policy.
            answer: Its answer, in which there is no fault.
        """
        if answer is ALLOW:
            return self
        gate, first = answer.gate, answer.first_message
        return Terms(
            identity=self.identity if answer.identity is None else answer.identity,
            subprotocol=self.subprotocol if answer.subprotocol is None else answer.subprotocol,
            hidden_subprotocols=self.hidden_subprotocols.union(answer.hidden_subprotocols),
            gates=self.gates if gate is None else (*self.gates, (policy, gate)),
            first_messages=self.first_messages if first is None else (*self.first_messages, (policy, first)),
            deadlines=self.deadlines if answer.deadlines is None else shortest(self.deadlines, answer.deadlines),
        )

    def knowing(self, identity: Identity) -> Terms:
        """
        Give the same terms for a client whose identity is known now.

        Args:
            identity: In which there is no fault.
        """
        return replace(self, identity=identity)


NO_TERMS = Terms()
MAX_LABEL = 200
"""Characters of an identity's label that observers are told."""


def shortest(one: Deadlines, other: Deadlines) -> Deadlines:
    """
    Give the shorter of each deadline; a close code goes with its deadline.

    Args:
        one: Deadlines.
        other: More of them, which give way where they are as long.
    """
    idle = other if _earlier(other.idle_s, one.idle_s) else one
    age = other if _earlier(other.max_age_s, one.max_age_s) else one
    return Deadlines(
        handshake_s=other.handshake_s if _earlier(other.handshake_s, one.handshake_s) else one.handshake_s,
        idle_s=idle.idle_s,
        max_age_s=age.max_age_s,
        send_s=other.send_s if _earlier(other.send_s, one.send_s) else one.send_s,
        idle_code=idle.idle_code,
        max_age_code=age.max_age_code,
    )


def allow_fault(answer: Allow) -> str | None:
    """
    Say what is wrong with what a policy laid down.

    Args:
        answer: An `Allow`, of whose fields nothing is known.

    Returns:
        A sentence that names the field, never a value of an identity or a token; None when nothing is wrong.
    """
    first = answer.first_message
    for is_wrong, fault in (
        (answer.identity is not None and identity_fault(answer.identity), "identity"),
        (not _is_word_or_none(answer.subprotocol), "subprotocol is not a word, or None"),
        (not _are_texts(answer.hidden_subprotocols), "hidden_subprotocols are not a tuple of str"),
        (not (answer.gate is None or callable(answer.gate)), "gate is not callable, or None"),
        (gives_credit(answer.gate) and _credit_fault(answer.gate), "gate"),
        (not (first is None or callable(first)), "first_message is not callable, or None"),
        (first is not None and not _is_duration(getattr(first, "timeout_s", None)), "first_message.timeout_s"),
        (answer.deadlines is not None and deadlines_fault(answer.deadlines), "deadlines"),
    ):
        if is_wrong:
            return f"{fault}: {is_wrong}" if isinstance(is_wrong, str) else fault
    return None


def _credit_fault(gate: object) -> str | None:
    if not all(callable(getattr(gate, name, None)) for name in ("credit", "settle")):
        return "credit and settle are not methods"
    return None if type(getattr(gate, "credit_bytes", None)) is int else "credit_bytes is not int"


def identity_fault(identity: object) -> str | None:
    """
    Say what is wrong with an identity.

    Args:
        identity: Anything.

    Returns:
        A sentence without the subject; None when nothing is wrong.
    """
    if not isinstance(identity, Identity):
        return f"{type(identity).__name__} is not an Identity"
    try:
        hash(identity.subject)
    except Exception:  # noqa: BLE001 - whatever a foreign hash raises
        return f"subject of type {type(identity.subject).__name__} is not hashable"
    if identity.expires_unix_s is not None and not is_finite(identity.expires_unix_s):
        return "expires_unix_s is not a number of seconds, or None"
    return None if isinstance(identity.label, str) else "label is not str"


def shown(label: str) -> str:
    """
    Make a label fit for every log and page, whatever a user may be called.

    Args:
        label: Text of any length, with any characters.

    Returns:
        At most `MAX_LABEL` characters, unprintable ones as ``?``.
    """
    return "".join(one if one.isprintable() else "?" for one in label[:MAX_LABEL])


def deadlines_fault(deadlines: object) -> str | None:
    """
    Say what is wrong with deadlines.

    Args:
        deadlines: Anything.

    Returns:
        A sentence; None when nothing is wrong.
    """
    if not isinstance(deadlines, Deadlines):
        return f"{type(deadlines).__name__} is not Deadlines"
    for name in ("handshake_s", "idle_s", "max_age_s", "send_s"):
        value = getattr(deadlines, name)
        if value is not None and not _is_duration(value):
            return f"{name} is {value!r}, not a number of seconds more than 0, or None"
    for name in ("idle_code", "max_age_code"):
        if not is_close_code(getattr(deadlines, name)):
            return f"{name} is {getattr(deadlines, name)!r}, not a close code that may be sent"
    return None


def deny_fault(answer: Deny) -> str | None:
    """
    Say what is wrong with a denial.

    Args:
        answer: A `Deny`, of whose fields nothing is known.

    Returns:
        A sentence; None when nothing is wrong.
    """
    if type(answer.status) is not int or not 400 <= answer.status <= 599:
        return f"status is {answer.status!r}, not 400 to 599"
    if type(answer.body) not in (bytes, type(None)):
        return "body is not bytes, or None"
    if not _are_headers(answer.headers):
        return "headers are not pairs of lower-case name and value in bytes, each on one line"
    return _words_fault(answer.reason, answer.end)


def close_fault(answer: Close) -> str | None:
    """
    Say what is wrong with a close.

    Args:
        answer: A `Close`, of whose fields nothing is known. A code that may not be sent is none, it is made legal.

    Returns:
        A sentence; None when nothing is wrong.
    """
    if type(answer.code) not in (int, CloseCode):
        return f"code is {answer.code!r}, not int"
    return _words_fault(answer.reason, answer.end)


def is_finite(value: object) -> bool:
    """Tell whether a value is a number that can be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_close_code(value: object) -> bool:
    """Tell whether a value is a close code that may be sent."""
    return isinstance(value, int) and not isinstance(value, bool) and may_send(value)


def _is_duration(value: object) -> bool:
    return is_finite(value) and isinstance(value, int | float) and value > 0


def _earlier(one: float | None, other: float | None) -> bool:
    return one is not None and (other is None or one < other)


def _words_fault(reason: object, end: object) -> str | None:
    if not isinstance(reason, str):
        return f"reason is {type(reason).__name__}, not str"
    return None if isinstance(end, CloseStatus) else f"end is {type(end).__name__}, not a CloseStatus"


def _is_word_or_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and _is_token(value))


def _is_token(value: str) -> bool:
    """Tell whether a text is one token of a header (RFC 9110, section 5.6.2)."""
    return bool(value) and value.isascii() and all(one.isalnum() or one in "!#$%&'*+-.^_`|~" for one in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and all(isinstance(one, str) for one in value)


def _are_headers(value: object) -> bool:
    if not isinstance(value, tuple | list):
        return False
    return all(isinstance(pair, tuple | list) and len(pair) == 2 and _is_header(*pair) for pair in value)


def _is_header(name: object, value: object) -> bool:
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        return False
    is_name = _is_token(name.decode("latin-1")) and name == name.lower()
    return is_name and not any(one in value for one in (b"\r", b"\n", b"\0"))
