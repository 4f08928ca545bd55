"""
The options of the guard, checked when it is built and never later.

A wrong value raises `ConfigurationError`, which names the option, the value and what is allowed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._close import CloseCode, may_send
from ._exceptions import ConfigurationError
from ._plugin import MessagePolicy, Observer, Policy

LateSends = Literal["drop", "raise"]
Apply = Callable[[], object]
"""An adapter of the application's own; called once, when a guard is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """
    How the connections of a process that is about to end are brought to theirs.

    Attributes:
        deadline_s: Seconds until the handlers that still run are cancelled, more than 0. Every close is asked for in
            the first half of them. With `stop_s` it is to be less than what the process gets from SIGTERM to SIGKILL:
            10 s of ``docker stop``, 30 s of Kubernetes.
        notice_s: Seconds between telling the connections and the first close, at most a quarter of `deadline_s`: for
            handlers that end by themselves.
        stop_s: Seconds that a cancelled handler gets to clean up, 0 or more; then it is reported as still running.
        batch: Connections that are closed at once, 1 or more; more, where that would not fit into half the deadline.
        every_s: Seconds from one batch to the next on average, each between half and one and a half of it; 0 or more.
        code: Close code that may be sent: 1012 asks the client to come again, 1001 says no more than that we go.
        retry_after_s: Whole seconds, the least and the most, that a client is asked to wait: in the close reason, as
            ``retry_after=12``, and in the header ``Retry-After`` of a denial. By chance, for each client another.

    Raises:
        ConfigurationError: One of them is not allowed.
    """

    deadline_s: float = 8.0
    notice_s: float = 0.0
    stop_s: float = 1.0
    batch: int = 100
    every_s: float = 0.1
    code: int = int(CloseCode.SERVICE_RESTART)
    retry_after_s: tuple[int, int] = (1, 30)

    def __post_init__(self) -> None:
        deadline_s = _number("deadline_s", self.deadline_s, "a number of seconds, more than 0", zero=False)
        allowed = "a number of seconds, 0 or more"
        notice_s = _number("notice_s", self.notice_s, allowed, zero=True)
        if notice_s > deadline_s / 4:
            raise ConfigurationError("notice_s", self.notice_s, f"at most a quarter of deadline_s={deadline_s:g}")
        _number("stop_s", self.stop_s, allowed, zero=True)
        _number("every_s", self.every_s, allowed, zero=True)
        if not _is_whole(self.batch) or self.batch < 1:
            raise ConfigurationError("batch", self.batch, "a whole number, 1 or more")
        if _code("code", self.code) is None:
            raise ConfigurationError("code", self.code, f"{_CODES}")
        wait = self.retry_after_s
        if not isinstance(wait, Sequence) or len(wait) != 2 or not all(map(_is_whole, wait)):
            raise ConfigurationError("retry_after_s", wait, _WAIT)
        if not 0 <= wait[0] <= wait[1] <= MAX_RETRY_AFTER_S:
            raise ConfigurationError("retry_after_s", wait, _WAIT)


MAX_RETRY_AFTER_S = 86_400
_CODES = "a close code that may be sent (1000 to 1014, 3000 to 4999)"
_WAIT = f"two whole numbers of seconds, the lesser one first, 0 to {MAX_RETRY_AFTER_S}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a guard was built with; `WebSocketGuardMiddleware` describes each."""

    late_sends: LateSends
    linger_s: float
    cancel_after_s: float | None
    watch: bool
    send_timeout_s: float | None
    close_on_return: int | None
    close_on_error: int | None
    policies: tuple[Policy, ...]
    message_policies: tuple[MessagePolicy, ...]
    drain: Drain | None

    @property
    def asks(self) -> bool:
        """Whether there is any policy."""
        return bool(self.policies or self.message_policies)


