"""The settings of exporters: endpoint, headers, sampler, interval, name. What is wrong is refused, values unseen."""

from __future__ import annotations

import atexit
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.plugins.otel.exporters import Providers

SECRET = "s3cr3t"
Build = Callable[..., Providers]
Refused = Callable[..., ConfigurationError]
Install = Callable[[str, str, str], None]


def sampled(providers: Providers, count: int = 400) -> int:
    """Count the roots that are sampled, of so many."""
    assert providers.tracer_provider is not None
    tracer = providers.tracer_provider.get_tracer("test")
    return sum(tracer.start_span("one").get_span_context().trace_flags.sampled for _ in range(count))


@pytest.mark.parametrize(
    ("exporters", "endpoint"),
    [
        (["console"], "http://localhost:4318"),
        (["none"], "http://localhost:4318"),
        (["otlp_proto_http"], "localhost:4318"),
        (["otlp_proto_http"], "http://"),
        (["otlp_proto_http"], f"http://u:{SECRET}@localhost:4318/v1/traces?key={SECRET}"),
        (["otlp_proto_http"], f"ftp://u:{SECRET}@localhost"),
        (["otlp_proto_grpc"], ""),
        (["otlp_proto_grpc"], f"http://local host/{SECRET}"),
        (["otlp_proto_grpc"], 4317),
    ],
)
def test_an_endpoint_suits_its_exporter(refused: Refused, exporters: list[str], endpoint: object) -> None:
    """It is an address, without the path of a signal, and an exporter takes it; its password is in no text."""
    assert refused(exporters=exporters, endpoint=endpoint).option == "endpoint"


@pytest.mark.parametrize(
    "headers",
    [
        7,
        [("a", SECRET)],
        {"a": 7},
        {7: SECRET},
        {"a b": SECRET},
        {"a": f"{SECRET}\n"},
        {"": SECRET},
        SECRET,
        f"a={SECRET}%0A{SECRET}",
    ],
)
def test_headers_are_checked_in_silence(refused: Refused, headers: object) -> None:
    """What cannot be sent is refused, and no value is in the text."""
    assert refused(exporters=["otlp_proto_http"], headers=headers).option == "headers"


def test_headers_have_an_exporter(refused: Refused) -> None:
    """Headers that nobody takes are a mistake."""
    assert refused(headers={"a": SECRET}).option == "headers"


def test_headers_are_in_no_text(build: Build) -> None:
    """The providers do not show them."""
    assert SECRET not in repr(build(["otlp_proto_http"], headers={"a": SECRET}))


def test_a_variable_that_cannot_be_read_is_not_quoted(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Headers without a name in the variable: one is told, but not the value."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", SECRET)
    build(["otlp_proto_http"])
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, "always_off", "parentbased_always_off", 0, 0.0])
def test_samplers_that_take_nothing(build: Build, sampler: Sampler | str | float) -> None:
    """An instance, a name and a ratio."""
    assert sampled(build(["console"], sampler=sampler)) == 0


def test_ratios(refused: Refused, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio as option; as a name with the variable's argument; the option wins over the variables."""
    assert 100 < sampled(build([InMemorySpanExporter()], sampler=0.5)) < 300
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert 100 < sampled(build([InMemorySpanExporter()], sampler="traceidratio")) < 300
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    assert 100 < sampled(build([InMemorySpanExporter()])) < 300
    assert sampled(build([InMemorySpanExporter()], sampler=1)) == 400
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "many")
    assert refused(sampler="traceidratio").option == "OTEL_TRACES_SAMPLER_ARG"


def test_installed_samplers(refused: Refused, install: Install, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler of another package works by name, as option and by its variable."""
    install("opentelemetry_traces_sampler", "never", "opentelemetry.sdk.trace.sampling:_AlwaysOff")
    install("opentelemetry_traces_sampler", "nothing", "builtins:repr")
    assert sampled(build([InMemorySpanExporter()], sampler="never")) == 0
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "never")
    assert sampled(build([InMemorySpanExporter()])) == 0
    assert refused(sampler="nothing").option == "sampler"


def test_an_unknown_sampler_in_the_variable_is_the_default(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in OpenTelemetry: a variable that is not understood stops nothing."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")
    assert sampled(build([InMemorySpanExporter()])) == 400


@pytest.mark.parametrize("sampler", ["sometimes", 1.5, -1, True, float("nan"), [0.5]])
def test_wrong_samplers(refused: Refused, sampler: object) -> None:
    """Neither a name, nor a ratio, nor a Sampler."""
    assert refused(sampler=sampler).option == "sampler"


@pytest.mark.parametrize("interval", [0, -1, True, "1", float("inf"), float("nan")])
def test_wrong_intervals(refused: Refused, interval: object) -> None:
    """A number of seconds above 0."""
    assert refused(export_interval_s=interval).option == "export_interval_s"


@pytest.mark.parametrize("service_name", ["", " ", 7])
def test_wrong_service_names(refused: Refused, service_name: object) -> None:
    """A text that is not empty."""
    assert refused(service_name=service_name).option == "service_name"


def test_variables_that_the_sdk_refuses(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue smaller than its batch is a wrong configuration, and nothing of it goes on running."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    before = atexit._ncallbacks()
    assert "max_queue_size" in refused().allowed
    assert atexit._ncallbacks() == before
