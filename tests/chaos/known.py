"""
What servers complain of by themselves, each matched by its server and its words.

Each is the same without the guard, but where it says otherwise. Nothing here excuses anything that is left, or a line
of the guard's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .complaints import Complaint


@dataclass(frozen=True)
class Known:
    """
    One complaint of a server.

    Args:
        servers: Names of the servers, as in `interop.servers`.
        last: Pattern of the whole last line.
        within: What must stand in the text too.
        why: What it is, and how it was shown to be the server's own.
    """

    servers: tuple[str, ...]
    last: str
    within: str
    why: str

    def fits(self, server: str, complaint: Complaint) -> bool:
        """Tell whether this is it."""
        return (
            server in self.servers
            and re.fullmatch(self.last, complaint.last) is not None
            and self.within in complaint.text
            and not complaint.is_raised_by_guard
        )


UVICORN = ("uvicorn-sansio", "uvicorn-wsproto", "uvicorn-legacy")

KNOWN: tuple[Known, ...] = (
    Known(
        UVICORN,
        r"ERROR:    ASGI callable returned without (completing|sending) handshake\.",
        "",
        "uvicorn 0.54 says so of every denial with a body, and the legacy one when the client left before the answer",
    ),
    Known(
        ("uvicorn-sansio",),
        r"UnicodeDecodeError: 'utf-8' codec can't decode byte .*",
        "ERROR:    Invalid UTF-8 sequence received from client.",
        "uvicorn 0.54 reports a text message of a client that is not UTF-8 as an error, with its traceback",
    ),
    Known(
        ("uvicorn-legacy",),
        r".*UvicornDeprecationWarning: The `websockets` implementation is deprecated, .*",
        "",
        "uvicorn 0.54 says so at its start",
    ),
    Known(
        ("uvicorn-legacy",),
        r"RuntimeError: unable to perform operation on <TCPTransport closed=True .*; the handler is closed",
        "in send_500_response",
        "uvicorn 0.54 answers a client that has left with 500, in a task that nobody awaits, when its handler has not "
        "answered; more frequent behind the guard, which drops a late accept: the legacy one would take it (G1)",
    ),
    Known(
        ("uvicorn-legacy",),
        r"AssertionError",
        "in _drain_helper",
        "websockets' legacy protocol, which uvicorn 0.54 calls, lets no two tasks wait for the same full buffer",
    ),
    Known(
        ("hypercorn",),
        r"asyncio\.exceptions\.CancelledError",
        "handle: <Handle StreamReaderProtocol.connection_made.<locals>.callback(<Task cancell",
        "hypercorn 0.18 cancels its idle connections when it is stopped, which asyncio reports",
    ),
    Known(
        ("granian",),
        r"RuntimeError: Unsupported ASGI message",
        "/quart/asgi.py",
        "granian 2.8.7 knows no `more_body` in a denial, which Quart 0.22 always sends",
    ),
    Known(
        ("granian",),
        r"ExceptionGroup: unhandled errors in a TaskGroup \(1 sub-exception\)",
        "/quart/asgi.py",
        "the same from Quart 0.23, which has a task group there; granian prints no exception that is inside a group",
    ),
)


def known(server: str, complaint: Complaint) -> Known | None:
    """
    Look a complaint up.

    Args:
        server: Name of the server whose log it stands in.
        complaint: What was found there.
    """
    return next((one for one in KNOWN if one.fits(server, complaint)), None)
