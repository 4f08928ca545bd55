"""The metrics: names, units and types of every instrument, and exact numbers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from stories import (
    ACCEPT,
    BINARY,
    CLOSE,
    HANDSHAKE_S,
    ROUTE,
    TEXT,
    Handler,
    accepted,
    echo,
    leaves,
    routed,
    serve,
    stays,
    until_disconnect,
)

from asgi_ws_guard import (
    Accepted,
    Books,
    Closed,
    CloseStatus,
    DropReason,
    Event,
    HandlerOutlived,
    Initiator,
    Observer,
    Tally,
    WebSocketGuardMiddleware,
)
from asgi_ws_guard._ledger import MAX_ROUTES
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.otel import metrics
from asgi_ws_guard.plugins.otel.attributes import SCHEMA_URL
from asgi_ws_guard.plugins.otel.metrics import MAX_LABEL_SETS, MetricsObserver
from asgi_ws_guard.testing import ScriptedServer, run

Labels = dict[str, Any]
OBSERVABLE = (
    "websocket.server.connection.active",
    "websocket.server.connections",
    "websocket.server.messages",
    "websocket.server.io",
    "asgi_ws_guard.sends",
    "asgi_ws_guard.zombies",
)
CONNECTION = "websocket.server.connection.duration"
HANDSHAKE = "websocket.server.handshake.duration"


def provider(readers: int = 1) -> tuple[MeterProvider, list[InMemoryMetricReader]]:
    """Make a meter provider and its readers."""
    made = [InMemoryMetricReader() for _ in range(readers)]
    return MeterProvider(metric_readers=made, shutdown_on_exit=False), made


def collect(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """Collect once. Dict: name -> metric."""
    data = reader.get_metrics_data()
    found: dict[str, Metric] = {}
    for resource in () if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            assert (scope.scope.name, scope.scope.schema_url) == ("asgi_ws_guard", SCHEMA_URL)
            for metric in scope.metrics:
                assert metric.name not in found
                found[metric.name] = metric
    return found


def frozen(labels: Mapping[str, Any]) -> frozenset[tuple[str, str, Any]]:
    """Give names, types and values, for 1 is equal to True."""
    return frozenset((name, type(value).__name__, value) for name, value in labels.items())


def numbers(metric: Metric) -> dict[frozenset[tuple[str, str, Any]], Any]:
    """Give the values of a sum by labels."""
    assert isinstance(metric.data, Sum)
    points = {}
    for point in metric.data.data_points:
        assert isinstance(point, NumberDataPoint)
        assert type(point.value) is int
        points[frozen(point.attributes or {})] = point.value
    assert len(points) == len(metric.data.data_points)
    return points


def histogram(metric: Metric) -> dict[frozenset[tuple[str, str, Any]], tuple[int, float]]:
    """Give count and sum of a histogram by labels, to the microsecond."""
    assert isinstance(metric.data, Histogram)
    points = {}
    for point in metric.data.data_points:
        assert isinstance(point, HistogramDataPoint)
        points[frozen(point.attributes or {})] = (point.count, round(point.sum, 6))
    return points


def expect(*values: tuple[Any, Labels]) -> dict[frozenset[tuple[str, str, Any]], Any]:
    return {frozen(labels): value for value, labels in values}


def on(route: str | None, **labels: Any) -> Labels:
    """Give labels, with the route if there is one; two underscores stand for a point."""
    named = {name.replace("__", "."): value for name, value in labels.items()}
    return named if route is None else {"http.route": route, **named}


def sends(route: str | None = ROUTE, *, forwarded: int = 0, failed: int = 0, refused: int = 0, **dropped: int) -> Any:
    """Give all the points of ``asgi_ws_guard.sends`` of one route."""
    return expect(
        (forwarded, on(route, result="forwarded")),
        (failed, on(route, result="failed")),
        (refused, on(route, result="refused")),
        *((dropped.get(reason, 0), on(route, result="dropped", reason=reason)) for reason in map(str, DropReason)),
    )


class Plain:
    """Hears what an observer hears and passes it on, with a wish for sizes of its own."""

    def __init__(self, observer: MetricsObserver) -> None:
        self.wants_sizes = False
        self.attach = observer.attach
        self.observer = observer

    def __call__(self, event: Event) -> None:
        """Pass one event on."""
        self.observer(event)


# Names


def test_every_instrument_has_its_name_unit_kind_and_description() -> None:
    """As in DESIGN's table; buckets from 10 ms to a day, and those of the HTTP conventions for the handshake."""
    made, (reader,) = provider()
    run(lambda: serve(echo, (MetricsObserver(made),), leaves(texts=("é",))))
    found = collect(reader)
    assert set(found) == {*OBSERVABLE, CONNECTION, HANDSHAKE}
    described = {
        name: (metric.unit, metric.description, getattr(metric.data, "is_monotonic", "histogram"))
        for name, metric in found.items()
    }
    assert described == {
        "websocket.server.connection.active": ("{connection}", "Open WebSocket connections.", False),
        "websocket.server.connections": ("{connection}", "Opening handshakes, by result.", True),
        "websocket.server.messages": ("{message}", "Messages received and sent.", True),
        "websocket.server.io": ("By", "Payload bytes received and sent.", True),
        "asgi_ws_guard.sends": ("{message}", "Messages of the application, by outcome.", True),
        "asgi_ws_guard.zombies": ("{handler}", "Handlers that outlived their connection.", False),
        CONNECTION: ("s", "Duration of WebSocket connections, from accept to close.", "histogram"),
        HANDSHAKE: ("s", "Duration of opening handshakes, until the answer.", "histogram"),
    }
    bounds = {
        name: tuple(found[name].data.data_points[0].explicit_bounds)  # type: ignore[union-attr]
        for name in (CONNECTION, HANDSHAKE)
    }
    assert bounds == {
        CONNECTION: (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 900, 3600, 14400, 86400),
        HANDSHAKE: (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    }


# Numbers


def test_the_numbers_of_one_connection_are_exact() -> None:
    """One echo of a text of two bytes and one binary answer of three; every outcome is there, also at 0."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await receive()
        await send(TEXT)
        await send(BINARY)
        await until_disconnect(receive)
        await send(TEXT)

    made, (reader,) = provider()
    run(lambda: serve(app, (MetricsObserver(made),), leaves(1000, texts=("é",))))
    found = collect(reader)
    assert numbers(found["websocket.server.connection.active"]) == expect((0, on(ROUTE, url__scheme="ws")))
    assert numbers(found["websocket.server.connections"]) == expect(
        (1, on(ROUTE, websocket__connection__result="accepted")),
        (0, on(ROUTE, websocket__connection__result="denied")),
        (0, on(ROUTE, websocket__connection__result="aborted")),
    )
    received, transmit = {"network__io__direction": "receive"}, {"network__io__direction": "transmit"}
    text, binary = {"websocket__message__type": "text"}, {"websocket__message__type": "binary"}
    assert numbers(found["websocket.server.messages"]) == expect(
        (1, on(ROUTE, **received, **text)),
        (0, on(ROUTE, **received, **binary)),
        (1, on(ROUTE, **transmit, **text)),
        (1, on(ROUTE, **transmit, **binary)),
    )
    assert numbers(found["websocket.server.io"]) == expect((2, on(ROUTE, **received)), (6, on(ROUTE, **transmit)))
    assert numbers(found["asgi_ws_guard.sends"]) == sends(forwarded=3, client_disconnected=1)
    assert numbers(found["asgi_ws_guard.zombies"]) == expect((0, on(ROUTE)))
    closed = {
        "websocket__connection__status": "normal_closure",
        "websocket__close__code": 1000,
        "websocket__close__initiator": "client",
    }
    assert histogram(found[CONNECTION]) == expect(((1, 1.75), on(ROUTE, **closed)))
    assert histogram(found[HANDSHAKE]) == expect(((1, HANDSHAKE_S), on(ROUTE, http__response__status_code=101)))


def denying(*messages: Message, failure: Exception | None = None) -> Handler:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        routed(scope)
        await receive()
        await asyncio.sleep(HANDSHAKE_S)
        for message in messages:
            await send(message)
        if failure is not None:
            raise failure

    return app


async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
    routed(scope)
    await receive()
    await receive()


START = "websocket.http.response.start"
BODY = {"type": "websocket.http.response.body", "body": b"no"}


@pytest.mark.parametrize(
    ("app", "result", "forwarded", "seconds", "labels", "expected"),
    [
        (
            denying({"type": START, "status": 401, "headers": []}, BODY),
            "denied",
            2,
            HANDSHAKE_S,
            {"http__response__status_code": 401},
            None,
        ),
        (
            denying({"type": START, "status": 503, "headers": []}, BODY),
            "denied",
            2,
            HANDSHAKE_S,
            {"http__response__status_code": 503, "error__type": "503"},
            None,
        ),
        (
            denying({"type": START, "status": 500, "headers": []}, BODY),
            "denied",
            2,
            HANDSHAKE_S,
            {"http__response__status_code": 500, "error__type": "500"},
            None,
        ),
        (
            denying({"type": START, "status": 499, "headers": []}, BODY),
            "denied",
            2,
            HANDSHAKE_S,
            {"http__response__status_code": 499},
            None,
        ),
        (denying(CLOSE), "denied", 1, HANDSHAKE_S, {"http__response__status_code": 403}, None),
        (denying(failure=LookupError()), "denied", 0, HANDSHAKE_S, {"error__type": "LookupError"}, LookupError),
        (hesitates, "aborted", 0, 2.0, {}, None),
    ],
    ids=["401", "503", "500", "499", "close", "exception", "abandoned"],
)
def test_a_handshake_without_an_accept_is_counted_by_its_result(
    app: Handler,
    result: str,
    forwarded: int,
    seconds: float,
    labels: Labels,
    expected: type[BaseException] | None,
) -> None:
    """Once, with its status and its time; no connection was open."""
    made, (reader,) = provider()
    run(lambda: serve(app, (MetricsObserver(made),), leaves(1006), expected=expected))
    found = collect(reader)
    assert CONNECTION not in found
    assert numbers(found["websocket.server.connections"]) == expect(
        *(
            (int(one == result), on(ROUTE, websocket__connection__result=one))
            for one in ("accepted", "denied", "aborted")
        )
    )
    assert histogram(found[HANDSHAKE]) == expect(((1, seconds), on(ROUTE, **labels)))
    assert numbers(found["asgi_ws_guard.sends"]) == sends(forwarded=forwarded)


def test_the_end_of_a_connection_is_labelled() -> None:
    """With the error if there is one."""
    made, (reader,) = provider()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        raise LookupError("s3cret")

    run(lambda: serve(fails, (MetricsObserver(made),), expected=LookupError))
    labels = {
        "websocket__connection__status": "app_error",
        "websocket__close__code": 1011,
        "websocket__close__initiator": "application",
        "error__type": "LookupError",
    }
    assert histogram(collect(reader)[CONNECTION]) == expect(((1, 0.0), on(ROUTE, **labels)))


def test_an_end_without_a_code_has_no_label_for_it() -> None:
    """None is no value."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    observer(closed("1", code=None))
    labels = {"websocket__connection__status": "shutdown", "websocket__close__initiator": "application"}
    assert histogram(collect(reader)[CONNECTION]) == expect(((1, 2.0), on(ROUTE, **labels)))


@pytest.mark.parametrize("error_type", ["CancelledError", "Cancelled", "GeneratorExit"])
def test_a_handler_that_somebody_stopped_made_no_error(error_type: str) -> None:
    """Under asyncio, under trio, and by the garbage collector; the status of the end says enough."""
    made, (reader,) = provider()
    MetricsObserver(made)(closed("1", code=None, error_type=error_type))
    labels = {"websocket__connection__status": "shutdown", "websocket__close__initiator": "application"}
    assert histogram(collect(reader)[CONNECTION]) == expect(((1, 2.0), on(ROUTE, **labels)))


@pytest.mark.parametrize("status", CloseStatus)
def test_which_ends_are_an_error(status: CloseStatus) -> None:
    """Those that are a fault of this service; who is closed for idleness or age was to be closed."""
    made, (reader,) = provider()
    MetricsObserver(made)(closed("1", status=status))
    labels = {
        "websocket__connection__status": str(status),
        "websocket__close__code": 1000,
        "websocket__close__initiator": "application",
    }
    if str(status) in {"app_error", "protocol_error", "slow_consumer"}:
        labels["error__type"] = str(status)
    assert histogram(collect(reader)[CONNECTION]) == expect(((1, 2.0), on(ROUTE, **labels)))


def closed(
    connection_id: str,
    *,
    code: int | None = 1000,
    route: str = ROUTE,
    error_type: str | None = None,
    status: CloseStatus = CloseStatus.SHUTDOWN,
) -> Closed:
    """Make a terminal event."""
    initiator = Initiator.APPLICATION
    return Closed(
        connection_id, 9.0, "/", route, code, "", initiator, status, 0.1, 2.0, 0.0, error_type, None, Books()
    )  # fmt: skip


async def _several(observers: Sequence[Observer], guards: int = 1) -> None:
    """Three routes and both schemes, two connections each, all open at once; closed a second later."""

    def app_of(route: str | None) -> Handler:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(scope, receive, send, route)
            await send(TEXT)
            await until_disconnect(receive)

        return app

    tasks = []
    for number in range(2 * guards):
        for route in ("/a", "/b/{b}", None):
            for scheme in ("ws", "wss"):
                guard = WebSocketGuardMiddleware(app_of(route), observers=(observers[number % guards],))
                server = ScriptedServer(scheme=scheme)
                server.connect()
                tasks.append(server.call(guard))
                asyncio.get_running_loop().call_later(2, server.disconnect)
    await asyncio.sleep(1)
    gate.append(len(tasks))
    await asyncio.gather(*tasks)


gate: list[int] = []


def test_routes_and_schemes_are_told_apart() -> None:
    """While they live and after; only open connections have a scheme."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)

    async def main() -> None:
        task = asyncio.create_task(_several((observer,)))
        await asyncio.sleep(1.5)
        live.update(collect(reader))
        await task

    live: dict[str, Metric] = {}
    run(main)
    over = collect(reader)
    routes = ("/a", "/b/{b}", None)
    for found, active in ((live, 2), (over, 0)):
        assert numbers(found["websocket.server.connection.active"]) == expect(
            *((active, on(route, url__scheme=scheme)) for route in routes for scheme in ("ws", "wss"))
        )
        merged: dict[Any, Any] = {}
        for route in routes:
            merged |= sends(route, forwarded=8)
        assert numbers(found["asgi_ws_guard.sends"]) == merged
        result = "websocket.connection.result"
        accepts = {key: value for key, value in numbers(found["websocket.server.connections"]).items() if value}
        assert accepts == expect(*((4, {**on(route), result: "accepted"}) for route in routes))


def test_two_guards_of_one_provider_are_one_sum() -> None:
    """Their observers share the instruments; the SDK takes a name once."""
    made, (reader,) = provider()
    observers = [MetricsObserver(made), MetricsObserver(made)]
    run(lambda: _several(observers, guards=2))
    found = collect(reader)
    point = frozen(on("/a", result="forwarded"))
    assert numbers(found["asgi_ws_guard.sends"])[point] == 16
    assert sum(count for count, _ in histogram(found[CONNECTION]).values()) == 24


def test_a_guard_that_is_attached_twice_counts_once() -> None:
    """Two observers of one guard, or one that is given twice."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    run(lambda: serve(echo, (observer, observer), leaves()))
    assert numbers(collect(reader)["asgi_ws_guard.sends"]) == sends(forwarded=1)


def test_connections_that_nobody_measures_have_messages_without_a_type() -> None:
    """Their number is true; their type and bytes are unknown."""
    made, (reader,) = provider()
    observer = MetricsObserver(made, sizes=False)
    assert not observer.wants_sizes
    assert MetricsObserver(made).wants_sizes
    run(lambda: serve(echo, (observer,), leaves(texts=("a", "b"))))
    found = numbers(collect(reader)["websocket.server.messages"])
    assert {key: value for key, value in found.items() if value} == expect(
        (2, on(ROUTE, network__io__direction="receive")), (2, on(ROUTE, network__io__direction="transmit"))
    )


def test_some_of_a_route_may_be_measured_and_others_not() -> None:
    """The sum over the types is the number of all messages."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await until_disconnect(receive)

    async def script(server: ScriptedServer) -> None:
        server.connect()
        server.text("a")
        server.deliver({"type": "websocket.receive", "bytes": b"a"}, {"type": "websocket.receive", "bytes": b"b"})
        await asyncio.sleep(1)
        server.disconnect()

    wishes = Plain(observer)

    async def main() -> None:
        guard = WebSocketGuardMiddleware(reads, observers=(wishes,))
        for wishes.wants_sizes in (True, False):
            server = ScriptedServer("/rooms/7")
            client = asyncio.ensure_future(script(server))
            await server.call(guard)
            await client

    run(main)
    found = numbers(collect(reader)["websocket.server.messages"])
    received = on(ROUTE, network__io__direction="receive")
    kind = "websocket.message.type"
    counts = [found[frozen(labels)] for labels in (received, {**received, kind: "text"}, {**received, kind: "binary"})]
    assert counts == [3, 1, 2]


def test_the_success_rate_of_sends_can_be_computed() -> None:
    """Forwarded over all but the refused, on a server that never raises too: nothing is lost between the outcomes."""
    attempts = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        await accepted(scope, receive, send)
        for message in (TEXT, TEXT, ACCEPT, TEXT):
            attempts += 1
            with contextlib.suppress(RuntimeError):
                await send(message)
        await until_disconnect(receive)
        for _ in range(5):
            attempts += 1
            await send(TEXT)

    made, (reader,) = provider()
    run(lambda: serve(app, (MetricsObserver(made),), leaves(1001)))
    found = numbers(collect(reader)["asgi_ws_guard.sends"])
    assert found == sends(forwarded=4, refused=1, client_disconnected=5)
    assert sum(found.values()) == attempts + 1


def test_a_failed_send_is_counted_as_failed() -> None:
    """The server raised a real error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send)
        await send(TEXT)

    async def script(server: ScriptedServer) -> None:
        server.connect()
        server.fail_sends(lambda message: LookupError() if message["type"] == "websocket.send" else None)

    made, (reader,) = provider()
    run(lambda: serve(app, (MetricsObserver(made),), script, expected=LookupError))
    assert numbers(collect(reader)["asgi_ws_guard.sends"]) == sends(forwarded=1, failed=1)


