"""
An echo server behind the guard that Prometheus can scrape.

Run it with ``uvicorn examples.monitoring.app:app`` and connect to ``ws://127.0.0.1:8000/rooms/red``; the metrics
are at http://127.0.0.1:8000/metrics/. The guard reports to OpenTelemetry's global provider and needs no option.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import make_asgi_app

from asgi_ws_guard import WebSocketGuardMiddleware

metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))

app = FastAPI()
app.add_middleware(WebSocketGuardMiddleware)
app.mount("/metrics", make_asgi_app())


@app.websocket("/rooms/{room}")
async def echo(websocket: WebSocket, room: str) -> None:
    """Send every text back with the name of its room."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"{room}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass
