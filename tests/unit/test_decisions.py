"""What policies decide is counted, and told once of each kind: a flood costs no event per message."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from structlog.testing import CapturingLogger

from asgi_ws_guard import Allow, Close, Closed, Deny, Drop, Handshake, PolicyApplied, Rejected, WebSocketGuardMiddleware
from asgi_ws_guard._bookkeeping import MAX_KINDS
from asgi_ws_guard._ledger import MAX_DECISIONS
from asgi_ws_guard._plugin import OVERFLOW
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.otel import MetricsObserver
from asgi_ws_guard.plugins.structlog import StructlogObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
NAME = f"{__name__}._Answers"


class _Answers:
    """A message policy that answers what a test gives, for received messages, by their size."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop | Close:
        if direction == "sent":
            return Allow()
        answer: Allow | Drop | Close = self.answer(size)
        return answer


class _Denies:
    def admit(self, handshake: Handshake) -> Deny:
        return Deny(reason="full")


async def _reads(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        pass


def _flood(sizes: list[int], policy: Any, *observers: Any) -> None:
    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        server.text(*("x" * size for size in sizes))
        server.disconnect()
        await server.call(WebSocketGuardMiddleware(_reads, observers=observers, policies=(policy,)))

    run(main)


def test_a_flood_is_told_once_and_summed_up() -> None:
    """Each kind has one event and one log line; the terminal event and its line have the numbers."""
    seen, log = Recorder(), CapturingLogger()
    _flood(
        [1, 2, 2, 1] * 250, _Answers(lambda size: Drop("big") if size == 2 else Drop()), seen, StructlogObserver(log)
    )
    assert [event.reason for event in seen.of(PolicyApplied)] == ["dropped", "big"]
    assert seen.one(Closed).decisions == {(NAME, "drop", "dropped"): 500, (NAME, "drop", "big"): 500}
    lines = [call for call in log.calls if call.args == ("websocket policy applied",)]
    assert len(lines) == 2
    assert log.calls[-1].kwargs["decisions"] == {f"{NAME} drop dropped": 500, f"{NAME} drop big": 500}


def test_who_is_allowed_has_no_decisions() -> None:
    """An empty mapping in the event, and nothing in the line."""
    seen, log = Recorder(), CapturingLogger()
    _flood([1], _Answers(lambda size: Allow()), seen, StructlogObserver(log))
    assert seen.one(Closed).decisions == {}
    assert "decisions" not in log.calls[-1].kwargs


def test_reasons_that_a_policy_makes_up_are_bounded() -> None:
    """On the connection, in the guard and in the metric: what is beyond the bound is summed up, and nothing is lost."""
    reader, seen = InMemoryMetricReader(), Recorder()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observer = MetricsObserver(provider)
    statistics: list[Any] = []
    observer_attach = observer.attach
    observer.attach = lambda given: (statistics.append(given), observer_attach(given))  # type: ignore[method-assign, assignment, func-returns-value]
    sizes = list(range(1, MAX_KINDS + 41))

    async def main() -> None:
        guard = WebSocketGuardMiddleware(
            _reads, observers=(observer, seen), policies=(_Answers(lambda size: Drop(f"r{size + shift[0]}")),)
        )
        for number in range(5):
            shift[0] = 1000 * number
            server = ScriptedServer()
            server.connect()
            server.text(*("x" * size for size in sizes))
            server.disconnect()
            await server.call(guard)

    shift = [0]
    run(main)
    decisions = [event.decisions for event in seen.of(Closed)]
    assert all(len(one) == MAX_KINDS + 1 for one in decisions)
    assert all(one[NAME, "drop", OVERFLOW] == 40 for one in decisions)
    assert len(seen.of(PolicyApplied)) == 5 * (MAX_KINDS + 1)
    counted = statistics[0].decisions()
    assert len(counted) == MAX_DECISIONS + 1
    assert sum(counted.values()) == 5 * len(sizes)
    assert sum(_points(reader).values()) == 5 * len(sizes)
    assert len(_points(reader)) == MAX_DECISIONS + 1


def _points(reader: InMemoryMetricReader) -> dict[tuple[tuple[str, Any], ...], int]:
    found: Any = reader.get_metrics_data()
    metrics = {one.name: one for scope in found.resource_metrics[0].scope_metrics for one in scope.metrics}
    metric = metrics["asgi_ws_guard.policy.decisions"]
    assert (metric.unit, metric.data.is_monotonic) == ("{decision}", True)
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def test_the_metric_counts_denials_drops_and_closes() -> None:
    """Over all guards of a provider, also while a connection lives."""
    reader = InMemoryMetricReader()
    observer = MetricsObserver(MeterProvider([reader], shutdown_on_exit=False))
    seen = Recorder()
    _flood([1, 1, 2, 1], _Answers(lambda size: Close(reason="enough") if size == 2 else Drop("rate")), observer)
    _flood([], _Denies(), observer, seen)
    _flood([], _Denies(), observer)
    denies = f"{__name__}._Denies"
    assert seen.one(Rejected).decisions == {(denies, "deny", "full"): 1}

    def on(policy: str, decision: str, reason: str) -> tuple[tuple[str, str], ...]:
        return (
            ("asgi_ws_guard.policy", policy),
            ("asgi_ws_guard.policy.decision", decision),
            ("asgi_ws_guard.policy.reason", reason),
        )

    assert _points(reader) == {
        on(NAME, "drop", "rate"): 2,
        on(NAME, "close", "enough"): 1,
        on(denies, "deny", "full"): 2,
    }
