"""Connection id, route and trace in every log line of a handler, and in no other."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import io
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from stories import ACCEPT, CLOSE, ROUTE, Handler, accepted, routed, serve, until_disconnect

from asgi_ws_guard import Identity, Observer, Opened, WebSocketGuardMiddleware
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.plugins.logcontext import FIELDS, LogContext, install_factory, uninstall_factory
from asgi_ws_guard.plugins.otel import TracingObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

Bound = dict[str, Any]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """The process's record factory and the test's context are as they were."""
    factory = logging.getLogRecordFactory()
    structlog.contextvars.clear_contextvars()
    yield
    logging.setLogRecordFactory(factory)


def bound() -> Bound:
    """Give what a structlog line would have now."""
    return dict(structlog.contextvars.merge_contextvars(None, "info", {}))


def same_task(app: Handler, observers: Sequence[Observer], *, raised: type[BaseException] | None = None) -> Bound:
    """Serve in the caller's own task, and give what is bound there afterwards."""
    left: Bound = {}

    async def main() -> None:
        server = ScriptedServer("/rooms/7")
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=observers)
        if raised is None:
            await guard(server.scope, server.receive, server.send)
        else:
            with pytest.raises(raised):
                await guard(server.scope, server.receive, server.send)
        left.update(bound())

    run(main)
    return left


def test_id_and_route_are_bound_in_the_handler_and_its_tasks() -> None:
    """The route from the accept on; afterwards nothing is left."""
    seen: list[Bound] = []
    heard = Recorder()

    async def child() -> None:
        seen.append(bound())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(bound())
        await accepted(scope, receive, send)
        seen.append(bound())
        await asyncio.create_task(child())

    observer = LogContext()
    assert same_task(app, (observer, heard)) == {}
    one = {"connection_id": heard.one(Opened).connection_id}
    assert seen == [one, {**one, "route": ROUTE}, {**one, "route": ROUTE}]
    assert observer._tokens == {}


def test_a_handler_that_goes_on_after_the_end_still_has_them() -> None:
    """What it logs while it cleans up belongs to the connection too, until it is done."""
    seen: list[Bound] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await send(CLOSE)
        await until_disconnect(receive)
        await send(CLOSE)
        seen.append(bound())

    assert same_task(app, (LogContext(),)) == {}
    assert set(seen[0]) == {"connection_id", "route"}


def test_a_route_that_is_bound_in_a_child_task_stays_there() -> None:
    """Quart accepts in a task of its own: its lines have the route; nothing is left, and nothing raises."""
    seen: list[Bound] = []
    heard = Recorder()

    async def child(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        seen.append(bound())
        await asyncio.create_task(grandchild())

    async def grandchild() -> None:
        seen.append(bound())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(child(scope, receive, send))
        seen.append(bound())

    observer = LogContext()
    assert same_task(app, (observer, heard)) == {}
    one = {"connection_id": heard.one(Opened).connection_id}
    assert seen == [{**one, "route": ROUTE}, {**one, "route": ROUTE}, one]
    assert "ObserverFailed" not in heard.names()
    assert observer._tokens == {}


def test_the_ids_of_the_trace_are_those_of_the_handshake() -> None:
    """In hexadecimal digits, as everybody writes them."""
    made = TracerProvider(shutdown_on_exit=False)
    tracing = TracingObserver(made)
    seen: list[Bound] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        (traced,) = tracing._live.values()
        link = traced.link
        await accepted(scope, receive, send)
        seen.append(bound())
        seen.append({"trace_id": format(link.trace_id, "032x"), "span_id": format(link.span_id, "016x")})

    assert same_task(app, (tracing, LogContext())) == {}
    assert {name: seen[0][name] for name in ("trace_id", "span_id")} == seen[1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_was_bound_before_comes_back(count: int) -> None:
    """Whatever the application had bound outside under these names, however many of these observers there are."""
    heard = Recorder()
    seen: list[Bound] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        seen.append(bound())

    before = {"connection_id": "outer", "route": "outer", "other": 1}
    with structlog.contextvars.bound_contextvars(**before):
        left = same_task(app, [*(LogContext() for _ in range(count)), heard])
    assert left == before
    assert "ObserverFailed" not in heard.names()
    assert seen[0]["route"] == ROUTE
    assert seen[0]["other"] == 1
    assert seen[0]["connection_id"] != "outer"


@pytest.mark.parametrize("route", [None, ROUTE])
def test_nothing_is_left_of_a_handler_that_fails_or_denies(route: str | None) -> None:
    """And without a route none is bound."""
    seen: list[Bound] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send, route)
        seen.append(bound())
        raise LookupError

    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        routed(scope, route)
        await receive()
        await send(CLOSE)

    observer = LogContext()
    assert same_task(fails, (observer,), raised=LookupError) == {}
    assert same_task(denies, (observer,)) == {}
    assert ("route" in seen[0]) is (route is not None)
    assert observer._tokens == {}


def test_other_tasks_see_nothing() -> None:
    """Two connections at once have an id each, and a bystander has none."""
    seen: dict[str, set[Any]] = {"a": set(), "b": set(), "bystander": set()}

    def app_of(name: str) -> Handler:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(scope, receive, send)
            for _ in range(5):
                seen[name].add(bound().get("connection_id"))
                await asyncio.sleep(0.1)

        return app

    async def bystander() -> None:
        for _ in range(10):
            seen["bystander"].add(bound().get("connection_id"))
            await asyncio.sleep(0.1)

    async def main() -> None:
        observer = LogContext()
        await asyncio.gather(bystander(), serve(app_of("a"), (observer,)), serve(app_of("b"), (observer,)))

    run(main)
    assert seen["bystander"] == {None}
    assert len(seen["a"]) == len(seen["b"]) == 1
    assert len(seen["a"] | seen["b"]) == 2


def test_a_coroutine_that_is_closed_elsewhere_disturbs_nobody() -> None:
    """The garbage collector closes it in whatever context it runs; that one keeps what it has."""
    observer, heard = LogContext(), Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await until_disconnect(receive)

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(observer, heard))
        coroutine: Any = guard(server.scope, server.receive, server.send)
        contextvars.copy_context().run(coroutine.send, None)
        with structlog.contextvars.bound_contextvars(connection_id="mine"):
            coroutine.close()
            assert bound() == {"connection_id": "mine"}

    run(main)
    assert observer._tokens == {}
    assert "ObserverFailed" not in heard.names()


