"""
Draw `trace.svg`: what the traces of one connection look like, from the spans of a real one.

It serves a small application with uvicorn, lets a client send a message and leave, and draws what the SDK exported. Run
it with ``python docs/trace_picture.py``; it needs the packages of the development group.
"""

from __future__ import annotations

import asyncio
import html
import socket
from pathlib import Path
from typing import Any

import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.otel import Telemetry

PICTURE = Path(__file__).with_name("trace.svg")
WIDTH, LEFT, ROW, BAR = 1040, 390, 46, 16
COLOURS = {"SERVER": "#3b6fb6", "INTERNAL": "#7a9e57"}


async def one_connection() -> list[ReadableSpan]:
    """Let one client come, talk and leave; give the spans in the order in which they started."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("application")

    async def room(websocket: WebSocket) -> None:
        with tracer.start_as_current_span("load room"):
            await asyncio.sleep(0.03)
        await websocket.accept()
        try:
            while True:
                text = await websocket.receive_text()
                with tracer.start_as_current_span("save message"):
                    await asyncio.sleep(0.04)
                await websocket.send_text(text)
        except WebSocketDisconnect:
            await asyncio.sleep(0.02)
            await websocket.send_text("too late")

    application = Starlette(routes=[WebSocketRoute("/rooms/{room}", room)])
    guarded = WebSocketGuardMiddleware(
        application, observers=[Telemetry(tracer_provider=provider, message_spans="all")]
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(guarded, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/rooms/red", proxy=None) as client:
            await asyncio.sleep(0.05)
            await client.send("hello")
            await client.recv()
            await asyncio.sleep(0.05)
        while not any(span.name.startswith("websocket /") for span in exporter.get_finished_spans()):
            await asyncio.sleep(0.01)
        server.should_exit = True
        await serving
    return sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def draw(spans: list[ReadableSpan]) -> str:
    """
    Draw spans as bars on one axis, each trace together, with parents, links and events.

    Args:
        spans: In the order in which they started.

    Returns:
        An SVG document.
    """
    started = min(span.start_time or 0 for span in spans)
    ended = max(
        moment for span in spans for moment in (span.end_time or 0, *(event.timestamp for event in span.events))
    )
    scale = (WIDTH - LEFT - 40) / (ended - started)
    traces = list(dict.fromkeys(_trace(span) for span in spans))
    spans = sorted(spans, key=lambda span: traces.index(_trace(span)))
    names = {_context(span).span_id: span.name for span in spans}
    lines, y, before = [], 40, -1
    for span in spans:
        number = traces.index(_trace(span))
        if number != before:
            y, before = y + 24, number
            lines.append(_text(12, y, f"trace {number + 1}", "font-weight:bold"))
            y += 12
        x = LEFT + ((span.start_time or 0) - started) * scale
        width = max(((span.end_time or 0) - (span.start_time or 0)) * scale, 2)
        box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"'
        lines.append(f'<rect {box} fill="{COLOURS[span.kind.name]}"/>')
        lines.append(_text(24, y + 12, span.name))
        lines.append(_text(24, y + 26, _relation(span, names), "fill:#666;font-size:10px"))
        for event in span.events:
            at = LEFT + (event.timestamp - started) * scale
            mark = html.escape(event.name)
            lines.append(
                f'<circle cx="{at:.1f}" cy="{y + BAR / 2}" r="4" fill="#c0392b"><title>{mark}</title></circle>'
            )
        if span.events:
            told = ", ".join(event.name for event in span.events)
            lines.append(_text(LEFT, y + BAR + 12, f"events: {told}", "fill:#c0392b;font-size:10px"))
        y += ROW
    total = f"{(ended - started) / 1e6:.0f} ms from the handshake to the end of the handler"
    lines.append(_text(LEFT, y + 14, total, "fill:#666"))
    style = "font:12px sans-serif"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 30}" style="{style};background:#fff">'
    title = _text(12, 28, "One connection with message_spans=&quot;all&quot;", "font-size:15px", raw=True)
    return "\n".join([head, title, *lines, "</svg>", ""])


def _trace(span: ReadableSpan) -> int:
    return _context(span).trace_id


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    if context is None:
        raise ValueError("a span without a context")
    return context


def _relation(span: ReadableSpan, names: dict[int, str]) -> str:
    parent = names.get(span.parent.span_id) if span.parent is not None else None
    links = [names.get(link.context.span_id, "?") for link in span.links]
    said = [span.kind.name, f"child of {parent}" if parent else "root", *(f"linked to {name}" for name in links)]
    return ", ".join(said)


def _text(x: float, y: float, text: str, style: str = "", *, raw: bool = False) -> str:
    said = text if raw else html.escape(text)
    return f'<text x="{x}" y="{y}" style="{style}">{said}</text>'


def main() -> None:
    """Write the picture."""
    spans: Any = asyncio.run(one_connection())
    PICTURE.write_text(draw(spans), "utf-8")
    print(f"{PICTURE.name}: {len(spans)} spans")


if __name__ == "__main__":
    main()