# Zombies, and exactly once


def parking(handler_goes_on_s: float, *before: Message) -> Handler:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        routed(scope)
        await receive()
        await asyncio.sleep(HANDSHAKE_S)
        for message in before:
            await send(message)
        await asyncio.sleep(handler_goes_on_s)

    return app


def test_a_zombie_is_counted_while_it_runs_and_its_duration_once() -> None:
    """The histogram does not wait for it, and is not told again when it ends after all."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    seen: list[tuple[Any, Any, Any]] = []

    def look() -> None:
        found = collect(reader)
        zombies = numbers(found["asgi_ws_guard.zombies"])[frozen(on(ROUTE))]
        active = numbers(found["websocket.server.connection.active"])[frozen(on(ROUTE, url__scheme="ws"))]
        seen.append((active, zombies, list(histogram(found[CONNECTION]).values()) if CONNECTION in found else None))

    async def main() -> None:
        task = asyncio.create_task(serve(parking(60, ACCEPT), (observer,), leaves(1001)))
        for pause_s in (1.0, 20.0, 4.0):
            await asyncio.sleep(pause_s)
            look()
        await task
        look()

    run(main)
    assert seen == [(1, 0, None), (0, 0, None), (0, 1, [(1, 1.75)]), (0, 0, [(1, 1.75)])]
    assert observer._outlived == set()


def test_the_handshake_of_a_denied_zombie_is_recorded_once() -> None:
    """When its handler is done, for only the terminal event knows the answer."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    heard: list[Event] = []
    run(lambda: serve(parking(60, CLOSE), (observer, heard.append), linger_s=1))
    assert [type(event) for event in heard].count(HandlerOutlived) == 1
    found = collect(reader)
    assert CONNECTION not in found
    assert histogram(found[HANDSHAKE]) == expect(((1, HANDSHAKE_S), on(ROUTE, http__response__status_code=403)))
    assert observer._outlived == set()


