"""One event to all observers, whatever they do wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import pytest

from asgi_ws_guard import Books, Closed, CloseStatus, Event, Initiator, ObserverFailed, ReadAheadFull, SendTimedOut
from asgi_ws_guard._dispatch import Dispatch, name_of
from asgi_ws_guard.testing import Recorder

NOBODY: frozenset[int] = frozenset()
ONE = SendTimedOut("c1", 1.0, 5.0)
TWO = ReadAheadFull("c1", 2.0, 3, 4)
TERMINAL = Closed(
    *("c1", 3.0, "/ws", None, 1000, "", Initiator.CLIENT, CloseStatus.NORMAL_CLOSURE, 0.0, 0.0, 0.0, None, None),
    Books(),
)
SECRET = "s3cret"


class Broken:
    """An observer that always raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = ValueError(SECRET) if error is None else error
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember the event and raise."""
        self.heard.append(event)
        raise self.error


BROKEN = f"{__name__}.Broken"


def failed(event: Event, observer: str = BROKEN, error_type: str = "ValueError") -> ObserverFailed:
    return ObserverFailed(event.connection_id, event.at_s, observer, error_type, type(event).__name__)


def test_all_observers_hear_all_events_in_order() -> None:
    """Each event goes to all observers, in their order, before the next event."""
    heard: list[tuple[str, Event]] = []

    def first(event: Event) -> None:
        heard.append(("first", event))

    def second(event: Event) -> None:
        heard.append(("second", event))

    assert Dispatch([first, second]).tell((ONE, TWO), NOBODY) == NOBODY
    assert heard == [("first", ONE), ("second", ONE), ("first", TWO), ("second", TWO)]


def test_the_terminal_event_goes_the_other_way_round() -> None:
    """What observers set up one after the other they take down in the reverse order."""
    heard: list[str] = []

    def first(event: Event) -> None:
        heard.append(f"first {type(event).__name__}")

    def second(event: Event) -> None:
        heard.append(f"second {type(event).__name__}")

    Dispatch([first, second]).tell((ONE, TERMINAL), NOBODY)
    assert heard == [f"first {type(ONE).__name__}", f"second {type(ONE).__name__}", "second Closed", "first Closed"]


def test_nobody_hears_nothing() -> None:
    """No observers and no events are no error, and what was reported stays so."""
    reported = Dispatch([Broken()]).tell((ONE,), NOBODY)
    assert reported
    assert Dispatch([]).tell((ONE,), reported) == reported
    recorder = Recorder()
    assert Dispatch([recorder]).tell((), reported) == reported
    assert recorder.events == []


def test_an_observer_that_raises_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    """The others, before and after it, hear everything; it is counted each time, and reported once."""
    before, broken, after = Recorder(), Broken(), Recorder()
    dispatch = Dispatch([before, broken, after])
    assert len(dispatch.tell((ONE, TWO), NOBODY)) == 1
    assert before.events == [ONE, failed(ONE), TWO]
    assert after.events == [failed(ONE), ONE, TWO]
    assert broken.heard == [ONE, TWO]
    assert dispatch.failures == {BROKEN: 2}
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asgi_ws_guard", logging.ERROR)
    assert record.getMessage() == f"observer {BROKEN} raised at SendTimedOut"
    assert record.exc_info is not None
    assert record.exc_info[1] is broken.error


def test_a_failure_is_reported_once_per_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that heard of it hears no more; another connection is told again; all are counted."""
    recorder, broken = Recorder(), Broken()
    dispatch = Dispatch([broken, recorder])
    reported = dispatch.tell((ONE,), NOBODY)
    assert dispatch.tell((TWO,), reported) == reported
    assert recorder.of(ObserverFailed) == [failed(ONE)]
    other = SendTimedOut("c2", 9.0, 5.0)
    assert dispatch.tell((other,), NOBODY) == reported
    assert recorder.of(ObserverFailed) == [failed(ONE), failed(other)]
    assert dispatch.failures == {BROKEN: 3}
    assert len(caplog.records) == 2


def test_one_that_failed_does_not_hear_of_itself() -> None:
    """The report goes to the others, or it would fail at that again for ever."""
    broken = Broken()
    Dispatch([broken]).tell((ONE,), NOBODY)
    assert broken.heard == [ONE]


def test_an_observer_that_fails_at_the_report() -> None:
    """Two broken observers report each other once, are both counted, and do not call each other for ever."""

    class AlsoBroken(Broken):
        """Another one."""

    recorder = Recorder()
    one, two = Broken(), AlsoBroken()
    dispatch = Dispatch([one, two, recorder])
    reported = dispatch.tell((ONE, TWO), NOBODY)
    assert len(reported) == 2
    assert {event.observer for event in recorder.of(ObserverFailed)} == {name_of(one), name_of(two)}
    assert len(recorder.of(ObserverFailed)) == 2
    assert [event for event in recorder.events if not isinstance(event, ObserverFailed)] == [ONE, TWO]
    assert dispatch.failures[BROKEN] == 2
    assert sum(dispatch.failures.values()) == 5
    assert one.heard == [ONE, TWO]


def test_two_observers_of_one_class_are_two() -> None:
    """Reported is each observer, not each class: the second of two equal ones is not hidden behind the first."""
    recorder, one, two = Recorder(), Broken(), Broken(KeyError("x"))
    dispatch = Dispatch([one, two, recorder])
    dispatch.tell((ONE, TWO), NOBODY)
    assert {event.error_type for event in recorder.of(ObserverFailed)} == {"ValueError", "KeyError"}
    assert sum(dispatch.failures.values()) >= 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError()])
def test_what_is_no_exception_goes_on(error: BaseException) -> None:
    """An interrupt, an exit and a cancellation are not the observer's failure: they pass, and are not counted."""
    dispatch = Dispatch([Broken(error)])
    with pytest.raises(type(error)) as caught:
        dispatch.tell((ONE,), NOBODY)
    assert caught.value is error
    assert dispatch.failures == {}


def test_who_wants_messages() -> None:
    """One observer with a true ``wants_messages`` is enough; a false one or none is not."""
    recorder = Recorder()
    assert not Dispatch([]).asks_for("wants_messages")
    assert not Dispatch([recorder, Broken()]).asks_for("wants_messages")
    assert Dispatch([Broken(), Recorder(wants_messages=True)]).asks_for("wants_messages")
    changing = Dispatch([Broken(), recorder])
    recorder.wants_messages = True
    assert changing.asks_for("wants_messages")


def a_function(event: Event) -> None:
    """Hear nothing."""


@pytest.mark.parametrize(
    ("plugin", "name"),
    [
        (a_function, f"{__name__}.a_function"),
        (Broken(), BROKEN),
        (Recorder(), "asgi_ws_guard.testing.Recorder"),
        (Recorder().of, "asgi_ws_guard.testing.Recorder.of"),
        (partial(print, SECRET), "functools.partial"),
        (print, "builtins.print"),
    ],
)
def test_names(plugin: Callable[..., None], name: str) -> None:
    """A plugin is named by module and qualified name, without any of its values."""
    assert name_of(plugin) == name
