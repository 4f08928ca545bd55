"""
An application that says over each connection whether it is guarded, and in which process.

It knows nothing of the guard but the key of its handle. Started by `test_from_outside.py`, in every way from outside.
"""

from __future__ import annotations

import json
import os
from typing import Any

KEY = "asgi_ws_guard.connection"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request, and tell each connection what it is."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        text = json.dumps({"is_guarded": KEY in scope, "pid": os.getpid()})
        await send({"type": "websocket.send", "text": text})
        while (await receive())["type"] != "websocket.disconnect":
            pass


def create_app() -> Any:
    """Make the application."""
    return app
