"""Names of exporters: whatever is installed, what "otlp" stands for, and what cannot be found or used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.plugins.otel.exporters import Providers

SECRET = "s3cr3t"
Build = Callable[..., Providers]
Refused = Callable[..., ConfigurationError]
Install = Callable[[str, str, str], None]


def test_a_name_serves_the_signals_that_it_has(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """Console takes spans and metrics."""
    providers = build(["console"], service_name="chat")
    assert isinstance(providers.tracer_provider, TracerProvider)
    assert isinstance(providers.meter_provider, MeterProvider)
    assert providers.tracer_provider.resource.attributes["service.name"] == "chat"


def test_prometheus_takes_metrics_alone() -> None:
    """It gives no tracer provider, and its own server answers; in a process of its own, which keeps that server."""
    code = """
import os, socket, urllib.request
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
os.environ.update(OTEL_EXPORTER_PROMETHEUS_PORT=str(port), OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1")
from asgi_ws_guard.plugins.otel.exporters import build_providers
providers = build_providers(["prometheus"])
providers.meter_provider.get_meter("test").create_counter("ones").add(3)
page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
print(providers.tracer_provider, [line for line in page.splitlines() if line.startswith("ones_total")])
assert providers.flush(5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("None ['ones_total")
    assert " 3.0" in done.stdout


def test_an_unknown_name_says_what_is_installed(refused: Refused) -> None:
    """The names of both signals, "otlp" among them, and what else may be given."""
    error = refused(exporters=["zipkin"])
    assert (error.option, error.value) == ("exporters", "zipkin")
    for name in ("console", "otlp", "otlp_proto_grpc", "otlp_proto_http", "prometheus", "SpanExporter"):
        assert name in error.allowed


def test_an_installed_exporter_works_by_name(refused: Refused, install: Install, build: Build) -> None:
    """Whatever is in the entry-point group; the endpoint of OTLP is not forced upon it."""
    module = "opentelemetry.sdk.trace.export.in_memory_span_exporter"
    install("opentelemetry_traces_exporter", "memory", f"{module}:InMemorySpanExporter")
    providers = build(["memory"])
    assert providers.tracer_provider is not None
    assert providers.meter_provider is None
    assert refused(exporters=["memory"], endpoint="http://localhost:4318").option == "endpoint"


@pytest.mark.parametrize(
    ("value", "missing"),
    [("no_such_package.exporter:Exporter", "no_such_package"), ("json:NoSuchName", "json:NoSuchName")],
)
def test_an_exporter_that_cannot_be_imported_is_named(
    refused: Refused, install: Install, value: str, missing: str
) -> None:
    """One sentence: which exporter, and what is missing."""
    install("opentelemetry_traces_exporter", "broken", value)
    error = refused(exporters=["broken"])
    assert error.value == "broken"
    assert missing in error.allowed
    assert "\n" not in str(error)


def test_an_exporter_that_cannot_be_made_is_named(refused: Refused, install: Install) -> None:
    """An exporter whose constructor raises is named; so is one that is none."""
    install("opentelemetry_traces_exporter", "needy", "fractions:Decimal.from_float")
    assert "TypeError" in refused(exporters=["needy"]).allowed
    install("opentelemetry_traces_exporter", "number", "builtins:int")
    assert "instance of SpanExporter" in refused(exporters=["number"]).allowed


def kinds(providers: Providers) -> set[str]:
    """List the packages of the exporters at work."""
    found: set[str] = set()
    for courier in providers._running.couriers:
        carried: Any = getattr(courier._export, "__self__", None)
        found.add(type(carried._exporter).__module__)
    return found


def test_otlp_is_grpc_unless_told_otherwise(refused: Refused, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the SDK's own configurator; a variable of one signal wins over that of both."""
    assert all(".grpc." in one for one in kinds(build(["otlp"])))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    assert all(".http." in one for one in kinds(build(["otlp"])))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
    found = kinds(build(["otlp"]))
    assert any(".http.trace" in one for one in found)
    assert any(".grpc.metric" in one for one in found)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    assert refused(exporters=["otlp"]).option == "OTEL_EXPORTER_OTLP_PROTOCOL"


def test_otlp_takes_what_is_installed(refused: Refused, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP where gRPC is not; a protocol asked for without its package names the package."""
    where = "asgi_ws_guard.plugins.otel._names.entry_points"

    found: Any = entry_points

    def without_grpc(**wanted: str) -> list[EntryPoint]:
        return [one for one in found(**wanted) if "grpc" not in one.name]

    monkeypatch.setattr(where, without_grpc)
    assert all(".http." in one for one in kinds(build(["otlp"])))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in refused(exporters=["otlp"]).allowed
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setattr(where, lambda **_: [])
    assert refused(exporters=["otlp"]).value == "otlp"


@pytest.mark.parametrize("variables", [{}, {"OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_exported_when_told_so(build: Build, variables: dict[str, str], monkeypatch: Any) -> None:
    """No providers for "none", and none while the SDK is disabled."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    providers = build(["console" if variables else "none"])
    assert (providers.tracer_provider, providers.meter_provider) == (None, None)
    assert providers.flush(0.1) is True


def test_what_was_made_before_a_failure_is_ended(
    refused: Refused, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second exporter cannot be made, the first one does not stay behind."""
    ended: list[object] = []
    monkeypatch.setattr(InMemorySpanExporter, "shutdown", lambda self: ended.append(self))
    module = InMemorySpanExporter.__module__
    install("opentelemetry_traces_exporter", "memory", f"{module}:InMemorySpanExporter")
    install("opentelemetry_traces_exporter", "needy", "fractions:Decimal.from_float")
    assert refused(exporters=["memory", "needy"]).value == "needy"
    assert len(ended) == 1
