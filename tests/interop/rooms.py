"""
The application of these tests: one route for each way in which a connection can end.

It runs behind the guard on a real server. ``ROOMS_TELEMETRY`` chooses where its telemetry goes: ``prometheus`` serves
it at ``/metrics``, ``otlp`` sends it to ``OTEL_EXPORTER_OTLP_ENDPOINT``. ``ROOMS_MESSAGE_SPANS`` is ``off`` or ``all``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import make_asgi_app

from asgi_ws_guard import WebSocketGuardMiddleware, current_connection
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver

LATE_SENDS = 5
LINGER_S = 0.4
STUCK_S = 0.3
CHUNK = "x" * 65536

app = FastAPI()


@app.websocket("/echo/{room}")
async def echo(websocket: WebSocket, room: str) -> None:
    """Send every message back as it came."""
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


@app.websocket("/late/{room}")
async def late(websocket: WebSocket, room: str) -> None:
    """Go on sending after the disconnect, a few times."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.receive_text()
    for _ in range(LATE_SENDS):
        await websocket.send_text("late")


@app.websocket("/close/{room}")
async def close(websocket: WebSocket, room: str) -> None:
    """Close with a code and a reason of its own."""
    await websocket.accept()
    await websocket.close(4001, "enough")


@app.websocket("/deny/{room}")
async def deny(websocket: WebSocket, room: str) -> None:
    """Deny with 401."""
    await websocket.send_denial_response(Response("who are you?", status_code=401))


@app.websocket("/error/{room}")
async def error(websocket: WebSocket, room: str) -> None:
    """Fail after the accept."""
    await websocket.accept()
    raise ValueError("a bug of the application")


@app.websocket("/push/{room}")
async def push(websocket: WebSocket, room: str) -> None:
    """Push for ever and catch everything: only the guard ends it."""
    await websocket.accept()
    while True:
        with contextlib.suppress(Exception):
            await websocket.send_text("tick")
        await asyncio.sleep(0.05)


@app.websocket("/parked/{room}")
async def parked(websocket: WebSocket, room: str) -> None:
    """Wait for the end without receiving, then for something that does not come for a while."""
    await websocket.accept()
    await current_connection().wait_closed()
    await asyncio.sleep(3600)


@app.websocket("/flood/{room}")
async def flood(websocket: WebSocket, room: str) -> None:
    """Send without end, and say so when the peer does not take a message for a while."""
    await websocket.accept()
    while True:
        sending = asyncio.ensure_future(websocket.send_text(CHUNK))
        done, _ = await asyncio.wait([sending], timeout=STUCK_S)
        if not done:
            print(f"stuck {room}")
        await sending
        if not current_connection().is_open:
            return


@app.websocket("/impatient/{room}")
async def impatient(websocket: WebSocket, room: str) -> None:
    """Send until the peer does not take a message for a while, then give up."""
    await websocket.accept()
    with contextlib.suppress(asyncio.TimeoutError):
        while True:
            await asyncio.wait_for(websocket.send_text(CHUNK), STUCK_S)
    print(f"gave up {room}")


def make_app() -> FastAPI:
    """Put the guard around the application (``--factory``)."""
    telemetry = _export() if os.environ["ROOMS_TELEMETRY"] == "otlp" else _serve_metrics()
    observers = (telemetry, LogContext(), StructlogObserver())
    app.add_middleware(WebSocketGuardMiddleware, linger_s=LINGER_S, observers=observers)
    return app


def _serve_metrics() -> Telemetry:
    app.mount("/metrics", make_asgi_app())
    return Telemetry(meter_provider=MeterProvider(metric_readers=[PrometheusMetricReader()]))


def _export() -> Telemetry:
    return Telemetry(
        exporters=["otlp"], message_spans="all" if os.environ.get("ROOMS_MESSAGE_SPANS") == "all" else "off"
    )