# Collections


class Counted:
    """Statistics of one route, whose every reading is another number."""

    def __init__(self) -> None:
        self.readings = 0

    def tallies(self) -> list[Tally]:
        """Count up."""
        self.readings += 1
        books = Books(received=self.readings, sent=self.readings, forwarded=self.readings)
        return [Tally("/r", "ws", self.readings, 0, 0, self.readings, self.readings, books)]

    def books(self) -> dict[str, Books]:
        """Give none."""
        return {}

    def decisions(self) -> dict[tuple[str, str, str], int]:
        """Give none."""
        return {}

    def observer_failures(self) -> dict[str, int]:
        """Give none."""
        return {}


def _reading(found: dict[str, Metric]) -> set[int]:
    """Give the readings that the numbers of one collection come from."""
    return {value for name in OBSERVABLE for value in numbers(found[name]).values() if value}


def test_a_collection_is_one_pass_over_the_statistics() -> None:
    """All instruments belong to the same moment, and the next collection to the next."""
    made, (reader,) = provider()
    counted = Counted()
    MetricsObserver(made).attach(counted)
    for number in (1, 2, 3):
        assert _reading(collect(reader)) == {number}
    assert counted.readings == 3


def test_two_readers_have_a_pass_each() -> None:
    """Prometheus and OTLP side by side, in whatever order."""
    made, (one, two) = provider(2)
    counted = Counted()
    MetricsObserver(made).attach(counted)
    assert [_reading(collect(reader)) for reader in (one, two, two, one)] == [{1}, {2}, {3}, {4}]
    assert counted.readings == 4


