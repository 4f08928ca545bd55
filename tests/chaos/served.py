"""
The application of the storm, as a server imports it: all styles, each behind a guard of its own, and their figures.

``CHAOS_SEED`` and ``CHAOS_SERVER`` choose the options of the guards; with ``CHAOS_BARE`` there are none. ``/figures``
gives JSON; with ``?memory`` also what takes a collection. Everything that is logged by structlog is a line of JSON: a
traceback is always a fault.
"""

from __future__ import annotations

import json
import os
from random import Random
from typing import Any

import structlog

from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.plugins.logcontext import LogContext
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver

from . import styles
from .figures import Style, Telltale, memory_figures, process_figures
from .mishaps import UnluckyObserver
from .plans import GOVERNED, STYLES
from .policies import policies

QUIET_LINGER_S = {"chat": 60.0, "quart": styles.QUART_LINGER_S, "hub": 60.0}
"""For those that shall never be told: longer than the chat takes for what had arrived, on a loaded machine too."""
SEED_VARIABLE, SERVER_VARIABLE, BARE_VARIABLE = "CHAOS_SEED", "CHAOS_SERVER", "CHAOS_BARE"

structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()])


def guard_options(seed: str, server: str, style: str, telltale: Telltale) -> dict[str, Any]:
    """
    Draw the options of a guard.

    Args:
        seed: Of the run.
        server: The server it stands on.
        style: The application it stands before.
        telltale: The SDK that its telemetry goes to.
    """
    random = Random(f"{seed}:{server}:{style}")
    telemetry = Telemetry(
        tracer_provider=telltale.tracers,
        meter_provider=telltale.meters,
        message_spans=random.choice(("off", "off", 0.2)),
        handler_spans=random.choice(("children", "linked")),
    )
    unlucky = UnluckyObserver(f"{seed}:observer", wants_messages=random.random() < 0.5, share=0.01)
    observers = [telemetry, LogContext(), StructlogObserver()]
    observers.insert(random.randrange(4), unlucky)
    raising: dict[str, Any] = {
        "linger_s": random.choice((0.0, 0.1, 0.4)),
        "cancel_after_s": random.choice((None, 0.3)),
        "send_timeout_s": random.choice((None, 0.5)),
        "late_sends": random.choice(("drop", "raise")),
    }
    # the chat and Quart log whatever their sends raise: there the guard is to raise nothing
    quiet = {"linger_s": QUIET_LINGER_S.get(style), "policies": policies() if style in GOVERNED else ()}
    return {**(quiet | raising if style == "raw" else quiet), "observers": observers}


_telltale = Telltale()
_applications = dict(zip(STYLES, (styles.raw, styles.chat(), styles.quart(), styles.hub()), strict=True))
_styles = {
    name: Style(
        app,
        None
        if BARE_VARIABLE in os.environ
        else guard_options(os.environ[SEED_VARIABLE], os.environ[SERVER_VARIABLE], name, _telltale),
        # Quart 0.22 forgets both of its tasks when its own is cancelled; nothing below it can end them
        is_cancelled=name != "quart",
    )
    for name, app in _applications.items()
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve lifespan, figures and the styles."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await _answer(scope, send)
    else:
        await _styles[scope["path"].split("/")[1]](scope, receive, send)


async def _answer(scope: Scope, send: Send) -> None:
    figures: dict[str, Any] = {}
    if scope["path"] == "/figures":
        figures = {"styles": {name: style.figures() for name, style in _styles.items()}, **process_figures(_telltale)}
        if scope["query_string"] == b"memory":
            figures |= memory_figures()
    body = json.dumps(figures).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
