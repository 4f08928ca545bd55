"""
What the guard adds per message, as ratios to what a two-coroutine pass-through adds.

Run it with ``python -m benchmarks.overhead``. Rounds of all subjects are interleaved in one process; a ratio is taken
within a round, and the median over the rounds is printed with its quartiles. ``--echo`` adds round trips through a real
uvicorn, which serves all subjects in one process while the client runs in this one.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from ._subjects import WRAPPERS, App, scope, silence_logs, spread, verdict

MESSAGES = 4000
BLOCK = 300
POLICIES = ("guard, one gate", "guard, gate and all timeouts", "guard, every policy")
BUDGETS = {
    "guard, no observer": 1.5,
    "guard, structlog": 1.5,
    "guard, send deadline": 2.0,
    **dict.fromkeys(POLICIES, 2.5),
}
ECHO_BUDGET = 0.97
PAYLOADS: dict[str, dict[str, Any]] = {
    "text": {"text": "hello world"},
    "binary": {"bytes": b"hello world"},
    "both keys (Quart)": {"bytes": None, "text": "hello world"},
}


def added_per_message(
    rounds: int,
    payload: dict[str, Any],
    subjects: dict[str, Callable[[App], App]] = WRAPPERS,
    messages: int = MESSAGES,
) -> dict[str, list[float]]:
    """
    Measure one receive and one send of an open connection, in process, with a server that never suspends.

    Args:
        rounds: Number of interleaved rounds.
        payload: The content of the messages.
        subjects: What is compared. Dict: name -> makes it of an application.
        messages: Messages in one round of one subject.

    Returns:
        dict: subject -> nanoseconds per message, one for each round.
    """
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in track(range(rounds), description="in process", transient=True):
        for name, wrap in subjects.items():
            found[name].append(asyncio.run(_one_round(wrap, payload, messages)))
    return found


async def _one_round(wrap: Any, payload: dict[str, Any], messages: int) -> float:
    taken: list[float] = []
    incoming = {"type": "websocket.receive", **payload}
    outgoing = {"type": "websocket.send", **payload}
    first = [{"type": "websocket.connect"}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(10):
            await receive()
            await send(outgoing)
        started = time.thread_time_ns()
        for _ in range(messages):
            await receive()
            await send(outgoing)
        taken.append((time.thread_time_ns() - started) / messages)

    async def receive() -> Any:
        return first.pop() if first else incoming

    async def send(message: Any) -> None:
        pass

    await wrap(app)(scope(), receive, send)
    return taken[0]


def ratios(found: dict[str, list[float]], name: str) -> list[float]:
    """Give, for each round, what a subject adds to the bare application, in units of what the pass-through adds."""
    return [
        (subject - bare) / (passed - bare)
        for subject, bare, passed in zip(found[name], found["bare"], found["pass-through"], strict=True)
    ]


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    """Echo every message."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


class Router:
    """Serves every subject under its own path, so that one server process compares them."""

    def __init__(self) -> None:
        silence_logs()
        self.apps: list[App] = [wrap(echo_app) for wrap in WRAPPERS.values()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope."""
        if scope["type"] == "websocket":
            await self.apps[int(scope["path"][1:])](scope, receive, send)


def make_router() -> Router:
    """Make the application that uvicorn serves (``--factory``)."""
    return Router()


async def echo(rounds: int) -> dict[str, list[float]]:
    """
    Measure echo round trips through uvicorn.

    Args:
        rounds: Number of interleaved rounds.

    Returns:
        dict: subject -> round trips per second, one for each round.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = ["benchmarks.overhead:make_router", "--factory", "--port", str(port), "--lifespan", "off"]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *target, "--log-level", "error"])  # noqa: ASYNC220
    try:
        clients = [await _connect(f"ws://127.0.0.1:{port}/{index}") for index in range(len(WRAPPERS))]
        found: dict[str, list[float]] = {name: [] for name in WRAPPERS}
        for _ in track(range(rounds), description="uvicorn echo", transient=True):
            for name, client in zip(WRAPPERS, clients, strict=True):
                found[name].append(await _round_trips(client))
        for client in clients:
            await client.close()
        return found
    finally:
        server.terminate()
        server.wait(10)


async def _connect(url: str) -> ClientConnection:
    for _ in range(100):
        try:
            return await connect(url, proxy=None)
        except OSError:
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


async def _round_trips(client: ClientConnection) -> float:
    started = time.perf_counter()
    for _ in range(BLOCK):
        await client.send("hello world")
        await client.recv()
    return BLOCK / (time.perf_counter() - started)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="interleaved rounds")
    parser.add_argument("--no-echo", action="store_true", help="leave out the round trips through uvicorn")
    options = parser.parse_args()
    silence_logs()
    console = Console()
    title = f"Added per message, in units of the pass-through's (CPython {platform.python_version()})"
    table = Table("payload", "subject", "ns per message", "ratio: median (quartiles)", "budget", title=title)
    for kind, payload in PAYLOADS.items():
        found = added_per_message(options.rounds, payload)
        for name in WRAPPERS:
            ratio = ratios(found, name)
            budget = verdict(median(ratio), BUDGETS[name]) if name in BUDGETS else ""
            table.add_row(kind, name, f"{median(found[name]):.0f}", spread(ratio), budget)
    console.print(table)
    if not options.no_echo:
        _print_echo(console, asyncio.run(echo(options.rounds)))


def _print_echo(console: Console, found: dict[str, list[float]]) -> None:
    table = Table("subject", "round trips/s", "to the pass-through: median (quartiles)", "budget", title="uvicorn echo")
    for name, rates in found.items():
        ratio = [one / passed for one, passed in zip(rates, found["pass-through"], strict=True)]
        budget = verdict(median(ratio), ECHO_BUDGET, at_most=False) if name in BUDGETS else ""
        table.add_row(name, f"{median(rates):.0f}", spread(ratio), budget)
    console.print(table)


if __name__ == "__main__":
    main()