# Standard logging


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """A logger ``app`` whose lines show the fields."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        logging.Formatter("%(message)s|%(connection_id)s|%(route)s|%(trace_id)s|%(span_id)s|%(identity)s")
    )
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.propagate = False
    yield lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)
    logger.propagate = True


def test_records_of_logging_have_the_fields(lines: Callable[[], list[str]]) -> None:
    """Inside a handler what is bound, outside the empty text, so that one format does for both."""
    log = logging.getLogger("app")
    heard = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        log.warning("in")

    observer = LogContext(standard_logging=True)
    log.warning("before")
    same_task(app, (observer, heard))
    log.warning("after")
    assert lines() == ["before|||||", f"in|{heard.one(Opened).connection_id}|{ROUTE}|||", "after|||||"]


def test_without_the_option_logging_is_left_alone() -> None:
    """It belongs to the application."""
    factory = logging.getLogRecordFactory()
    LogContext()
    assert logging.getLogRecordFactory() is factory


def test_the_factory_is_installed_once_and_can_be_taken_back() -> None:
    """However many guards there are; unless somebody else has wrapped it since."""
    before = logging.getLogRecordFactory()
    for _ in range(3):
        LogContext(standard_logging=True)
    installed = logging.getLogRecordFactory()
    assert installed is not before
    install_factory()
    assert logging.getLogRecordFactory() is installed
    uninstall_factory()
    assert logging.getLogRecordFactory() is before
    uninstall_factory()
    assert logging.getLogRecordFactory() is before

    install_factory()

    def somebody_elses(*arguments: Any, **named: Any) -> logging.LogRecord:
        return before(*arguments, **named)

    logging.setLogRecordFactory(somebody_elses)
    uninstall_factory()
    assert logging.getLogRecordFactory() is somebody_elses


def test_the_factory_of_the_application_is_kept_and_its_fields_win() -> None:
    """Another one that fills in one of the fields is not overwritten."""

    class Record(logging.LogRecord):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.trace_id = "theirs"

    logging.setLogRecordFactory(Record)
    install_factory()
    with structlog.contextvars.bound_contextvars(trace_id="ours", connection_id="c1"):
        record: Any = logging.getLogger("app").makeRecord("app", logging.INFO, "f", 1, "m", (), None)
    assert isinstance(record, Record)
    assert logging.getLogRecordFactory()("app", logging.INFO, "f", 1, "m", (), None, func="g").funcName == "g"
    fields = [record.__dict__[field] for field in FIELDS]
    assert fields == ["c1", "", "theirs", "", ""]


@pytest.mark.parametrize("field", FIELDS)
def test_the_application_may_give_a_field_itself(field: str, lines: Callable[[], list[str]]) -> None:
    """``extra={"trace_id": ...}`` is common, and `logging` raises for what a record has already: it must not."""
    install_factory()
    with structlog.contextvars.bound_contextvars(**{field: "ours"}):
        logging.getLogger("app").warning("m", extra={field: "theirs"})
    line = lines()[0]
    assert line.split("|")[1 + FIELDS.index(field)] == "theirs"
    with pytest.raises(KeyError, match="Attempt to overwrite"):
        logging.getLogger("app").warning("m", extra={"name": "theirs"})
    logging.getLogger("app").warning("m", extra={"other": 1})


def test_a_record_with_the_fields_can_be_copied_and_sent() -> None:
    """Queue handlers copy, socket handlers pickle, formatters list."""
    install_factory()
    with structlog.contextvars.bound_contextvars(route="/r"):
        record: Any = logging.getLogger("app").makeRecord("app", logging.INFO, "f", 1, "m %s", ("x",), None)
    for twin in (copy.copy(record), pickle.loads(pickle.dumps(record))):
        assert (twin.getMessage(), twin.route) == ("m x", "/r")
    assert {*FIELDS, "name", "msg"} <= set(record.__dict__)
    made: Any = logging.makeLogRecord({"msg": "n", "route": "/s"})
    assert (made.msg, made.route) == ("n", "/s")


def test_the_fields_are_what_is_bound() -> None:
    """One name for one thing, in both kinds of logging."""
    made = TracerProvider(shutdown_on_exit=False)
    seen: list[Bound] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        routed(scope)
        scope["asgi_ws_guard.connection"].identify(Identity("ann", label="a1"))
        await receive()
        await send(ACCEPT)
        seen.append(bound())

    same_task(app, (TracingObserver(made), LogContext()))
    assert set(seen[0]) == set(FIELDS)
    assert seen[0]["identity"] == "a1"
