"""
What servers complain of by themselves: each the same without the guard, each matched by its server and its words.

Nothing here excuses a task, a span or a connection that is left, and nothing excuses a line of the guard's.
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
            and "asgi_ws_guard" not in complaint.text
        )


UVICORN = ("uvicorn-sansio", "uvicorn-wsproto", "uvicorn-legacy")

KNOWN: tuple[Known, ...] = (
    Known(
        UVICORN,
        r"ERROR:    ASGI callable returned without completing handshake\.",
        "",
        "uvicorn 0.54 says so whenever a handler returns without an answer, also when the client has left meanwhile",
    ),
    Known(
        ("uvicorn-sansio",),
        r"UnicodeDecodeError: 'utf-8' codec can't decode byte .*",
        "ERROR:    Invalid UTF-8 sequence received from client.",
        "uvicorn 0.54 reports a text message of a client that is not UTF-8 as an error, with its traceback",
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