def test_a_pass_grows_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that stopped halfway does not lend its numbers to one that is much later."""
    made, (reader,) = provider()
    counted = Counted()
    observer = MetricsObserver(made)
    observer.attach(counted)
    instruments = observer._instruments
    now_s = 100.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now_s)  # type: ignore[attr-defined]
    instruments._pass("one")
    now_s += 1.0
    instruments._pass("two")
    assert counted.readings == 1
    now_s += 0.01
    instruments._pass("three")
    assert counted.readings == 2
    instruments._pass("two")
    assert counted.readings == 2
    assert reader is not None


def test_collecting_in_another_thread_disturbs_nothing() -> None:
    """While connections come, send, and go: no error, nothing counted twice, sums only grow, and the end is exact."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    forwarded: list[int] = []
    accepts: list[int] = []
    problems: list[BaseException] = []
    stop = threading.Event()

    def reading() -> None:
        try:
            while not stop.is_set():
                found = collect(reader)
                if "asgi_ws_guard.sends" in found:
                    forwarded.append(numbers(found["asgi_ws_guard.sends"])[frozen(on(ROUTE, result="forwarded"))])
                    key = frozen(on(ROUTE, websocket__connection__result="accepted"))
                    accepts.append(numbers(found["websocket.server.connections"])[key])
        except BaseException as error:
            problems.append(error)

    async def main() -> None:
        guard = WebSocketGuardMiddleware(echo, observers=(observer,))

        async def one(number: int) -> None:
            for _ in range(20):
                server = ScriptedServer("/rooms/7")
                server.connect()
                server.text(*("x" for _ in range(20)))
                asyncio.get_running_loop().call_later(1 + number / 100, server.disconnect)
                await server.call(guard)

        await asyncio.gather(*map(one, range(20)))

    thread = threading.Thread(target=reading)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        run(main)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval_s)
    assert problems == []
    assert forwarded == sorted(forwarded)
    assert accepts == sorted(accepts)
    assert numbers(collect(reader)["asgi_ws_guard.sends"]) == sends(forwarded=20 * 20 * 21)


