"""
What `doctor` knows of servers: which are installed, which WebSocket implementation they take, and their quirks.

Every quirk has its row and its test in tests/interop/test_bare_servers.py. What can be asked of the installed server
is asked of it, not written down here. Imported by `_doctor.py` only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from importlib.util import find_spec

from ._findings import Finding, Level
from ._run import NAMES

# From which version to which the quirks were measured, by the first two numbers.
_MEASURED = {
    "uvicorn": ((0, 30), (0, 54)),
    "hypercorn": ((0, 17), (0, 18)),
    "daphne": ((4, 1), (4, 2)),
    "granian": ((2, 0), (2, 8)),
}
_LEGACY = "uvicorn.protocols.websockets.websockets_impl"
_HALF_OPEN = "A client that vanishes without a word (sleep, a lost network) stays connected for ever."


def advise_servers() -> Iterator[Finding]:
    """
    Look at every server that can run the application.

    Yields:
        Findings; one that is critical when there is no server, or none for websockets.
    """
    installed = [name for name in NAMES if find_spec(name) is not None]
    if not installed:
        yield Finding(
            Level.CRITICAL,
            "server",
            f"none of {', '.join(NAMES)} is installed",
            "Nothing can serve the application from here.",
            f"pip install {NAMES[0]} websockets",
        )
    for name in installed:
        version = importlib.metadata.version(name)
        yield from _version(name, version)
        yield from _ADVICE[name](f"{name} {version}")


def _version(name: str, version: str) -> Iterator[Finding]:
    oldest, newest = _MEASURED[name]
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if not oldest <= numbers <= newest:
        span = " to ".join(".".join(map(str, numbers)) for numbers in (oldest, newest))
        yield Finding(
            Level.NOTE,
            name,
            f"version {version} is outside of {span}",
            "What is said of it here was measured with other versions.",
        )


def _uvicorn(subject: str) -> Iterator[Finding]:
    chosen = importlib.import_module("uvicorn.protocols.websockets.auto").AutoWebSocketsProtocol
    if chosen is None:
        yield Finding(
            Level.CRITICAL,
            subject,
            "it has no WebSocket implementation: neither websockets nor wsproto is there",
            "It answers every WebSocket handshake with an error.",
            "pip install websockets",
        )
        return
    implementation = chosen.__module__
    if implementation == _LEGACY:
        yield Finding(
            Level.WARNING,
            subject,
            "it will take the legacy websockets_impl, unless --ws says otherwise",
            "It loses the body of a denial, and a send after the disconnect raises RuntimeError.",
            "--ws websockets-sansio or --ws wsproto, or a newer uvicorn",
        )
        return
    yield Finding(
        Level.NOTE,
        subject,
        f"it will take {implementation.rpartition('.')[2]}, unless --ws says otherwise",
        "A receive after the disconnect hangs; a send raises. The guard makes both the same as everywhere.",
    )


def _hypercorn(subject: str) -> Iterator[Finding]:
    if importlib.import_module("hypercorn.config").Config.websocket_ping_interval is None:
        yield Finding(
            Level.WARNING,
            subject,
            "it sends no ping by default",
            _HALF_OPEN,
            "--websocket-ping-interval 20, or websocket_ping_interval = 20 in its configuration",
        )
    yield Finding(
        Level.NOTE,
        subject,
        "it reports every close of a client as 1006",
        "The application cannot tell a page that was closed from a lost connection, with the guard or without.",
    )


def _daphne(subject: str) -> Iterator[Finding]:
    yield Finding(
        Level.WARNING,
        subject,
        "it has no back pressure",
        "A send never waits for a client that does not read: what is sent to it piles up in memory.",
        "another server where many messages go to slow clients; send_timeout_s cannot see it here",
    )
    yield Finding(
        Level.WARNING,
        subject,
        "it has no denial response",
        "A refused handshake is always 403, and websocket.http.response.start is never answered.",
        "close before the accept instead, which is 403 everywhere",
    )
    yield Finding(
        Level.NOTE,
        subject,
        "it sends no close code but 1000 and 3000 to 4999",
        "The guard sends 4012 for 1012, and so on, where the server refuses.",
    )


def _granian(subject: str) -> Iterator[Finding]:
    yield Finding(
        Level.WARNING,
        subject,
        "it has no option for WebSocket pings",
        _HALF_OPEN,
        "messages of the application's own that the client must answer, and send_timeout_s",
    )
    yield Finding(
        Level.NOTE,
        subject,
        "its default interface is RSGI",
        "Neither an ASGI application nor the guard works there.",
        "--interface asgi; `asgi-ws-guard run` adds it",
    )
    yield Finding(
        Level.NOTE,
        subject,
        "a cancelled receive loses messages, and a close beside a pending one deadlocks",
        "The guard reads through a task of its own here, and neither happens.",
    )


_ADVICE = {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "daphne": _daphne, "granian": _granian}
