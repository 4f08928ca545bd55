"""The options as environment variables: one for each, and a sentence for a wrong one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from asgi_ws_guard import Allow, CloseCode, ConfigurationError, Drain, Event, Handshake, WebSocketGuardMiddleware
from asgi_ws_guard._environment import (
    APP,
    VARIABLES,
    Variable,
    application,
    check_texts,
    guard,
    leave,
    read_options,
    variable_of,
)
from asgi_ws_guard._target import TargetError
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.plugins.structlog import StructlogObserver

HERE = __name__
number = 5


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


def hear(event: Event) -> None:
    """Be an observer."""


class Judge:
    """A policy."""

    def message(self, connection_id: str, direction: str, size: int) -> None:
        """Answer nothing."""


def read(option: str, text: str) -> Any:
    """Read one variable."""
    return read_options({variable_of(option): text})[option]


def test_every_option_has_its_variable() -> None:
    """The table and the constructor have the same options."""
    parameters = inspect.signature(WebSocketGuardMiddleware).parameters.values()
    options = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert set(VARIABLES) == options


def test_the_default_of_every_option_can_be_written() -> None:
    """A default, as README writes it, is read as itself."""
    for option, default in (WebSocketGuardMiddleware.__init__.__kwdefaults__ or {}).items():
        text = "default" if option == "observers" else "none" if default in (None, ()) else str(default)
        assert read(option, text) == default


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("late_sends", "raise", "raise"),
        ("late_sends", "DROP", "drop"),
        ("linger_s", "2.5", 2.5),
        ("linger_s", " 0 ", 0.0),
        ("cancel_after_s", "3", 3.0),
        ("cancel_after_s", "None", None),
        *[("watch", text, True) for text in ("true", "True", "1", "yes", "on")],
        *[("watch", text, False) for text in ("false", "FALSE", "0", "no", "off")],
        ("send_timeout_s", "1e1", 10.0),
        ("send_timeout_s", "none", None),
        ("close_on_return", "4000", 4000),
        ("close_on_return", "none", None),
        ("close_on_error", "1012", CloseCode.SERVICE_RESTART),
        ("drain", "none", None),
        ("drain", "2.5", Drain(deadline_s=2.5)),
        ("observers", "none", ()),
        ("observers", "default", None),
        ("observers", f"{HERE}:hear", (hear,)),
        ("observers", f"{HERE}:hear, {HERE}:hear", (hear, hear)),
        ("policies", "none", ()),
        ("adapters", "auto", "auto"),
        ("adapters", "none", ()),
        ("adapters", f"{HERE}:test_every_option_has_its_variable", (test_every_option_has_its_variable,)),
    ],
)
def test_a_text_becomes_a_value(option: str, text: str, value: object) -> None:
    """Numbers, truths, none, words and names of objects are read, whatever their case."""
    found = read(option, text)
    assert found == value
    assert type(found) is type(value) or isinstance(value, int)


def test_an_object_is_made() -> None:
    """A name with () is called; more than one observer may be given."""
    module = "asgi_ws_guard.plugins.structlog"
    observers = read("observers", f"{module}:StructlogObserver(),{HERE}:hear")
    assert isinstance(observers[0], StructlogObserver)
    (policy,) = read("policies", f"{HERE}:Judge()")
    assert isinstance(policy, Judge)


def test_the_guard_gets_the_options() -> None:
    """What the variables say is what the guard was built with; others do not matter to it."""
    guarded = guard(app, {"ASGI_WS_GUARD_LINGER_S": "3", "ASGI_WS_GUARD_WATCH": "no", APP: "x:y", "LINGER_S": "9"})
    assert isinstance(guarded, WebSocketGuardMiddleware)
    assert guarded.app is app
    assert (guarded._options.linger_s, guarded._options.watch) == (3.0, False)
    assert guarded._options.close_on_return == 1000


def test_an_empty_variable_is_not_set() -> None:
    """As compose files leave them."""
    assert read_options({"ASGI_WS_GUARD_LINGER_S": "", "ASGI_WS_GUARD_NOTHING": " "}) == {}


WRONG = [
    ("late_sends", "ignore", "drop or raise"),
    ("linger_s", "soon", "a number of seconds, 0 or more"),
    ("linger_s", "-1", "a number of seconds, 0 or more"),
    ("linger_s", "nan", "a number of seconds, 0 or more"),
    ("linger_s", "none", "a number of seconds, 0 or more"),
    ("cancel_after_s", "-0.1", "a number of seconds, 0 or more, or none"),
    ("watch", "maybe", "true or false"),
    ("send_timeout_s", "0", "a number of seconds, more than 0, or none"),
    ("drain", "0", "the deadline of a drain, a number of seconds, more than 0, or none"),
    ("drain", "soon", "the deadline of a drain, a number of seconds, more than 0, or none"),
    ("close_on_return", "1005", "a close code that may be sent (1000 to 1014, 3000 to 4999), or none"),
    ("close_on_error", "1e3", "a close code that may be sent (1000 to 1014, 3000 to 4999), or none"),
]


@pytest.mark.parametrize(("option", "text", "allowed"), WRONG)
def test_a_wrong_value_is_one_sentence(option: str, text: str, allowed: str) -> None:
    """It names the variable, the value and what is allowed, whether it cannot be read or is out of range."""
    with pytest.raises(ConfigurationError) as info:
        guard(app, {variable_of(option): text})
    assert str(info.value) == f"{variable_of(option)}={text!r} is not allowed: expected {allowed}"


@pytest.mark.parametrize("option", ["observers", "policies", "adapters"])
@pytest.mark.parametrize("text", ["structlog", "no_such_module:x", f"{HERE}:number"])
def test_a_wrong_object_is_one_sentence(option: str, text: str) -> None:
    """A name that leads nowhere, or to an object of another kind."""
    with pytest.raises(ConfigurationError) as info:
        guard(app, {variable_of(option): text})
    assert str(info.value).startswith(f"{variable_of(option)}={text!r} is not allowed: expected ")
    assert VARIABLES[option].allowed in str(info.value)
    assert ("there is no module 'no_such_module'" in str(info.value)) is text.startswith("no_such")


def test_an_unknown_variable_is_named() -> None:
    """With the nearest one that exists, or with all."""
    with pytest.raises(
        ConfigurationError, match=r"^ASGI_WS_GUARD_LINGER='3' .* expected ASGI_WS_GUARD_LINGER_S, the n"
    ):
        read_options({"ASGI_WS_GUARD_LINGER": "3"})
    with pytest.raises(ConfigurationError) as info:
        read_options({"ASGI_WS_GUARD_QQQQQQQQQQQQQQQQQQQQQ": "3"})
    assert all(variable_of(option) in str(info.value) for option in VARIABLES)
    assert f"one of {variable_of('adapters')}, {APP}, " in str(info.value)


def test_a_secret_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that holds a secret does not show its value."""
    monkeypatch.setitem(VARIABLES, "watch", Variable(int, "a number", is_secret=True))
    with pytest.raises(ConfigurationError) as info:
        read_options({"ASGI_WS_GUARD_WATCH": "hunter2"})
    assert "hunter2" not in str(info.value)


