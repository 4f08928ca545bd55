"""
Asks an authenticator and makes an identity or a denial of whatever it answers.

What it raises is reported by type and place, never by its text: a `KeyError` holds the token.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from ..._events import Handshake, Identity
from ..._exceptions import ConfigurationError
from ..._plugin import Allow, Close, Delay, Deny, Drop
from ._denials import broken, unable, wrong
from ._labels import Labeller, labeller

_log = logging.getLogger("asgi_ws_guard")

Answer = Identity | Allow | Deny | Hashable | None
Asked = Callable[[Any], Answer | Awaitable[Answer]]


@runtime_checkable
class Authenticator(Protocol):
    """One that has to see the handshake too, as `Tickets` does for what they are bound to."""

    def authenticate(self, token: str, handshake: Handshake, /) -> Answer | Awaitable[Answer]:
        """
        Tell who has this token.

        Args:
            token: What the client showed, of bounded size.
            handshake: Where it showed it.

        Returns:
            As the callable of `Auth`.
        """


@dataclass(frozen=True, slots=True)
class Asking:
    """
    One authenticator, and how its answers are taken.

    Attributes:
        authenticate: A callable, or an `Authenticator`.
        timeout_s: Seconds that an asynchronous one may take; None: no limit.
        label: Gives what logs may show of a subject.
    """

    authenticate: Asked | Authenticator = field(repr=False)
    timeout_s: float | None
    label: Labeller

    async def who(self, shown: Any, handshake: Handshake) -> Allow | Deny:
        """
        Ask who a client is.

        Args:
            shown: The token, or the handshake itself where there is no source.
            handshake: What the client asked for.

        Returns:
            An `Allow` with an identity, or as the authenticator made it; else a denial.
        """
        try:
            if isinstance(self.authenticate, Authenticator):
                answer = self.authenticate.authenticate(shown, handshake)
            else:
                answer = self.authenticate(shown)
            if inspect.isawaitable(answer):
                answer = await _within(answer, self.timeout_s)
            return self._judged(answer)
        except (asyncio.TimeoutError, TimeoutError):
            return unable("timeout")
        except Exception as error:  # noqa: BLE001 - fail closed
            report("an authenticator", error)
            return broken("failed")

    def _judged(self, answer: object) -> Allow | Deny:
        if isinstance(answer, Deny):
            return answer
        if isinstance(answer, Allow):
            return answer if answer.identity is None else self._admitted(answer.identity, answer)
        if answer is None or answer is False or (isinstance(answer, str | bytes) and not answer):
            return wrong("rejected")
        if isinstance(answer, Identity):
            return self._admitted(answer, Allow())
        return self._admitted(Identity(answer), Allow())

    def _admitted(self, identity: Identity, allow: Allow) -> Allow | Deny:
        subject, expires = identity.subject, identity.expires_unix_s
        try:
            hash(subject)
        except Exception:  # noqa: BLE001 - a __hash__ may raise whatever it likes
            return broken("unhashable")
        # `True` would be one subject for everybody, and a decision or a handshake is one by mistake.
        if subject is None or isinstance(subject, bool | Allow | Close | Delay | Deny | Drop | Handshake | Identity):
            return broken("not_an_identity")
        if expires is not None:
            if isinstance(expires, bool) or not isinstance(expires, int | float) or not math.isfinite(expires):
                return broken("not_an_identity")
            if expires <= time.time():
                return wrong("expired")
        if not identity.label:
            identity = replace(identity, label=self.label(subject))
        return replace(allow, identity=identity)


def asking(authenticate: object, *, timeout_s: object, label: object, label_key: object) -> Asking:
    """
    Check what two policies have in common.

    Args:
        authenticate: A callable, or an `Authenticator`.
        timeout_s: Seconds; None: no limit.
        label: As in `labeller`.
        label_key: As in `labeller`.

    Raises:
        ConfigurationError: One of them is not allowed.
    """
    if not isinstance(authenticate, Authenticator) and not callable(authenticate):
        raise ConfigurationError("authenticate", f"<{type(authenticate).__name__}>", "a callable, or Tickets")
    if timeout_s is not None:
        positive("timeout_s", timeout_s)
    return Asking(authenticate, timeout_s, labeller(label, label_key))  # type: ignore[arg-type]


def positive(option: str, value: object, *, whole: bool = False) -> None:
    """
    Check a number of seconds or bytes.

    Args:
        option: Its name.
        value: What it was given.
        whole: Whether it is to be an integer.

    Raises:
        ConfigurationError: It is not a finite number above 0.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(option, value, "an integer above 0" if whole else "a number of seconds above 0")


def report(who: str, error: Exception) -> None:
    """
    Log an exception without its text.

    Args:
        who: What raised it.
        error: The exception.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    _log.error("%s raised %s at %s: denied", who, type(error).__qualname__, place)


class WorkCancelled(Exception):
    """What an authenticator awaited was cancelled, and the handshake was not."""


async def _within(answer: Awaitable[Answer], timeout_s: float | None) -> Answer:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio: no timer there (G14)
        return await answer
    task = asyncio.ensure_future(answer)
    task.add_done_callback(_retrieve)  # it may fail in the very turn in which the handshake is cancelled
    try:
        # not `wait_for`, which hands on a cancellation of the answer's own
        await asyncio.wait({task}, timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        raise TimeoutError
    if task.cancelled():
        raise WorkCancelled
    return task.result()


def _retrieve(task: asyncio.Future[Answer]) -> None:
    if not task.cancelled():
        task.exception()
