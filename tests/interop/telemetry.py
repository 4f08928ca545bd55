"""What the tests of exporters share: the exporters, their receivers, and something to export."""

from __future__ import annotations

import socket
from collections.abc import Callable

from otlp_receiver import GrpcReceiver, HttpReceiver, Receiver

from asgi_ws_guard.plugins.otel.exporters import Providers

RECEIVERS: dict[str, Callable[[], Receiver]] = {"otlp_proto_http": HttpReceiver, "otlp_proto_grpc": GrpcReceiver}


def record(providers: Providers, count: int = 1) -> None:
    """Make spans, and one count."""
    assert providers.tracer_provider is not None
    assert providers.meter_provider is not None
    tracer = providers.tracer_provider.get_tracer("test")
    for _ in range(count):
        tracer.start_span("one").end()
    providers.meter_provider.get_meter("test").create_counter("ones").add(count)


def closed_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
