"""What the providers send to real receivers of OTLP, over HTTP and over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from otlp_receiver import GrpcReceiver, HttpReceiver, Receiver

from asgi_ws_guard.plugins.otel.exporters import Providers

from .telemetry import closed_port, record


def test_a_span_arrives_whole(otlp_name: str, receiver: Receiver, build: Callable[..., Providers]) -> None:
    """Name, kind, times, parent, link, event, status, resource and scope arrive, and values keep their types."""
    providers = build([otlp_name], endpoint=receiver.endpoint, service_name="chat")
    assert providers.tracer_provider is not None
    tracer = providers.tracer_provider.get_tracer("test.scope", "1.2", "https://example.org/schema")
    before_ns = time.time_ns()
    with tracer.start_as_current_span("parent") as parent:
        values: dict[str, Any] = {
            "text": "a",
            "whole": 7,
            "real": 0.5,
            "yes": True,
            "many": [1, 2],
            "texts": ["x"],
        }
        link = Link(parent.get_span_context(), {"of": 1})
        child = tracer.start_span("child", kind=SpanKind.SERVER, attributes=values, links=[link])
        child.add_event("happened", {"late": False})
        child.set_status(Status(StatusCode.ERROR, "went wrong"))
        child.end()
    assert providers.flush(10)
    got, root = receiver.wait_for(1, name="child")[0], receiver.wait_for(1, name="parent")[0]
    assert (got.kind, got.status, got.status_description) == ("SERVER", "ERROR", "went wrong")
    assert (root.kind, root.status, root.parent_id) == ("INTERNAL", "UNSET", "")
    assert (got.trace_id, got.parent_id) == (root.trace_id, root.span_id)
    assert got.attributes == values
    assert {key: type(one) for key, one in got.attributes.items()} == {key: type(one) for key, one in values.items()}
    assert [(one.trace_id, one.span_id, one.attributes) for one in got.links] == [
        (root.trace_id, root.span_id, {"of": 1})
    ]
    assert [(one.name, one.attributes) for one in got.events] == [("happened", {"late": False})]
    assert before_ns <= root.start_ns <= got.start_ns <= got.events[0].time_ns <= got.end_ns <= root.end_ns
    assert (got.scope.name, got.scope.version, got.scope.schema_url) == (
        *("test.scope", "1.2", "https://example.org/schema"),
    )
    assert got.scope.resource["service.name"] == "chat"


def test_metrics_arrive_whole(otlp_name: str, receiver: Receiver, build: Callable[..., Providers]) -> None:
    """A counter, an up-down counter and a histogram arrive with their kinds, units and types of value."""
    providers = build([otlp_name], endpoint=receiver.endpoint, service_name="chat")
    assert providers.meter_provider is not None
    meter = providers.meter_provider.get_meter("test.scope")
    meter.create_counter("sent", unit="{message}", description="Messages.").add(3, {"to": "all", "code": 1000})
    meter.create_up_down_counter("open").add(-2)
    meter.create_histogram("took", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0]).record(0.25)
    assert providers.flush(10)
    sent = receiver.wait_for_metric("sent")
    assert (sent.kind, sent.unit, sent.description) == ("sum", "{message}", "Messages.")
    assert (sent.temporality, sent.is_monotonic) == ("CUMULATIVE", True)
    assert [(one.value, type(one.value), one.attributes) for one in sent.points] == [
        (3, int, {"to": "all", "code": 1000})
    ]
    assert receiver.wait_for_metric("open").is_monotonic is False
    took = receiver.wait_for_metric("took")
    point = took.points[0]
    assert (took.kind, took.unit, point.count, point.value) == ("histogram", "s", 1, 0.25)
    assert (point.bounds, point.buckets) == ((0.1, 1.0), (0, 1, 0))
    assert took.scope.resource["service.name"] == "chat"


@pytest.mark.parametrize("headers", [{"X-Api-Key": "a b", "other": "1"}, "X-Api-Key=a%20b, other=1"])
def test_headers_arrive(
    otlp_name: str,
    receiver: Receiver,
    build: Callable[..., Providers],
    headers: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both forms give the same headers, on spans and on metrics, and win over the variable."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=from-the-variable")
    providers = build([otlp_name], endpoint=receiver.endpoint, headers=headers)
    record(providers)
    assert providers.flush(10)
    assert len(receiver.headers) == 2
    assert all((one["x-api-key"], one["other"]) == ("a b", "1") for one in receiver.headers)


def test_the_variables_say_where_to_and_how(
    otlp_name: str, receiver: Receiver, build: Callable[..., Providers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options "otlp" goes where the variables say, with their headers and compression."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc" if otlp_name.endswith("grpc") else "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20b")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-variable")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a")
    providers = build(["otlp"])
    record(providers)
    assert providers.flush(10)
    resource = receiver.wait_for(1)[0].scope.resource
    assert (resource["service.name"], resource["team"]) == ("from-the-variable", "a")
    assert receiver.wait_for_metric("ones").points[0].value == 1
    assert [one["x-api-key"] for one in receiver.headers] == ["a b", "a b"]
    if otlp_name.endswith("http"):
        assert [one["content-encoding"] for one in receiver.headers] == ["gzip", "gzip"]


def test_the_options_win(build: Callable[..., Providers], monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint and a service name given as options win over every variable."""
    for variable in ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-variable")
    with HttpReceiver() as receiver:
        providers = build(["otlp_proto_http"], endpoint=receiver.endpoint, service_name="chat")
        record(providers)
        assert providers.flush(10)
        assert receiver.wait_for(1)[0].scope.resource["service.name"] == "chat"


@pytest.mark.parametrize("base", ["", "/", "/collector", "/collector/"])
def test_over_http_the_paths_are_appended(build: Callable[..., Providers], base: str) -> None:
    """As to ``OTEL_EXPORTER_OTLP_ENDPOINT``, with or without a slash at its end."""
    with HttpReceiver() as receiver:
        providers = build(["otlp_proto_http"], endpoint=receiver.endpoint + base)
        record(providers)
        assert providers.flush(10)
        below = base.rstrip("/")
        assert sorted(receiver.paths) == [f"{below}/v1/metrics", f"{below}/v1/traces"]


def test_over_grpc_a_bare_address_is_an_address(
    build: Callable[..., Providers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``host:port`` reaches a gRPC receiver; without TLS where the variable says so."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    with GrpcReceiver() as receiver:
        providers = build(["otlp_proto_grpc"], endpoint=receiver.endpoint.removeprefix("http://"))
        record(providers)
        assert providers.flush(10)
        assert receiver.wait_for(1)


def test_metrics_come_by_themselves(otlp_name: str, receiver: Receiver, build: Callable[..., Providers]) -> None:
    """Every interval, without a flush."""
    record(build([otlp_name], endpoint=receiver.endpoint, export_interval_s=0.05))
    receiver.wait_until(lambda: len(receiver.metrics("ones")) >= 2)
