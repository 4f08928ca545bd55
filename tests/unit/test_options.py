"""The options: a wrong one is refused when the guard is built, by name, value and what is allowed."""

from __future__ import annotations

import dataclasses
import decimal
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

import pytest

from asgi_ws_guard import (
    Allow,
    CloseCode,
    ConfigurationError,
    Deny,
    Drop,
    Event,
    Handshake,
    MessagePolicy,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver
from asgi_ws_guard.testing import Recorder


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


def guard(**options: Any) -> WebSocketGuardMiddleware:
    return WebSocketGuardMiddleware(application, **options)


class Admits:
    """A policy for handshakes."""

    def admit(self, handshake: Handshake) -> Allow | Deny | Awaitable[Allow | Deny]:
        """Let everybody in."""
        return Allow()


class Judges:
    """A policy for messages."""

    def message(self, connection_id: str, direction: Literal["received", "sent"], size: int) -> Allow | Drop:
        """Let everything pass."""
        return Allow()


class Both(Admits, Judges):
    """A policy for both."""


class Nothing:
    """No policy."""


class OnlyNamed:
    """An object whose ``admit`` is no method."""

    admit = "everybody"


class OnlyAText:
    """An object whose ``message`` is no method, as many exceptions have it."""

    message = "a text"


def observe(event: Event) -> None:
    """Hear an event."""


def passed(*arguments: object) -> None:
    """Be an adapter."""


DROP_OR_RAISE = "'drop' or 'raise'"
TRUTH = "True or False"
ZERO = "a number of seconds, 0 or more"
POSITIVE = "a number of seconds, more than 0, or None"
CODE = "a close code that may be sent (1000 to 1014, 3000 to 4999), or None"
OBSERVERS = "an iterable of callables, or None"
POLICIES = "an iterable of policies"
METHODS = "objects with a method 'admit' or 'message'"
ADAPTERS = (
    "'auto' or a sequence of callables without arguments and of names: blacksheep, falcon, litestar, quart, starlette"
)

NO_SECONDS = [-1, -0.001, math.nan, math.inf, -math.inf, True, False, "1", "", b"1", [], 1j, decimal.Decimal(1)]
NO_CODES = [
    *(0, -1, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65536, True, False, 1000.0, "1000", "", [1000]),
    *(CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE),
]

NO_WORDS: list[Any] = [None, "", "Drop", "ignore", b"drop", True, 0, ["drop"], {}]
NO_TRUTHS: list[Any] = [None, 0, 1, "yes", "", [], 1.0]
NO_OBSERVERS: list[Any] = [5, True, "structlog", b"x", observe, Recorder(), Recorder]
NO_POLICIES: list[Any] = [None, 5, True, "admit", b"x", Admits(), Admits]
NO_ADAPTERS: list[Any] = [
    None,
    5,
    "",
    "none",
    "Auto",
    b"auto",
    passed,
    {1},
    [5],
    ["auto"],
    ["Quart"],
    ["quart", 5],
    [[]],
]

WRONG: list[tuple[str, Any, str]] = [
    *[("late_sends", value, DROP_OR_RAISE) for value in NO_WORDS],
    *[("watch", value, TRUTH) for value in NO_TRUTHS],
    *[("linger_s", value, ZERO) for value in (None, *NO_SECONDS)],
    *[("cancel_after_s", value, f"{ZERO}, or None") for value in NO_SECONDS],
    *[("send_timeout_s", value, POSITIVE) for value in (0, 0.0, -0.0, *NO_SECONDS)],
    *[("close_on_return", value, CODE) for value in NO_CODES],
    *[("close_on_error", value, CODE) for value in NO_CODES],
    *[("observers", value, OBSERVERS) for value in NO_OBSERVERS],
    *[("policies", value, POLICIES) for value in NO_POLICIES],
    *[("adapters", value, ADAPTERS) for value in NO_ADAPTERS],
]
WRONG_MEMBERS: list[tuple[str, Any, Any, str]] = [
    # option, value, the member that is wrong, what is allowed
    *[
        ("observers", [one], one, "callables that take one event and are not async")
        for one in (None, 5, "structlog", Recorder, object())
    ],
    ("observers", [observe, None], None, "callables that take one event and are not async"),
    ("observers", {"name": observe}, "name", "callables that take one event and are not async"),
    *[("policies", [one], one, METHODS) for one in (None, 5, "admit", observe, Nothing(), Admits, Judges)],
    ("policies", (Admits(), 7), 7, METHODS),
]


def names(error: ConfigurationError, option: str, value: object, allowed: str) -> None:
    """Prove that an error names the option, the value and what is allowed."""
    assert error.option == option
    assert error.value is value
    assert error.allowed == allowed
    assert str(error) == f"{option}={value!r} is not allowed: expected {error.allowed}"


@pytest.mark.parametrize(("option", "value", "allowed"), WRONG)
def test_a_wrong_option(option: str, value: Any, allowed: str) -> None:
    """It is refused when the guard is built, and named with its value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        guard(**{option: value})
    names(caught.value, option, value, allowed)


@pytest.mark.parametrize(("option", "value", "member", "allowed"), WRONG_MEMBERS)
def test_a_wrong_member(option: str, value: Any, member: Any, allowed: str) -> None:
    """One wrong member of a sequence is refused, and it is the member that is named."""
    with pytest.raises(ConfigurationError) as caught:
        guard(**{option: value})
    names(caught.value, option, member, allowed)


@pytest.mark.parametrize("policy", [OnlyNamed(), OnlyAText()])
def test_a_policy_without_a_method(policy: object) -> None:
    """An attribute of the right name that cannot be called is no method: found when built, not at the handshake."""
    with pytest.raises(ConfigurationError) as caught:
        guard(policies=[policy])
    names(caught.value, "policies", policy, METHODS)


@pytest.mark.parametrize("value", [None, -1, math.nan, "1", True])
def test_no_linger_is_not_offered(value: Any) -> None:
    """``linger_s`` cannot be None, and its error text does not offer it."""
    with pytest.raises(ConfigurationError) as caught:
        guard(linger_s=value)
    assert "None" not in caught.value.allowed


@pytest.mark.parametrize("option", ["linger_s", "cancel_after_s", "send_timeout_s"])
def test_a_number_too_large_for_a_clock(option: str) -> None:
    """An integer beyond any float is refused like infinity, as a wrong option and not as an `OverflowError`."""
    with pytest.raises(ConfigurationError) as caught:
        guard(**{option: 10**400})
    assert caught.value.option == option


def test_no_bytes_are_adapters() -> None:
    """Empty bytes are no sequence of callables."""
    with pytest.raises(ConfigurationError):
        guard(adapters=b"")


@pytest.mark.parametrize("app", [None, 5, "module:app", b"x", [], {}, object()])
def test_no_application(app: Any) -> None:
    """What cannot be called is no application."""
    with pytest.raises(ConfigurationError) as caught:
        WebSocketGuardMiddleware(app)
    names(caught.value, "app", app, "an ASGI application")


def test_an_unknown_option() -> None:
    """An option that does not exist, and one that is not named, are errors of Python's own."""
    with pytest.raises(TypeError, match="linger"):
        guard(linger=1)
    with pytest.raises(TypeError, match="positional"):
        WebSocketGuardMiddleware(application, "drop")  # type: ignore[call-arg]


def generated() -> Iterator[Callable[[Event], None]]:
    yield observe
    yield Recorder()


RIGHT: list[tuple[str, Any, Any]] = [
    # option, value, what the guard keeps
    ("late_sends", "drop", "drop"),
    ("late_sends", "raise", "raise"),
    ("watch", True, True),
    ("watch", False, False),
    ("linger_s", 0, 0.0),
    ("linger_s", 1, 1.0),
    ("linger_s", 0.25, 0.25),
    ("cancel_after_s", None, None),
    ("cancel_after_s", 0, 0.0),
    ("cancel_after_s", 86400, 86400.0),
    ("send_timeout_s", None, None),
    ("send_timeout_s", 0.001, 0.001),
    ("send_timeout_s", 5, 5.0),
    *[("close_on_return", code, code) for code in (None, 1000, 1001, 1003, 1007, 1014, 3000, 4999)],
    *[("close_on_error", code, code) for code in (None, 1000, 1011, 1012, 1014, 3000, 4999)],
    ("close_on_return", CloseCode.GOING_AWAY, 1001),
    ("close_on_error", CloseCode.TRY_AGAIN_LATER, 1013),
]


@pytest.mark.parametrize(("option", "value", "kept"), RIGHT)
def test_a_right_option(option: str, value: Any, kept: Any) -> None:
    """The edge of what is allowed is allowed; numbers become plain floats, codes plain integers."""
    found = getattr(guard(**{option: value})._options, option)
    assert found == kept
    assert type(found) is type(kept)


def test_the_defaults() -> None:
    """What a guard does without any option is what the documentation says."""
    built = guard()
    options = built._options
    assert (options.late_sends, options.linger_s, options.cancel_after_s) == ("drop", 10.0, None)
    assert (options.watch, options.send_timeout_s) == (True, None)
    assert (options.close_on_return, options.close_on_error) == (1000, 1011)
    assert (options.policies, options.message_policies) == ((), ())
    assert [type(one) for one in built._dispatch.observers] == [Telemetry, LogContext, StructlogObserver]


def test_options_are_frozen() -> None:
    """What a guard was built with cannot change under its connections."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        guard()._options.linger_s = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("observers", [(), [], set(), iter(())])
def test_no_observers(observers: Any) -> None:
    """Empty is not None: nobody hears anything."""
    assert guard(observers=observers)._dispatch.observers == ()


def test_observers_of_any_sort() -> None:
    """Functions, methods, instances and lambdas, from any iterable, in order; what asks for messages is noticed."""
    recorder = Recorder()
    heard = [observe, recorder, recorder.events.append, lambda event: None]
    assert guard(observers=heard)._dispatch.observers == tuple(heard)
    assert len(guard(observers=generated())._dispatch.observers) == 2
    assert not guard(observers=heard)._dispatch.asks_for("wants_messages")
    assert guard(observers=[observe, Recorder(wants_messages=True)])._dispatch.asks_for("wants_messages")


def test_policies_of_both_sorts() -> None:
    """Each policy is asked about what it has a method for."""
    admits, judges, both = Admits(), Judges(), Both()
    options = guard(policies=iter([admits, judges, both]))._options
    assert options.policies == (admits, both)
    assert options.message_policies == (judges, both)
    assert isinstance(judges, MessagePolicy)


def test_adapters_are_called_once() -> None:
    """Each adapter is called when the guard is built, without arguments, in order; "auto" and () call none."""
    called: list[str] = []
    guard(adapters=[lambda: called.append("a"), lambda: called.append("b")])
    assert called == ["a", "b"]
    guard(adapters=())
    guard(adapters="auto")
    assert called == ["a", "b"]


def test_no_adapter_is_called_for_a_guard_that_is_not_built() -> None:
    """When another option is wrong nothing has happened yet."""
    called: list[str] = []
    with pytest.raises(ConfigurationError):
        guard(adapters=[lambda: called.append("a")], linger_s=-1)
    with pytest.raises(ConfigurationError):
        guard(adapters=[lambda: called.append("a"), None])
    assert called == []


class OldApplication:
    """An application of ASGI 2: called with the scope, gives an instance."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Send something."""
        message: Message = {"type": "done"}
        await send(message)


class Instance:
    """An application that is an object."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""


@pytest.mark.parametrize("app", [application, Instance(), OldApplication, guard()])
def test_applications_of_any_sort(app: Any) -> None:
    """Functions, objects, classes of ASGI 2 and guarded applications can be guarded."""
    assert callable(WebSocketGuardMiddleware(app).app)


async def _asynchronous(event: object) -> None:
    """Do nothing."""


class _AsynchronousObserver:
    async def __call__(self, event: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("observer", [_asynchronous, _AsynchronousObserver()])
def test_an_asynchronous_observer(observer: Any) -> None:
    """Its coroutine would never be awaited: refused when built."""
    with pytest.raises(ConfigurationError, match="not async"):
        guard(observers=[observer])
