"""
The scenarios, and what each must come to: the one definition that the runs, the tests and the page use.

A scenario holds when its handler is over within the bound, the client saw what stands here, every word that stands here
was said by the application, and the server's log has no traceback and no error line but those of an exception that the
application raised on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

BOUND_S = {"bare": 2.0, "guarded": 8.0}
"""How long a scenario may take. What is over on a bare server is over at once; the guard waits for its linger first."""
LINGER_S = 0.3
APP_CODE = 4001
INTERNAL_ERROR = 1011
OVER, TOLD, HOOK, TASK_OVER = "over", "told", "hook", "task-over"


@dataclass(frozen=True)
class Scenario:
    """
    One scenario.

    Args:
        name: As in the results.
        title: As on the page.
        holds: What must come of it, for the page.
        leaves: How the client ends it after a few messages, ``close`` or ``reset``; empty when the application ends it.
        sees: What the client must see: a close code, ``denied``, or None for anything.
        says: Words that the application must have said.
    """

    name: str
    title: str
    holds: str
    leaves: str = ""
    sees: int | str | None = None
    says: tuple[str, ...] = (OVER,)


_LIST = (
    Scenario("push_close", "Push only, the client closes", "the handler ends although it never receives", "close"),
    Scenario("push_reset", "Push only, the client is cut off", "the same, after a TCP reset", "reset"),
    Scenario("catch_all", "A handler that catches everything", "it ends although it ignores every exception", "close"),
    Scenario(
        "background",
        "A background task that goes on sending",
        "the handler and the task that it created end, and nobody complains of an exception that was never retrieved",
        "close",
        says=(OVER, TASK_OVER),
    ),
    Scenario(
        "close_send",
        "Close, then send",
        "the client sees the application's code, and the late send raises nothing",
        sees=APP_CODE,
        says=(OVER, TOLD),
    ),
    Scenario(
        "close_receive",
        "Close, then receive",
        "the client sees the application's code, and the late receive gives the framework's own disconnect",
        sees=APP_CODE,
        says=(OVER, TOLD),
    ),
    Scenario(
        "double_close",
        "Close twice",
        "the client sees the first code, and the second close raises nothing",
        sees=APP_CODE,
        says=(OVER, TOLD),
    ),
    Scenario(
        "receive_again",
        "Receive after the disconnect",
        "the second receive gives the framework's own disconnect again, and does not hang",
        "close",
        says=(OVER, TOLD),
    ),
    Scenario(
        "cleanup",
        "A cleanup that says goodbye",
        "the hook (`finally`, `disconnect()`) runs to its end although it sends to, and closes, a peer that is gone",
        "reset",
        says=(OVER, HOOK),
    ),
    Scenario(
        "error",
        "An exception after the accept",
        "the client sees 1011, or the code by which the framework itself closes",
        sees=INTERNAL_ERROR,
    ),
    Scenario("plain_return", "Return without a close", "the client sees 1000", sees=1000),
    Scenario(
        "denial", "Denial", "the client is refused: HTTP 403, or what the protocol above has for it", sees="denied"
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _LIST}


@dataclass(frozen=True)
class Framework:
    """
    One row of the table.

    Args:
        name: Of its module in `apps`, which is its path too.
        title: As on the page.
        distribution: On PyPI, for the version; empty for the raw application.
        scenarios: Names of those that an application in it can hit.
        speaks: What the client must speak: ``websocket``, ``graphql``, ``socketio`` or ``nicegui``.
        imports: Modules without which it is left out.
        closes_with: What its client sees of the application's own close: its code, 4400 for what is no GraphQL, or the
            ``disconnect`` of Socket.IO.
        fails_with: What its client sees of an exception: 1011, or the code that the framework itself closes with.
    """

    name: str
    title: str
    distribution: str
    imports: tuple[str, ...]
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    speaks: str = "websocket"
    closes_with: int | str = APP_CODE
    fails_with: int = INTERNAL_ERROR


_CONSUMER = tuple(name for name in SCENARIOS if name not in ("close_receive", "receive_again", "plain_return"))
_GRAPHQL = ("push_close", "push_reset", "close_send", "cleanup", "denial")
_SOCKETIO = ("push_close", "push_reset", "close_send", "double_close", "cleanup", "denial")
_ROWS = (
    Framework("raw", "raw ASGI", "", ()),
    Framework("starlette", "Starlette", "starlette", ("starlette",)),
    Framework("fastapi", "FastAPI", "fastapi", ("fastapi",)),
    Framework("litestar", "Litestar", "litestar", ("litestar",), fails_with=4500),
    Framework("quart", "Quart", "quart", ("quart",)),
    Framework("channels", "Django Channels", "channels", ("channels", "django"), _CONSUMER),
    Framework("falcon", "Falcon", "falcon", ("falcon",)),
    Framework("blacksheep", "BlackSheep", "blacksheep", ("blacksheep",)),
    Framework("sanic", "Sanic", "sanic", ("sanic",)),
    Framework(
        "socketio", "python-socketio", "python-socketio", ("socketio", "aiohttp"), _SOCKETIO, "socketio", "disconnect"
    ),
    Framework("strawberry", "Strawberry GraphQL", "strawberry-graphql", ("strawberry",), _GRAPHQL, "graphql", 4400),
    Framework("ariadne", "Ariadne", "ariadne", ("ariadne",), _GRAPHQL, "graphql", 4400),
    Framework("nicegui", "NiceGUI", "nicegui", ("nicegui",), ("push_close", "push_reset", "cleanup"), "nicegui"),
)
FRAMEWORKS = {framework.name: framework for framework in _ROWS}