def check_options(
    *,
    late_sends: object,
    linger_s: object,
    cancel_after_s: object,
    watch: object,
    send_timeout_s: object,
    close_codes: tuple[object, object],
    policies: object,
    drain: object,
) -> Options:
    """
    Check every option but the observers.

    Returns:
        The options, frozen.

    Raises:
        ConfigurationError: One of them is not allowed.
    """
    if late_sends not in ("drop", "raise"):
        raise ConfigurationError("late_sends", late_sends, "'drop' or 'raise'")
    if not isinstance(watch, bool):
        raise ConfigurationError("watch", watch, "True or False")
    if drain is not None and not isinstance(drain, Drain):
        raise ConfigurationError("drain", drain, "a Drain, or None")
    on_return, on_error = close_codes
    asked = _policies(policies)
    return Options(
        late_sends=late_sends,
        linger_s=_number("linger_s", linger_s, "a number of seconds, 0 or more", zero=True),
        cancel_after_s=_seconds("cancel_after_s", cancel_after_s, zero=True),
        watch=watch,
        send_timeout_s=_seconds("send_timeout_s", send_timeout_s, zero=False),
        close_on_return=_code("close_on_return", on_return),
        close_on_error=_code("close_on_error", on_error),
        policies=tuple(policy for policy in asked if _has(policy, "admit")),
        message_policies=tuple(policy for policy in asked if _has(policy, "message")),
        drain=drain,
    )


def check_observers(observers: object) -> tuple[Observer, ...]:
    """
    Check the observers.

    Raises:
        ConfigurationError: It is not an iterable of callables that take one event.
    """
    if not isinstance(observers, Iterable) or isinstance(observers, str | bytes):
        raise ConfigurationError("observers", observers, "an iterable of callables, or None")
    heard = tuple(observers)
    for observer in heard:
        if not callable(observer) or isinstance(observer, type) or _is_async(observer):
            raise ConfigurationError("observers", observer, "callables that take one event and are not async")
    return heard


def check_adapters(adapters: object, known: Collection[str]) -> tuple[tuple[str, ...], tuple[Apply, ...]]:
    """
    Check the adapters.

    Args:
        adapters: The option.
        known: Names of the adapters that there are.

    Returns:
        The names, for "auto" all of them, and the callables.

    Raises:
        ConfigurationError: It is neither "auto" nor a sequence of known names and callables.
    """
    if adapters == "auto":
        return tuple(known), ()
    allowed = f"'auto' or a sequence of callables without arguments and of names: {', '.join(sorted(known))}"
    if not isinstance(adapters, Sequence) or isinstance(adapters, str | bytes):
        raise ConfigurationError("adapters", adapters, allowed)
    names = tuple(one for one in adapters if isinstance(one, str) and one in known)
    others = tuple(one for one in adapters if callable(one))
    if len(names) + len(others) < len(adapters):
        raise ConfigurationError("adapters", adapters, allowed)
    return names, others


def _policies(policies: object) -> tuple[Any, ...]:
    if not isinstance(policies, Iterable) or isinstance(policies, str | bytes):
        raise ConfigurationError("policies", policies, "an iterable of policies")
    asked = tuple(policies)
    for policy in asked:
        if isinstance(policy, type) or not (_has(policy, "admit") or _has(policy, "message")):
            raise ConfigurationError("policies", policy, "objects with a method 'admit' or 'message'")
        if inspect.iscoroutinefunction(getattr(policy, "release", None)):
            raise ConfigurationError("policies", policy, "objects whose method 'release' is not async")
    return asked


def _is_async(observer: object) -> bool:
    return inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(type(observer).__call__)


def _has(policy: object, method: str) -> bool:
    return callable(getattr(policy, method, None))


def _seconds(option: str, value: object, *, zero: bool) -> float | None:
    if value is None:
        return None
    return _number(option, value, f"a number of seconds, {'0 or more' if zero else 'more than 0'}, or None", zero=zero)


def _number(option: str, value: object, allowed: str, *, zero: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(option, value, allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ConfigurationError(option, value, allowed)
    return number


def _code(option: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not may_send(value):
        raise ConfigurationError(option, value, f"{_CODES}, or None")
    return int(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
