"""
Finds in a server's log what nobody should have to read: tracebacks, errors, tasks that nobody awaited.

A complaint is the application's own when all that it ends with was raised on purpose (`mishaps.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asgi_ws_guard._loops import WorkCancelled

from .mishaps import CANCELLED, Mishap

OWN = re.compile(rf"^(\S+\.)?({Mishap.__name__}\b|CancelledError: {CANCELLED})")
RAISED = re.compile(rf" raised ({Mishap.__name__}|{WorkCancelled.__name__}) at ")
"""How the guard names what a callable raised that it was given, or that its work was cancelled, without a traceback."""
BARE_CANCELLATION = re.compile(r"^(asyncio\.exceptions\.)?CancelledError:?$")
TRACEBACK = "Traceback (most recent call last):"
CHAINS = ("During handling of the above exception", "The above exception was the direct cause")
DETAILS = ("future: <", "task: <", "handle: <")
"""Second lines of what asyncio says."""
SUSPICIOUS = re.compile(
    r"\bERROR\b|\bCRITICAL\b|never retrieved|was never awaited|was destroyed|panicked|Exception ignored|Warning\b"
    r"|Unhandled|Fatal|\[WARNING\]|Task was|took too long"
)
MARGIN = re.compile(r"^[\s|+\-]*")
ERROR = re.compile(r"^[\w.]+(: .*)?$")


@dataclass(frozen=True)
class Complaint:
    """
    One thing that a log complains of.

    Args:
        headline: The line before the traceback, or the line itself.
        lines: The traceback; empty without one.
    """

    headline: str
    lines: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """The exception that the last traceback is of, or the line itself."""
        return self._errors()[-1] if self._errors() else self.headline

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join((self.headline, *self.lines))

    @property
    def is_raised_by_guard(self) -> bool:
        """Whether the innermost line of the last traceback is the guard's."""
        places = [line for line in self.lines if MARGIN.sub("", line).startswith('File "')]
        return bool(places) and "/asgi_ws_guard/" in places[-1]

    @property
    def is_own(self) -> bool:
        """Whether it is of what was raised on purpose; a cancellation may have lost its text on the way."""
        if not self.lines:
            return RAISED.search(self.headline) is not None
        leaves = [line for line in self._errors() if "ExceptionGroup" not in line]
        own = [OWN.match(line) is not None for line in leaves]
        return bool(own) and (own[-1] or (BARE_CANCELLATION.match(leaves[-1]) is not None and any(own)))

    def _errors(self) -> list[str]:
        """Give the lines that name an exception."""
        found, inside = [], False
        for line in self.lines:
            bare = MARGIN.sub("", line)
            margin = line.rstrip("\n")[: len(line) - len(line.lstrip(" |+-"))]
            if TRACEBACK in line:
                inside, depth = True, len(margin)
            elif inside and bare and len(margin) <= depth and not bare.startswith(CHAINS):
                found.append(bare.rstrip())
                inside = False
        return found


def complaints(lines: Iterable[str]) -> Iterator[Complaint]:
    """
    Read a log.

    Args:
        lines: Of a server's standard output and standard error.
    """
    headline, block = "", list[str]()
    for line in lines:
        line = line.rstrip("\n")
        if block and _goes_on(line, block):
            block.append(line)
            continue
        if block:
            yield Complaint(headline, tuple(block))
            headline, block = "", []
        if TRACEBACK in line:
            block = [line]
            continue
        if line.startswith(DETAILS):
            headline = f"{headline}\n{line}"
            continue
        if _is_suspicious(headline):
            yield Complaint(headline)
        headline = line
    if block:
        yield Complaint(headline, tuple(block))
    elif _is_suspicious(headline):
        yield Complaint(headline)


def _goes_on(line: str, block: list[str]) -> bool:
    """Tell whether a line belongs to the traceback before it."""
    if not line or line[0] in " |+" or TRACEBACK in line or line.startswith(CHAINS):
        return True
    before = next((one for one in reversed(block) if one), "")
    return before[:1] in (" ", "|") and ERROR.match(line) is not None


def _is_suspicious(line: str) -> bool:
    if not line.startswith("{"):
        return SUSPICIOUS.search(line) is not None
    try:
        fields, end = json.JSONDecoder().raw_decode(line)
    except ValueError:
        return True
    if SUSPICIOUS.search(line[end:]):  # of a thread that prints while another has not ended its line
        return True
    return fields.get("level") in ("error", "critical") and fields.get("error_type") != Mishap.__name__
