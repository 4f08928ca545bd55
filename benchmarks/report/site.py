"""
The application that the real servers serve: an echo behind the subject that the variable ``BENCH_SUBJECT`` names.

It is made at import, because hypercorn looks into the module's dictionary.
"""

from __future__ import annotations

import os
from typing import Any

from .subjects import prepare


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo every text message; come and go with the server."""
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


app = prepare(os.environ["BENCH_SUBJECT"])(echo)
