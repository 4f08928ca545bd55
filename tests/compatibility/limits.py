"""
What the guard cannot repair, and why: the footnotes of the table.

Each was seen with a bare run too: what is missing with the guard is missing without it, unless its entry says why not.
"""

from __future__ import annotations

from dataclasses import dataclass

from .scenarios import SCENARIOS

_CLOSES = ("close_send", "close_receive", "double_close")


@dataclass(frozen=True)
class Limit:
    """
    One footnote.

    Args:
        frameworks: Names of the rows.
        scenarios: Names of what does not hold there.
        text: The footnote.
        servers: Names of the columns; empty: all.
        holds_bare: Names of the columns in which it holds bare, by chance.
    """

    frameworks: tuple[str, ...]
    scenarios: tuple[str, ...]
    text: str
    servers: tuple[str, ...] = ()
    holds_bare: tuple[str, ...] = ()

    def covers(self, framework: str, server: str, scenario: str) -> bool:
        """Tell whether this is why a scenario does not hold."""
        return (
            framework in self.frameworks and scenario in self.scenarios and (not self.servers or server in self.servers)
        )


def limit_of(framework: str, server: str, scenario: str) -> Limit | None:
    """Give the first limit that covers a scenario that does not hold; None: there is no reason why it should not."""
    return next((limit for limit in LIMITS if limit.covers(framework, server, scenario)), None)


LIMITS = (
    Limit(
        ("quart",),
        ("receive_again",),
        "Receive after the disconnect: Quart tells a handler of the disconnect by cancelling it, and reads from a "
        "queue of its own. A handler that catches the cancellation and receives again waits for ever; `cancel_after_s` "
        "ends it.",
    ),
    Limit(
        ("quart",),
        ("error",),
        "An exception after the accept: Quart logs it and closes with 1000 itself, so that the exception never reaches "
        "the guard.",
    ),
    Limit(
        ("blacksheep",),
        ("push_close", "push_reset"),
        "Push only: BlackSheep logs an error for every exception that leaves a handler, the `WebSocketDisconnectError` "
        "by which the guard ends it too. The handler ends.",
    ),
    Limit(
        ("falcon", "blacksheep"),
        ("error",),
        "An exception after the accept: the framework closes with 1011 itself, which daphne refuses to send. The guard "
        "makes it 4011.",
        ("daphne",),
    ),
    Limit(
        ("sanic", "nicegui"),
        tuple(SCENARIOS),
        "All: it does not run without lifespan, which daphne has not.",
        ("daphne",),
    ),
    Limit(
        ("sanic",),
        ("push_close", "push_reset"),
        "Push only: Sanic logs an error for every exception that leaves a handler, the one by which the guard ends it "
        "too. The handler ends.",
    ),
    Limit(
        ("sanic",),
        ("catch_all",),
        "A handler that catches everything: Sanic runs it in a task of its own, and the guard cancels no task that an "
        "application created. `cancel_after_s` ends it, with a traceback of Sanic's.",
    ),
    Limit(
        ("sanic",),
        _CLOSES,
        "Close: Sanic's `close()` does nothing under ASGI. The connection ends with 1000 when the handler returns.",
    ),
    Limit(
        ("sanic",),
        ("error",),
        "An exception after the accept: Sanic logs it and returns, so that the guard closes with 1000. Bare, "
        "hypercorn makes 1011 of every return.",
        holds_bare=("hypercorn",),
    ),
    Limit(
        ("sanic",),
        ("denial",),
        "Denial: Sanic accepts every handshake before it calls the handler.",
    ),
)