# Bounds


def test_an_explosion_of_routes_ends_in_the_overflow_set() -> None:
    """What comes beyond the bound is one label set, marked as OpenTelemetry marks it, and nothing is lost."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        routed(scope, scope["path"])
        await send(ACCEPT)

    async def main() -> None:
        guard = WebSocketGuardMiddleware(app, observers=(observer,))
        for number in range(MAX_ROUTES + 30):
            server = ScriptedServer(f"/{number}")
            server.connect()
            await server.call(guard)

    run(main)
    found = collect(reader)
    result = {"websocket.connection.result": "accepted"}
    accepts = numbers(found["websocket.server.connections"])
    assert accepts[frozen({"otel.metric.overflow": True, **result})] == 30
    assert accepts[frozen({"http.route": f"/{MAX_ROUTES - 1}", **result})] == 1
    assert frozen({"http.route": f"/{MAX_ROUTES}", **result}) not in accepts
    assert sum(accepts.values()) == MAX_ROUTES + 30
    active = numbers(found["websocket.server.connection.active"])
    assert frozen({"otel.metric.overflow": True, "url.scheme": "ws"}) in active


def test_the_label_sets_of_a_histogram_are_bounded() -> None:
    """Clients choose close codes: beyond the bound one set takes them all, and known ones go on."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    for number in range(MAX_LABEL_SETS + 20):
        observer(closed(str(number), code=number))
    observer(closed("again", code=0))
    observer(Accepted("1", 1.0, None, ROUTE, 0.5))
    found = collect(reader)
    points = histogram(found[CONNECTION])
    assert len(points) == MAX_LABEL_SETS + 1
    assert points[frozen({"otel.metric.overflow": True})] == (20, 40.0)
    known = {
        "websocket__connection__status": "shutdown",
        "websocket__close__initiator": "application",
        "websocket__close__code": 0,
    }
    assert points[frozen(on(ROUTE, **known))] == (2, 4.0)
    assert len(histogram(found[HANDSHAKE])) == 1


