"""
What is measured, in which order: rounds of all subjects interleaved, so that what disturbs the machine disturbs all.

It draws up nothing; `page.py` does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .processes import SERVERS, Asked, Server, raise_file_limit
from .results import Results
from .subjects import BARE, DEFAULTS, EVERYTHING, OTEL, PASSED, SERVED, SUBJECTS

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """
    How much is measured.

    Attributes:
        starts: How often every worker is started anew: two processes never lie alike in memory.
        rounds: Interleaved rounds of each start.
        served_rounds: Interleaved rounds of each case on a server.
        messages: Messages in one round.
        connections: Connections in one round.
        idle: Idle connections whose memory is measured, in process.
        resident: The same on a real server.
        seconds: Of load in one round.
        crowds: Live connections among which a message is measured.
        loads: Connections that echo at once.
        settle_s: Seconds after which the memory of a server is read.
    """

    starts: int = 2
    rounds: int = 7
    messages: int = 2000
    connections: int = 200
    idle: int = 1000
    resident: int = 5000
    seconds: float = 0.3
    crowds: tuple[int, ...] = (10, 1000, 10_000)
    loads: tuple[int, ...] = (1, 100, 1000)
    settle_s: float = 2.0
    served_rounds: int = 5


FULL = Size()
QUICK = Size(1, 1, 300, 30, 100, 200, 0.05, (10, 200), (1, 20), 0.3, 1)
TINY = Size(1, 2, 20, 2, 5, 5, 0.01, (2,), (1,), 0.1, 1)
"""For the test of the report."""
SIZES = (10, 10_240)
"""Bytes of a message on a real server."""
CHURNERS = 20


def in_process(results: Results, size: Size, say: Say, names: Sequence[str] | None = None) -> None:
    """Measure messages, connections and memory of every subject that is installed."""
    asked = names or [name for name, one in SUBJECTS.items() if one.is_there and name not in (BARE, PASSED)]
    for start in range(size.starts):
        with contextlib.ExitStack() as stack:
            workers = {name: stack.enter_context(_worker(name)) for name in asked}
            for turn in range(size.rounds + 1):
                say(f"in process: start {start + 1} of {size.starts}, round {turn} of {size.rounds}")
                for name, worker in workers.items():
                    found = {
                        "message": worker.ask("message", kind="text", count=size.messages),
                        "connection": worker.ask("connection", count=size.connections),
                    }
                    if turn == 1:  # it hardly varies, and takes a second
                        found["memory"] = worker.ask("memory", connections=size.idle)
                    if turn > 0:  # the first is for warming up
                        _note(results, name, found)


def growth(results: Results, size: Size, say: Say) -> None:
    """Measure messages among live connections, and collections over them."""
    for count in size.crowds:
        with contextlib.ExitStack() as stack:
            workers = {name: stack.enter_context(_worker(name)) for name in (DEFAULTS, EVERYTHING, OTEL)}
            for turn in range(min(size.rounds, 2)):
                say(f"growth: {count} live connections, round {turn + 1}")
                for name, worker in workers.items():
                    _note(
                        results,
                        name,
                        {f"crowd/{count}": worker.ask("crowd", connections=count, seconds=2 * size.seconds)},
                    )
            times = workers[EVERYTHING].ask("collection", connections=count, count=size.rounds)
            for value in times["collection"]:
                results.note(f"collection/{count}", EVERYTHING, value)


def served(results: Results, size: Size, say: Say) -> None:
    """Measure echoes, and connections per second, on every server."""
    raise_file_limit()
    for server in SERVERS:
        with contextlib.ExitStack() as stack:
            load = stack.enter_context(_load())
            ports = {name: stack.enter_context(running).port for name, running in _start(server, SERVED).items()}
            for count in size.loads:
                for port in ports.values():
                    load.ask("open", port=port, connections=count)
                for bytes_ in SIZES:
                    _echoes(results, size, say, load, ports, (server, count, bytes_))
            for port in ports.values():
                load.ask("close", port=port)
            for turn in range(size.served_rounds):
                say(f"{server}: connections per second, round {turn + 1} of {size.served_rounds}")
                for name, port in ports.items():
                    found = load.ask("churn", port=port, clients=CHURNERS, seconds=size.seconds)
                    results.note(f"churn/{server}", name, found["rate"])


def resident(results: Results, size: Size, say: Say) -> None:
    """Measure the memory of real servers with idle connections, each in a server of its own."""
    raise_file_limit()
    for server in SERVERS:
        for turn in range(min(size.served_rounds, 2)):
            for name in SERVED:
                say(f"{server}: memory of {size.resident} connections, {name}, round {turn + 1}")
                with _load() as load, Server(server, name) as running:
                    running.wait()
                    load.ask("open", port=running.port, connections=1)
                    before = running.resident_bytes()
                    load.ask("open", port=running.port, connections=size.resident + 1)
                    time.sleep(size.settle_s)  # the guard looks twice a second
                    each = (running.resident_bytes() - before) / size.resident
                    results.note(f"resident/{server}", name, each)


def _note(results: Results, name: str, found: dict[str, dict[str, float]]) -> None:
    """Keep each subject with the references of its own process."""
    for what, values in found.items():
        for of, value in values.items():
            results.note(f"{what}/{name}", of, value)


def _echoes(
    results: Results, size: Size, say: Say, load: Asked, ports: dict[str, int], case: tuple[str, int, int]
) -> None:
    server, count, bytes_ = case
    for turn in range(size.served_rounds + 1):
        say(f"{server}: {count} connections, {bytes_} bytes, round {turn} of {size.served_rounds}")
        for name, port in ports.items():
            found = load.ask("echo", port=port, size=bytes_, seconds=size.seconds)
            if turn > 0:
                for what, value in found.items():
                    results.note(f"echo/{server}/{count}/{bytes_}/{what}", name, value)


def _start(server: str, names: Sequence[str]) -> dict[str, Server]:
    running = {name: Server(server, name) for name in names}
    for one in running.values():
        one.wait()
    return running


def _worker(name: str) -> Asked:
    return Asked("-m", "benchmarks.report.worker", name)


def _load() -> Asked:
    return Asked("-m", "benchmarks.report.load")
