"""
The application of the secrets test: its handlers get secrets from every side, and repeat none of them themselves.

``SECRETIVE_LOGS`` is ``console`` or ``json``: all plugins with all options, and structlog with that renderer; or
``default``: a guard without options, and structlog as it is. What others would fetch or be sent goes to files in the
working directory: ``records.json`` for log records; ``/metrics/`` has the exposition of Prometheus.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any, Literal

import structlog
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ws_guard import Allow, Close, Deny, Drop, Identity, Policy, WebSocketGuardMiddleware
from asgi_ws_guard._events import Handshake
from asgi_ws_guard._types import ASGIApp
from asgi_ws_guard.plugins.auth import Auth, bearer_header, subprotocol
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.origin import Origin
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver

LOGS = os.environ.get("SECRETIVE_LOGS", "default")
TOKEN = "s3cr3t-health-token"
SENT = "s3cr3t-sent"
DENIAL = "s3cr3t-denial"
ERROR = "s3cr3t-error"
SUBJECT = "s3cr3t-subject"
TAIL = "s3cr3t-tail"
"""Stands at the end of a close reason, beyond what anybody may keep of it."""
REASON = "\x1b[31mred\r\n\u0000" + "r" * 10_000 + TAIL
UNLUCKY_BYTES = 77
SAID = "in the handler"


def say() -> None:
    """Log a line of the application's by both ways, which takes the bound fields along."""
    structlog.get_logger("app").info(SAID)
    logging.getLogger("app").warning(SAID)


async def talk(websocket: WebSocket) -> None:
    """Echo into the void, break the protocol once, and send late."""
    await websocket.accept(subprotocol=websocket.scope["subprotocols"][0])
    say()
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        await websocket.send_text(SENT)
        await websocket.send_bytes(SENT.encode())
        with contextlib.suppress(RuntimeError):
            await websocket.send({"type": "websocket.send", "text": SENT, "bytes": str(message).encode()})
    say()
    for _ in range(3):
        await websocket.send_text(SENT)


async def close(websocket: WebSocket) -> None:
    """Close with a reason that no frame can hold."""
    await websocket.accept()
    await websocket.close(4001, REASON)


async def error(websocket: WebSocket) -> None:
    """Fail with a text that holds a secret."""
    await websocket.accept()
    raise ValueError(f"{ERROR} {websocket.headers} {websocket.query_params}")


async def deny(websocket: WebSocket) -> None:
    """Deny with a cookie and a body."""
    await websocket.send_denial_response(Response(DENIAL, 401, {"set-cookie": DENIAL}))


async def park(websocket: WebSocket) -> None:
    """Stay for as long as the client does."""
    await websocket.accept()
    await websocket.receive()


class Suspicious:
    """A policy that looks at everything, and closes on one size."""

    def admit(self, handshake: Handshake) -> Allow | Deny:
        """Let everybody in."""
        return Allow()

    def message(self, connection_id: str, direction: Literal["received", "sent"], size: int) -> Allow | Drop | Close:
        """Close at a message of `UNLUCKY_BYTES`."""
        return Close(4013, "unlucky") if size == UNLUCKY_BYTES and direction == "received" else Allow()


class Knowing:
    """An authenticator that fails by the path: with the token for its error's text, or with a denial."""

    def authenticate(self, token: str, handshake: Handshake, /) -> Identity | None:
        """Know everybody by one name."""
        if handshake.path.startswith("/fail/"):
            raise KeyError(token)
        return None if handshake.path.startswith("/refuse/") else Identity(SUBJECT)


HANDLERS = {"talk": talk, "close": close, "error": error, "deny": deny, "park": park}


def make_app() -> ASGIApp:
    """Make the application, the guard around it, and everything that observes (``--factory``)."""
    reader = PrometheusMetricReader()
    routes: list[Any] = [WebSocketRoute(f"/{name}/{{room}}", one) for name, one in HANDLERS.items()]
    app = Starlette(routes=[*routes, Mount("/metrics", make_asgi_app())])
    records = LoggerProvider()
    file = Path("records.json").open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    records.add_log_record_processor(SimpleLogRecordProcessor(ConsoleLogRecordExporter(out=file)))
    health: dict[str, Any] = {"health_path": "/ws-health", "health_token": TOKEN, "linger_s": 0.2}
    if LOGS == "default":
        _set_global_providers(reader, records)
        logging.basicConfig()
        return WebSocketGuardMiddleware(app, **health)
    renderer = structlog.processors.JSONRenderer() if LOGS == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, renderer]
    )
    observers = (
        Telemetry(exporters=["otlp_proto_http", reader], message_spans="all", logger_provider=records),
        LogContext(standard_logging=True),
        StructlogObserver(),
    )
    auth = Auth(Knowing(), source=[subprotocol(), bearer_header()])
    policies: list[Policy] = [Suspicious(), Origin(["https://example.org"], missing="allow"), auth]
    guarded = WebSocketGuardMiddleware(app, observers=observers, policies=policies, **health)
    fields = " ".join(f"{name}=%({name})s" for name in ("connection_id", "route", "trace_id", "span_id"))
    logging.basicConfig(format=f"logging %(name)s %(message)s {fields}", level=logging.INFO)
    return guarded


def _set_global_providers(reader: PrometheusMetricReader, records: LoggerProvider) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=50))
    trace.set_tracer_provider(tracers)
    exporting = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=100)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader, exporting]))
    _logs.set_logger_provider(records)
