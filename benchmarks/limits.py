"""
What a gate of `Limits` costs a message, beside a function that allows everything.

Run it with ``python -m benchmarks.limits``. Rounds of all gates are interleaved in one process; a difference is taken
within a round, and the median over the rounds is printed with its quartiles.
"""

from __future__ import annotations

import argparse
import platform
import time
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from asgi_ws_guard import Allow, Handshake
from asgi_ws_guard.plugins.limits import Limits, Rate

from ._subjects import spread, verdict

MESSAGES = 20_000
BUDGET_NS = 500
PLENTY = Rate(1e9)
GATES: dict[str, dict[str, Any]] = {
    "size": {"max_message_bytes": 1000},
    "messages": {"messages": PLENTY},
    "messages, bytes and size": {"messages": PLENTY, "bytes_received": PLENTY, "max_message_bytes": 1000},
    "messages of an address": {"messages_per_address": PLENTY},
    "messages, all dropped": {"messages": Rate(1e-9, burst=1, answer="drop")},
    "messages, all delayed": {"messages": Rate(1e-9, burst=1)},
}
"""What is measured. Dict: name -> options of the limits."""

ALLOWED = Allow()


def allow(size: int, /) -> Allow:
    """Allow everything: the call that every gate costs."""
    return ALLOWED


def gate(options: dict[str, Any]) -> Any:
    """Make the gate of one connection."""
    shake = Handshake("/", b"", (), ("127.0.0.1", 1), None, "ws", "1.1", (), True, "0")
    answer = Limits(**options).admit(shake)
    assert isinstance(answer, Allow)
    return answer.gate


def nanoseconds(asked: Any) -> float:
    """Ask about many messages; give the nanoseconds of one."""
    started_ns = time.thread_time_ns()
    for _ in range(MESSAGES):
        asked(100)
    return (time.thread_time_ns() - started_ns) / MESSAGES


def added(rounds: int) -> dict[str, list[float]]:
    """
    Measure all gates.

    Args:
        rounds: Number of interleaved rounds.

    Returns:
        dict: gate -> nanoseconds over those of `allow`, one for each round.
    """
    found: dict[str, list[float]] = {name: [] for name in GATES}
    gates = {name: gate(options) for name, options in GATES.items()}
    for _ in range(rounds):
        base = nanoseconds(allow)
        for name, asked in gates.items():
            found[name].append(nanoseconds(asked) - base)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    found = added(parser.parse_args().rounds)
    table = Table("gate", "ns a message (quartiles)", "budget", title=f"Python {platform.python_version()}")
    for name, values in found.items():
        is_allowed = "all" not in name
        table.add_row(name, spread(values), verdict(median(values), BUDGET_NS) if is_allowed else "")
    Console().print(table)


if __name__ == "__main__":
    main()
