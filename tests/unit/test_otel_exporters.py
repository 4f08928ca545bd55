"""Exporters given as instances, what becomes of those that raise, and the SDK that is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.plugins.otel.exporters import Providers

SECRET = "s3cr3t"
Build = Callable[..., Providers]
Refused = Callable[..., ConfigurationError]
Install = Callable[[str, str, str], None]


class Metrics(MetricExporter):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.is_shut_down = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Keep the names."""
        for of_resource in metrics_data.resource_metrics:
            self.names += [one.name for scoped in of_resource.scope_metrics for one in scoped.metrics]
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Count it."""
        self.is_shut_down += 1

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits."""
        return True


class Broken(SpanExporter):
    """Raises whatever is asked of it."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Raise, with something in the text that nobody may see."""
        raise LookupError(SECRET)

    def shutdown(self) -> None:
        """Raise."""
        raise LookupError(SECRET)


def test_instances_are_taken_as_they_are(build: Build) -> None:
    """A span exporter, a span processor, a metric exporter and a metric reader, all at once."""
    spans, simple, metrics, reader = InMemorySpanExporter(), InMemorySpanExporter(), Metrics(), InMemoryMetricReader()
    providers = build([spans, SimpleSpanProcessor(simple), metrics, reader])
    assert providers.tracer_provider is not None
    assert providers.meter_provider is not None
    providers.tracer_provider.get_tracer("test").start_span("one").end()
    providers.meter_provider.get_meter("test").create_counter("ones").add(1)
    assert [one.name for one in simple.get_finished_spans()] == ["one"]
    assert providers.flush(5) is True
    assert [one.name for one in spans.get_finished_spans()] == ["one"]
    assert metrics.names == ["ones"]
    assert reader.get_metrics_data() is not None
    providers.shutdown()
    providers.shutdown()
    assert metrics.is_shut_down == 1
    assert providers.flush(5) is False


@pytest.mark.parametrize("wrong", [7, None, ConsoleSpanExporter, {"headers": SECRET}, [SECRET]])
def test_anything_else_is_refused(refused: Refused, wrong: object) -> None:
    """Also a class, where an instance is meant; what it is stays out of the text."""
    assert refused(exporters=[wrong]).option == "exporters"


@pytest.mark.parametrize("wrong", ["console", [], (), None, {"console": 1}, 7])
def test_exporters_is_a_sequence(refused: Refused, wrong: object) -> None:
    """Not a text, not empty."""
    assert refused(exporters=wrong).option == "exporters"


def test_nothing_is_exported_twice(refused: Refused) -> None:
    """The same name, the same instance, or two names of the same exporter."""
    one = InMemorySpanExporter()
    for exporters in (["console", "console"], [one, one], ["otlp", "otlp_proto_grpc"]):
        assert "once" in refused(exporters=exporters).allowed


def test_a_reader_of_somebody_else_is_refused(refused: Refused) -> None:
    """A reader belongs to one provider."""
    reader = InMemoryMetricReader()
    theirs = MeterProvider([reader])
    assert refused(exporters=[reader]).option == "exporters"
    theirs.shutdown()


def test_an_exporter_that_raises_raises_nowhere(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    """One warning, which has the kind of exception but not its text."""
    providers = build([Broken()])
    assert providers.tracer_provider is not None
    for _ in range(3):
        providers.tracer_provider.get_tracer("test").start_span("one").end()
        assert providers.flush(5) is False
    providers.shutdown()
    assert [(one.name, one.levelname) for one in caplog.records] == [("asgi_ws_guard", "WARNING")]
    assert "Broken fails (spans: LookupError)" in caplog.text
    assert SECRET not in caplog.text


def test_a_processor_that_raises_makes_no_flush_raise(build: Build) -> None:
    """Of a processor that is taken as it is, only the outcome counts."""

    class Raises(SimpleSpanProcessor):
        def force_flush(self, timeout_millis: int = 30000) -> bool:
            raise LookupError

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            pass

    assert build([Raises(InMemorySpanExporter())]).flush(1) is False


def test_without_the_sdk_one_sentence_says_what_to_install() -> None:
    """Importing the module needs no SDK; building does."""
    code = """
import sys
sys.modules["opentelemetry.sdk"] = None
from asgi_ws_guard.plugins.otel.exporters import build_providers
try:
    build_providers(["otlp"])
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(
        "ConfigurationError exporters=['otlp'] is not allowed: expected the OpenTelemetry SDK"
    )
    assert 'pip install "asgi-ws-guard[otel]"' in done.stdout