def test_a_route_of_any_length_is_cut() -> None:
    """A template is foreign text as far as this package knows."""
    made, (reader,) = provider()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accepted(scope, receive, send, "/\n" + "x" * 9999)

    run(lambda: serve(app, (MetricsObserver(made),)))
    (point,) = numbers(collect(reader)["asgi_ws_guard.zombies"])
    (label,) = point
    assert label[2] == "/\\n" + "x" * 253 + "…"


# Providers


@pytest.mark.parametrize("made", [None, NoOpMeterProvider()], ids=["none", "no-op"])
def test_without_an_sdk_no_bytes_are_counted(made: Any) -> None:
    """Nobody would read them."""
    observer = MetricsObserver(made)
    assert not observer.wants_sizes
    run(lambda: serve(echo, (observer,), leaves()))


def test_a_provider_is_not_kept() -> None:
    """A test suite may make many: its instruments go with it."""

    def used() -> weakref.ref[MeterProvider]:
        made, _ = provider()
        observer = MetricsObserver(made)
        run(lambda: serve(echo, (observer,), leaves()))
        made.shutdown()
        return weakref.ref(made)

    gone = used()
    gc.collect()
    assert gone() is None


CHILD = """
import asyncio
import sys
sys.path.insert(0, {here!r})
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from stories import echo, leaves, serve
from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.otel import MetricsObserver
from asgi_ws_guard.testing import run

reader = InMemoryMetricReader()
provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
observers = []

{steps}

run(play)
found = {{}}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            found[metric.name] = [point for point in metric.data.data_points]
sent = [point.value for point in found["asgi_ws_guard.sends"] if point.attributes["result"] == "forwarded"]
lived = sum(point.count for point in found["websocket.server.connection.duration"])
print(sent, lived, [observer.wants_sizes for observer in observers])
"""
SET, GLOBAL, GIVEN = "metrics.set_meter_provider(provider)", "MetricsObserver()", "MetricsObserver(provider)"
PLAY = """
async def play():
    for observer in observers:
        await serve(echo, (observer,), leaves(texts=("x",)))
"""


