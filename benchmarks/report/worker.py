"""
Measures one subject in a process of its own: ``python -m benchmarks.report.worker SUBJECT``.

It takes one measurement per line of its input and answers each with one line, so that whoever asks can interleave the
rounds of several workers. Beside its subject it measures the bare application and the pass-through in every round, so
that a ratio never compares two processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks._subjects import scope
from benchmarks.memory import per_connection
from benchmarks.overhead import PAYLOADS, _one_round
from benchmarks.telemetry import Providers, collection_ms, connect_and_close, one_span

from .subjects import BARE, PASSED, SUBJECTS, Wrap, prepare

Found = dict[str, float]


class _Wire:
    """One connection of a server that is asked for its messages."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.set_result({"type": "websocket.connect"})

    async def receive(self) -> Any:
        """Wait for the next message."""
        message = await self.asked
        self.asked = asyncio.get_running_loop().create_future()
        return message

    async def send(self, message: Any) -> None:
        """Take a message."""


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def in_a_crowd(wrap: Wrap, connections: int, seconds: float) -> float:
    """
    Measure an echo on one of many live connections, each of which has its turn.

    Args:
        wrap: Makes the subject of an application.
        connections: Live connections, each with a task of its own that waits for its next message.
        seconds: For how long; long enough for what is done from time to time.

    Returns:
        Nanoseconds per echo, the waking of the task included.
    """
    app, wires = wrap(_echo), [_Wire() for _ in range(connections)]
    tasks = [asyncio.create_task(app(scope(), wire.receive, wire.send)) for wire in wires]
    await asyncio.sleep(0.1)
    message, turns = {"type": "websocket.receive", "text": "hello world"}, 0
    ends_s, started_ns = time.perf_counter() + seconds, time.thread_time_ns()
    while not turns or time.perf_counter() < ends_s:
        for at in range(0, connections, 1000):
            for wire in wires[at : at + 1000]:
                wire.asked.set_result(message)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        turns += 1
    taken_ns = time.thread_time_ns() - started_ns
    for wire in wires:
        wire.asked.set_result({"type": "websocket.disconnect", "code": 1000})
    await asyncio.gather(*tasks)
    return taken_ns / (turns * connections)


class Worker:
    """
    Measures one subject.

    Args:
        name: One of `SUBJECTS`.
    """

    def __init__(self, name: str) -> None:
        own = prepare(name)
        self._wraps = {BARE: SUBJECTS[BARE].make(), PASSED: SUBJECTS[PASSED].make(), name: own}
        self._tracer = Providers(readers=1).tracer.get_tracer("benchmark")

    def message(self, kind: str, count: int) -> Found:
        """Measure a receive and a send: nanoseconds."""
        return self._each(lambda wrap: asyncio.run(_one_round(wrap, PAYLOADS[kind], count)))

    def connection(self, count: int) -> Found:
        """Measure a whole connection with one message: nanoseconds; "span" is an empty span of the SDK."""
        found = self._each(lambda wrap: asyncio.run(connect_and_close(wrap, count)))
        return {**found, "span": one_span(self._tracer)}

    def memory(self, connections: int) -> Found:
        """Measure an idle connection: bytes."""
        found = [(name, wrap) for name, wrap in self._wraps.items() if name != BARE]
        return {name: asyncio.run(per_connection(wrap, connections)) for name, wrap in found}

    def crowd(self, connections: int, seconds: float) -> Found:
        """Measure an echo among live connections: nanoseconds."""
        return self._each(lambda wrap: asyncio.run(in_a_crowd(wrap, connections, seconds)))

    def collection(self, connections: int, count: int) -> dict[str, list[float]]:
        """Measure collections over live connections: milliseconds."""
        sdk = Providers()
        try:
            return {"collection": asyncio.run(collection_ms(sdk, connections, count))}
        finally:
            sdk.shutdown()

    def _each(self, measure: Callable[[Wrap], float]) -> Found:
        return {name: measure(wrap) for name, wrap in self._wraps.items()}


def main() -> None:
    """Answer until the input ends."""
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        found = getattr(worker, asked.pop("measure"))(**asked)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
