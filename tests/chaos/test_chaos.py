"""
The short run of the storm on every server, and proofs that its judges see what they are there for.

All servers are stormed at once: a run mostly waits. It is bounded by its number of connections, not by time.
"""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from interop.servers import SERVERS

from .complaints import complaints
from .figures import Style
from .known import known
from .mishaps import CANCELLED, may_be_cancelled, quart_handler_ends_with_reader
from .plans import STYLES, plan, plans
from .runs import Result, Storm, left, run, unbalanced
from .styles import quart

SEED = 20261124
SHORT = 60
WARM_UP = 40
AT_ONCE = 40


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Storm every server that is installed."""
    folder = tmp_path_factory.mktemp("chaos")
    servers = [server for server in SERVERS if not server.missing]
    storms = [Storm(SEED, SHORT, STYLES, AT_ONCE, WARM_UP) for _ in servers]

    def one(place: int) -> Result:
        return run(servers[place], storms[place], folder, place * SHORT, lambda: None)

    with ThreadPoolExecutor(len(servers)) as pool:
        return {result.server: result for result in pool.map(one, range(len(servers)))}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_nothing_is_left_of_a_storm(results: dict[str, Result], server: Any) -> None:
    """No task, connection, span, descriptor or object is left, the books balance, and the log is clean."""
    if server.missing:
        pytest.skip(f"{server.name} needs {server.missing}, which is not installed")
    result = results[server.name]
    assert not result.faults, f"seed {SEED}: " + "\n".join(result.faults)
    assert sum(result.statuses.values()) == SHORT
    assert result.statuses["101"] > SHORT // 2
    assert result.after["spans_ended"] > SHORT // 2
    assert all(style["attempted"] for style in result.after["styles"].values())
    assert sum(style["failures"] for style in result.after["styles"].values())


def test_a_plan_depends_on_its_seed_and_number_alone() -> None:
    """A replay makes the same plans, from whatever number on; another seed makes others."""
    whole = list(plans(1, 50, STYLES))
    assert list(plans(1, 10, STYLES, 40)) == whole[40:]
    assert plan(2, 40, STYLES) != whole[40]
    assert {one.style for one in whole} == set(STYLES)


def test_a_handler_of_quart_is_spared_until_its_accept_is_out_where_nothing_else_would_end_it() -> None:
    """Quart 0.23 waits for its reader when a handler is cancelled: a client without an answer would wait for ever."""

    async def serve() -> tuple[list[bool], list[bool]]:
        messages = asyncio.Queue[Any]()
        accepting, taken, pushed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "websocket.accept":
                accepting.set()
                await taken.wait()
            else:
                pushed.set()

        def may_be() -> list[bool]:
            tasks = [one for one in asyncio.all_tasks() if "handle_websocket" in str(one.get_coro())]
            return [may_be_cancelled(one) for one in tasks]

        scope: Any = {"type": "websocket", "path": "/quart/push", "query_string": b"n=1", "headers": [], "scheme": "ws"}
        serving = asyncio.create_task(Style(quart(), None, is_cancelled=False)(scope, messages.get, send))
        await asyncio.wait_for(accepting.wait(), 10)
        before = may_be()
        taken.set()
        await asyncio.wait_for(pushed.wait(), 10)
        behind = may_be()
        messages.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(serving, 10)
        return before, behind

    assert asyncio.run(serve()) == ([quart_handler_ends_with_reader()], [True])


QUIET: dict[str, Any] = {
    "styles": {"raw": {"handlers": [], "sessions": 0, "admitted": 0}},
    "tasks": {"main": 1},
    "waits": {},
    "objects": {"asgi_ws_guard._session.Session": 0},
    "spans_open": {},
    "spans_started": 4,
    "spans_ended": 4,
    "gauges": {"asgi_ws_guard.sends": 3},
    "descriptors": 9,
    "everything": 1000,
    "rss": 1000,
}
QUIET["styles"]["raw"] |= {"attempted": 3, "sent": 2, "received": 1}
QUIET["styles"]["raw"]["counts"] = {"taken": 2, "delivered": 1, "attempted": 3}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("styles", "raw", "handlers"), [7], "handlers left: [7]"),
        (("styles", "raw", "sessions"), 1, "sessions left: 1"),
        (("styles", "raw", "admitted"), 1, "admitted left: 1"),
        (("tasks", "main"), 2, "tasks left: {'main': 1}"),
        (("tasks", "pump"), 1, "tasks left: {'pump': 1}"),
        (("objects", "asgi_ws_guard._session.Session"), 1, "objects left"),
        (("spans_open",), {"websocket": 1}, "spans left"),
        (("spans_ended",), 3, "spans left"),
        (("gauges", "websocket.server.connection.active"), 1, "active is 1"),
        (("gauges", "asgi_ws_guard.zombies"), 1, "zombies is 1"),
        (("descriptors",), 10, "descriptors: 10, before 9"),
        (("everything",), 10**6, "everything: 1000000"),
        (("rss",), 10**9, "rss: 1000000000"),
        (("styles", "raw", "sent"), 3, "took: the books say 3, there were 2"),
        (("styles", "raw", "received"), 0, "delivered: the books say 0, there were 1"),
        (("styles", "raw", "attempted"), 2, "calls of send: the books say 2, there were 3"),
        (("gauges", "asgi_ws_guard.sends"), 2, "asgi_ws_guard.sends: 2"),
    ],
)
def test_whatever_is_left_is_named(path: tuple[str, ...], value: object, says: str) -> None:
    """Each figure that is not what it was is a fault, and nothing is when all are."""
    assert not left(QUIET, QUIET)
    assert not unbalanced(QUIET)
    after = copy.deepcopy(QUIET)
    place = after
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(says in fault for fault in (*left(QUIET, after), *unbalanced(after)))


OWN = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise\nchaos.mishaps.Mishap: a handler\n'
FOREIGN = OWN.replace("chaos.mishaps.Mishap: a handler", "ValueError: x")
THEN = "\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("INFO:     fine\n", []),
        ('{"event": "closed", "level": "info"}\n', []),
        ('{"event": "closed", "level": "error"}\n', [False]),
        ('{"event": "closed", "level": "error", "error_type": "Mishap"}\n', []),
        ('{"event": "closed", "level": "info"}thread panicked at\n', [False]),
        (f"ERROR:    Exception\n{OWN}", [True]),
        (f"ERROR:    Exception\n{FOREIGN}", [False]),
        (f"ERROR:    Exception\n{OWN}INFO:     next\nERROR:    Exception\n{FOREIGN}", [True, False]),
        (f"ERROR:    Exception\n{FOREIGN}{THEN}{OWN}", [True]),
        (f"ERROR:    Exception\n{OWN}{THEN}{FOREIGN}", [False]),
        (OWN.replace("chaos.mishaps.Mishap: a handler", f"asyncio.exceptions.CancelledError: {CANCELLED}"), [True]),
        (OWN.replace("chaos.mishaps.Mishap: a handler", "asyncio.exceptions.CancelledError"), [False]),
        ("Task was destroyed but it is pending!\ntask: <Task pending>\n", [False]),
        ("ERROR:    alone\nINFO:     next\n", [False]),
        ("ERROR    an authenticator raised Mishap at /a.py:57: denied\n", [True]),
        ("ERROR    policy Drawn raised WorkCancelled at a first message: closed\n", [True]),
        ("ERROR    an authenticator raised KeyError at /a.py:57: denied\n", [False]),
    ],
)
def test_a_log_is_read_as_people_do(log: str, found: list[bool]) -> None:
    """A traceback belongs to whom its last exception does; what was raised on purpose is nobody's fault."""
    assert [complaint.is_own for complaint in complaints(log.splitlines(keepends=True))] == found


def test_what_is_known_of_one_server_is_not_of_another(tmp_path: Path) -> None:
    """A complaint of a server is known on that server alone, in these words alone."""
    words = "ERROR:    ASGI callable returned without completing handshake."
    (complaint,) = complaints([words])
    (other,) = complaints([words.replace("handshake", "response")])
    assert known("uvicorn-sansio", complaint)
    assert known("hypercorn", complaint) is None
    assert known("uvicorn-sansio", other) is None


def test_nothing_that_the_guard_raises_is_known() -> None:
    """A known text does not excuse a traceback whose innermost line is the guard's."""
    raised = FOREIGN.replace("ValueError: x", "RuntimeError: Unsupported ASGI message").replace(
        "a.py", "/quart/asgi.py"
    )
    (complaint,) = complaints([f"{line}\n" for line in f"[ERROR] x\n{raised}".splitlines()])
    assert known("granian", complaint)
    inner = raised.replace('  File "/quart', '  File "/quart/asgi.py", line 2, in g\n  File "/asgi_ws_guard', 1)
    (complaint,) = complaints([f"{line}\n" for line in f"[ERROR] x\n{inner}".splitlines()])
    assert known("granian", complaint) is None