@pytest.mark.parametrize(
    "steps",
    [
        f"{SET}; observers += [{GLOBAL}, {GLOBAL}]",
        f"observers += [{GLOBAL}, {GLOBAL}]; {SET}",
        f"observers += [{GLOBAL}]; {SET}; observers += [{GLOBAL}]",
        f"observers += [{GLOBAL}]; {SET}; observers += [{GIVEN}]",
        f"observers += [{GIVEN}]; {SET}; observers += [{GLOBAL}]",
    ],
    ids=["set before", "set after", "set between", "global, then given", "given, then global"],
)
def test_the_global_provider_may_be_set_before_or_after(steps: str) -> None:
    """Both guards count, once each, and the instruments are registered once: no warning."""
    here = str(__file__).rsplit("/", 1)[0]
    code = CHILD.format(here=here, steps=steps + PLAY)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert child.stderr == ""
    assert child.stdout == "[4] 2 [True, True]\n"


def test_a_client_that_stays_is_active() -> None:
    """And is counted from its accept on, not before."""
    made, (reader,) = provider()
    observer = MetricsObserver(made)
    seen: list[set[str]] = []

    async def main() -> None:
        task = asyncio.create_task(serve(parking(5, ACCEPT), (observer,), stays))
        for pause_s in (0.1, 1.0):
            await asyncio.sleep(pause_s)
            seen.append(set(collect(reader)))
        await task

    run(main)
    assert seen == [set(), {*OBSERVABLE, HANDSHAKE}]