def test_texts_can_be_checked_without_the_application() -> None:
    """Names and values are checked; objects of the application are not imported."""
    check_texts({"ASGI_WS_GUARD_OBSERVERS": "no_such_module:x", "ASGI_WS_GUARD_LINGER_S": "1"})
    for wrong in ({"ASGI_WS_GUARD_LINGER_S": "-1"}, {"ASGI_WS_GUARD_LINGER": "1"}):
        with pytest.raises(ConfigurationError):
            check_texts(wrong)


def test_a_guarded_application_keeps_its_own_options(caplog: pytest.LogCaptureFixture) -> None:
    """It is not guarded twice; variables that are therefore not used are named."""
    own = WebSocketGuardMiddleware(app, linger_s=1)
    assert guard(own, {}) is own
    assert not caplog.messages
    assert guard(own, {"ASGI_WS_GUARD_LINGER_S": "3"}) is own
    assert caplog.messages == ["the application has a guard with options of its own: not used: ASGI_WS_GUARD_LINGER_S"]


class Policies:
    """A policy to name."""

    def admit(self, handshake: Handshake) -> Allow:
        """Let everybody in."""
        return Allow()


def test_policies_for_a_guarded_application_are_not_left_out() -> None:
    """The server does not start without those that were asked for; none is what may be said."""
    own = WebSocketGuardMiddleware(app)
    with pytest.raises(
        ConfigurationError, match=r"^ASGI_WS_GUARD_POLICIES='test_environment:Policies\(\)' .* has a guard"
    ):
        guard(own, {"ASGI_WS_GUARD_POLICIES": "test_environment:Policies()"})
    assert guard(own, {"ASGI_WS_GUARD_POLICIES": "none"}) is own


def test_an_error_that_is_not_of_a_variable_goes_on() -> None:
    """A wrong application is not blamed on the environment."""
    with pytest.raises(ConfigurationError, match=r"^app=5 is not allowed"):
        guard(5, {"ASGI_WS_GUARD_LINGER_S": "3"})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, "", "  "])
def test_a_missing_application_is_named(text: str | None) -> None:
    """The sentence says what to set."""
    environment = {} if text is None else {APP: text}
    with pytest.raises(TargetError, match=r"^ASGI_WS_GUARD_APP is not set: .* ASGI_WS_GUARD_APP=package\.module:app$"):
        application(environment)


def test_a_wrong_application_is_named() -> None:
    """The sentence names the variable, the value and what was tried."""
    with pytest.raises(TargetError) as info:
        application({APP: "no_such_module:app"})
    text = str(info.value)
    assert text.startswith(
        "ASGI_WS_GUARD_APP='no_such_module:app' is wrong: there is no module 'no_such_module' (tried"
    )


def test_the_application_is_found() -> None:
    """Blanks around it do not matter."""
    assert application({APP: f" {HERE}:app "}) is app


def test_leaving_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback: a server lets `SystemExit` pass."""
    with pytest.raises(SystemExit) as info:
        leave(TargetError("gone"))
    assert info.value.code == 3
    assert capsys.readouterr() == ("", "asgi-ws-guard: gone\n")
