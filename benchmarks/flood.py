"""
What a flood does to those who behave: the echo latency of some clients beside 200 that send ten times as much.

Run it with ``python -m benchmarks.flood``. A real uvicorn serves in one process, the crowd is another, and the clients
that are measured are this one. The crowd is silent, behaves, floods an application that delays, drops or closes what is
too much, or floods one without a limit. All are interleaved; 99th percentiles are compared within a round, and the
median over the rounds is printed with its quartiles: a stall of the machine spoils one round. The crowd gives way to
the other two processes, as in life it runs on machines of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins.limits import Answer, Limits, Rate

from ._subjects import silence_logs, spread, verdict
from .overhead import echo_app

CROWD = 200
RATE = 10.0
"""Messages per second of a client that behaves, and the limit; its burst is two seconds of them."""
FLOOD = 10
"""Messages that one of a flood sends where another sends one."""
BUDGET = 1.5
SETTLE_S = 2.0
"""The bursts of a flood are over then."""
PAYLOAD = b"x" * 64
CONDITIONS = {
    "silent": ("delay", 0),
    "behaves": ("delay", 1),
    "floods, delayed": ("delay", FLOOD),
    "floods, dropped": ("drop", FLOOD),
    "floods, closed": ("close", FLOOD),
    "floods, not limited": ("unlimited", FLOOD),
}
"""What the crowd does. Dict: name -> path of the application, messages that each sends `RATE` times a second."""


def make_app() -> Any:
    """Make the application that uvicorn serves (``--factory``): guarded with each answer, and without a limit."""
    silence_logs()
    answers: tuple[Answer, ...] = ("delay", "drop", "close")
    limits = {answer: Limits(messages=Rate(RATE, burst=2 * RATE, answer=answer)) for answer in answers}
    apps = {f"/{name}": WebSocketGuardMiddleware(echo_app, policies=[one]) for name, one in limits.items()}
    apps["/unlimited"] = WebSocketGuardMiddleware(echo_app)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await apps[scope["path"]](scope, receive, send)

    return app


async def crowd(port: int, path: str, messages: int) -> None:
    """
    Be the crowd: connect, say so on stdout, and send until somebody ends this process.

    Args:
        port: Of the server.
        path: Of the application.
        messages: That each sends at once.
    """
    os.nice(10)
    peers = [await _peer(port, path) for _ in range(CROWD)]
    print("ready", flush=True)
    await asyncio.gather(*(_send_for_ever(peer, messages, n / CROWD / RATE) for n, peer in enumerate(peers)))


async def _peer(port: int, path: str) -> socket.socket:
    """Open one connection by hand: a crowd of the library's clients would cost more than the server that it floods."""
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that pushing back is felt soon
    peer.setblocking(False)
    await loop.sock_connect(peer, ("127.0.0.1", port))
    handshake = (
        f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await loop.sock_sendall(peer, handshake.encode())
    answer = await loop.sock_recv(peer, 4096)
    if b" 101 " not in answer:
        raise RuntimeError(f"not accepted: {answer!r}")

    def forget() -> None:
        with contextlib.suppress(OSError):
            if peer.recv(65536):
                return
        loop.remove_reader(peer)

    loop.add_reader(peer, forget)
    return peer


async def _send_for_ever(peer: socket.socket, messages: int, offset_s: float) -> None:
    loop = asyncio.get_running_loop()
    if not messages:
        await asyncio.sleep(3600)
    header = bytes([0x81, 0x80 | len(PAYLOAD), 0, 0, 0, 0])  # a text, masked with zeros (RFC 6455, section 5.2)
    await asyncio.sleep(offset_s)
    while True:
        started_s = loop.time()
        with contextlib.suppress(OSError):  # closed: it goes on trying, in vain
            await loop.sock_sendall(peer, (header + PAYLOAD) * messages)
        await asyncio.sleep(max(0.0, 1 / RATE - (loop.time() - started_s)))


@contextlib.contextmanager
def beside(port: int, path: str, messages: int) -> Iterator[None]:
    """Have the crowd connected, and doing what it does, for the length of the block."""
    command = [sys.executable, "-m", "benchmarks.flood", "--crowd", str(port), path, str(messages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError("the crowd could not connect")
            yield
        finally:
            process.send_signal(signal.SIGKILL)


async def latencies(clients: list[ClientConnection], seconds: float) -> list[float]:
    """
    Let the clients that behave send and wait for the echo.

    Args:
        clients: Each sends `RATE` messages per second.
        seconds: How long.

    Returns:
        Milliseconds of every round trip.
    """
    found: list[float] = []

    async def behave(client: ClientConnection, offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        for _ in range(int(seconds * RATE)):
            started_s = time.perf_counter()
            await client.send("hello")
            await client.recv()
            took_s = time.perf_counter() - started_s
            found.append(took_s * 1000)
            await asyncio.sleep(max(0.0, 1 / RATE - took_s))

    await asyncio.gather(*(behave(client, n / len(clients) / RATE) for n, client in enumerate(clients)))
    return found


async def measure(rounds: int, number: int, seconds: float) -> dict[str, list[list[float]]]:
    """
    Measure all conditions in turn.

    Args:
        rounds: Number of interleaved rounds.
        number: Clients that behave.
        seconds: Of one condition in one round.

    Returns:
        dict: condition -> for each round, milliseconds of all round trips.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = [
        "benchmarks.flood:make_app",
        "--factory",
        "--port",
        str(port),
        "--lifespan",
        "off",
        "--log-level",
        "error",
    ]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *target])  # noqa: ASYNC220
    found: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    try:
        await _until_open(port)
        for _ in track(range(rounds), description="flood", transient=True):
            for name, (path, messages) in CONDITIONS.items():
                found[name].append(await _one_condition(port, path, messages, number, seconds))
    finally:
        server.terminate()
        server.wait()
    return found


async def _one_condition(port: int, path: str, messages: int, number: int, seconds: float) -> list[float]:
    async with contextlib.AsyncExitStack() as stack:
        address = f"ws://127.0.0.1:{port}/{path}"
        clients = [await stack.enter_async_context(connect(address, proxy=None)) for _ in range(number)]
        with beside(port, path, messages):
            await asyncio.sleep(SETTLE_S)
            return await latencies(clients, seconds)


async def _until_open(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not start")


def percentile(values: list[float], share: float) -> float:
    """Give the value that a share of all is not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd:
        port, path, messages = options.crowd
        asyncio.run(crowd(int(port), path, int(messages)))
        return
    before = os.getloadavg()[0]
    found = asyncio.run(measure(options.rounds, options.clients, options.seconds))
    console = Console()
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.clients} clients that behave")
    console.print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    table = Table("crowd of 200", "echoes", "median ms", "p99 ms", "p99 over silent", "over behaving", "budget")
    p99 = {name: [percentile(values, 0.99) for values in rounds] for name, rounds in found.items()}
    for name, rounds in found.items():
        values = [one for each in rounds for one in each]
        ratios = {base: _ratios(p99[name], p99[base]) for base in ("silent", "behaves")}
        is_limited = name.startswith("floods") and name != "floods, not limited"
        budget = verdict(median(ratios["behaves"]), BUDGET) if is_limited else ""
        row = (f"{percentile(values, 0.5):.2f}", spread(p99[name]), *map(spread, ratios.values()))
        table.add_row(name, str(len(values)), *row, budget)
    console.print(table)


def _ratios(values: list[float], base: list[float]) -> list[float]:
    return [one / other for one, other in zip(values, base, strict=True)]


if __name__ == "__main__":
    main()
