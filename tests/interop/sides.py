"""
The application of the tests with others: the same routes behind stacks of middleware, each below a path of its own.

``SIDES_SENTRY`` is ``off``, ``middleware`` (only where a stack says so) or ``integration`` (whatever patches itself
in). Spans go to ``OTEL_EXPORTER_OTLP_ENDPOINT`` by the global provider, what Sentry would send to the file
``SIDES_ENVELOPES``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import FastAPI
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry

SENTRY = os.environ.get("SIDES_SENTRY", "off")
QUIET: Any = ["receive", "send"]
PUSH_S = 0.1
tracer = trace.get_tracer("handler")


async def echo(websocket: WebSocket) -> None:
    """Send every text back, in a span of the application's own."""
    await websocket.accept()
    async for text in websocket.iter_text():
        with tracer.start_as_current_span("work"):
            await websocket.send_text(text)


async def push(websocket: WebSocket) -> None:
    """Push until a send says that nobody is there."""
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(PUSH_S)


async def error(websocket: WebSocket) -> None:
    """Fail after the accept."""
    await websocket.accept()
    raise ValueError("a bug of the application")


async def deny(websocket: WebSocket) -> None:
    """Deny with 401."""
    await websocket.send_denial_response(Response(status_code=401))


HANDLERS = {"echo": echo, "push": push, "error": error, "deny": deny}


def starlette() -> Starlette:
    """Make the application with Starlette, which traces nothing itself."""
    return Starlette(routes=[WebSocketRoute(f"/{{stack}}/{name}", one) for name, one in HANDLERS.items()])


def fastapi(**options: Any) -> FastAPI:
    """Make the application with FastAPI, which traces by itself unless it is told not to."""
    app = FastAPI(**options)
    for name, one in HANDLERS.items():
        app.add_api_websocket_route(f"/{{stack}}/{name}", one)
    return app


def guard(app: ASGIApp) -> ASGIApp:
    """Put the guard around an application, with traces by the global provider."""
    return WebSocketGuardMiddleware(app, linger_s=0.2, observers=(Telemetry(), LogContext()))


def inner(app: FastAPI) -> FastAPI:
    """Put the guard into an application, as its middleware."""
    app.add_middleware(WebSocketGuardMiddleware, linger_s=0.2, observers=(Telemetry(), LogContext()))
    return app


def instrumented(app: FastAPI, **options: Any) -> FastAPI:
    """Let FastAPI's instrumentation put itself around everything in an application."""
    FastAPIInstrumentor.instrument_app(app, **options)
    return app


def sentry(app: Any) -> ASGIApp:
    """Put Sentry's middleware around an application."""
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    made: ASGIApp = SentryAsgiMiddleware(app)
    return made


def otel(app: Any, **options: Any) -> ASGIApp:
    """Put OpenTelemetry's middleware around an application."""
    made: ASGIApp = OpenTelemetryMiddleware(app, **options)
    return made


STACKS: dict[str, Callable[[], ASGIApp]] = {
    "alone": lambda: guard(starlette()),
    "otel": lambda: otel(starlette()),
    "otel-guard": lambda: otel(guard(starlette())),
    "quiet-guard": lambda: otel(guard(starlette()), exclude_spans=QUIET),
    "guard-otel": lambda: guard(otel(starlette())),
    "guard-quiet": lambda: guard(otel(starlette(), exclude_spans=QUIET)),
    "fastapi": lambda: instrumented(fastapi()),
    "fastapi-guard": lambda: instrumented(inner(fastapi())),
    "guard-fastapi": lambda: guard(instrumented(fastapi(), exclude_spans=QUIET)),
    "excluded": lambda: instrumented(inner(fastapi(telemetry={"tracing": False})), excluded_urls="/excluded/"),
    "native-guard": lambda: inner(fastapi()),
    "guard-native": lambda: guard(fastapi()),
    "guard-silent": lambda: guard(fastapi(telemetry={"tracing": False})),
}
if SENTRY == "middleware":
    STACKS |= {
        "sentry": lambda: sentry(starlette()),
        "sentry-guard": lambda: sentry(guard(starlette())),
        "guard-sentry": lambda: guard(sentry(starlette())),
        "otel-sentry-guard": lambda: otel(sentry(guard(starlette())), exclude_spans=QUIET),
        "sentry-guard-otel": lambda: sentry(guard(otel(starlette(), exclude_spans=QUIET))),
    }


def make_app() -> ASGIApp:
    """Make all stacks, and what chooses one by the path (``--factory``)."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=50))
    trace.set_tracer_provider(provider)
    if SENTRY != "off":
        _start_sentry()
    stacks = {name: make() for name, make in STACKS.items()}

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        if scope["type"] == "http":
            await Response(status_code=404)(scope, receive, send)
            return
        before = otel_context.get_current(), structlog.contextvars.get_contextvars()
        stack = stacks.get(scope["path"].split("/")[1], stacks["alone"])
        try:
            await stack(scope, receive, send)
        finally:
            if (otel_context.get_current(), structlog.contextvars.get_contextvars()) != before:
                print("the context is another one:", scope["path"])

    async def live(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        gc.collect()
        provider.force_flush()
        await send({"type": "lifespan.shutdown.complete"})

    return choose


def _start_sentry() -> None:
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    class ToFile(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            with open(os.environ["SIDES_ENVELOPES"], "a", encoding="utf-8") as file:
                for item in envelope.items:
                    if item.type in ("event", "transaction"):
                        print(json.dumps(item.payload.json, default=str), file=file)

    integrated = SENTRY == "integration"
    sentry_sdk.init(
        dsn="http://public@127.0.0.1:9/1",
        transport=ToFile,
        traces_sample_rate=1.0,
        auto_enabling_integrations=integrated,
        default_integrations=integrated,
    )
