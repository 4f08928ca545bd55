"""
What each client of a run does, drawn from the seed before it runs: the same seed makes the same plans.

A plan is data. `clients.py` plays it, `styles.py` and `mishaps.py` read the query string of its path in the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from urllib.parse import urlencode

STYLES = ("raw", "chat", "quart", "hub")

Step = tuple[str | int | float, ...]

RAW_HANDLERS = (
    *("push", "echo", "both", "burst", "late", "spin", "close", "shout", "parked"),
    *("deny", "ignore", "unruly", "fail", "orphan"),
)
QUART_HANDLERS = ("push", "echo", "both", "burst", "late", "close", "refuse", "fail")
ROOMS = 5
MISHAPS = ("handler", "any")
POLICIES = ("idle", "age", "handshake", "slow", "first", "origin", "drop", "delay", "close", "undecided")
GOVERNED = ("raw", "chat", "hub")
"""Quart reads before it accepts, and its handlers log whatever they are told: it has no policies."""
BACKLOG = {"chat": 10, "hub": 10}
"""Messages that a client of a style says at most at a time: each goes to a whole room, after a call of the database.
More of them, from many at once, overload it for minutes, behind whatever guard."""
CLEAN_CODES = (1000, 1001, 1003, 1008, 1011, 3000, 4000, 4321, 4999)


@dataclass(frozen=True)
class Plan:
    """
    What one client does.

    Args:
        number: Which one of its run.
        style: The application it talks to.
        path: Path with the query.
        steps: In order: the name of a step and what it needs.
    """

    number: int
    style: str
    path: str
    steps: tuple[Step, ...]


def plans(seed: int, count: int, styles: Sequence[str], first: int = 0) -> Iterator[Plan]:
    """
    Draw the plans of a run.

    Args:
        seed: Of the run.
        count: How many.
        styles: What they may talk to.
        first: Number of the first one.
    """
    for number in range(first, first + count):
        yield plan(seed, number, styles)


def plan(seed: int, number: int, styles: Sequence[str]) -> Plan:
    """
    Draw the plan of one client.

    Args:
        seed: Of the run.
        number: Of the client.
        styles: What it may talk to.
    """
    random = Random(f"{seed}:{number}")
    style = random.choice(styles)
    policy = random.choice(POLICIES) if style in GOVERNED and random.random() < 0.3 else None
    path = _path(random, style, number, policy)
    steps = (_bounded(step, BACKLOG.get(style)) for step in _steps(random, policy))
    return Plan(number, style, path, tuple(steps))


def _path(random: Random, style: str, number: int, policy: str | None) -> str:
    options: dict[str, object] = {"n": number, "for_s": round(random.uniform(0.0, 0.6), 3)}
    if policy is not None:
        options["policy"] = policy
    if random.random() < 0.15:
        cancelled = {"at_s": round(random.uniform(0.0, 0.4), 3), "who": random.randrange(1000)}
        options |= {"cancel": random.choice(MISHAPS), **cancelled}
    if style in ("chat", "hub"):
        room = "global_monitor" if random.random() < 0.15 else f"room-{random.randrange(ROOMS)}"
        path = f"/{style}/ws/{room}/user-{random.randrange(20)}"
    elif style == "quart":
        path = f"/quart/{random.choice(QUART_HANDLERS)}"
    else:
        path = f"/raw/{random.choice(RAW_HANDLERS)}"
        options["when"] = random.choice(("before", "after", "end"))
    return f"{path}?{urlencode(options)}"


def _steps(random: Random, policy: str | None) -> Iterator[Step]:
    if random.random() < 0.1:
        yield from _half_a_handshake(random)
        return
    if random.random() < 0.15:
        yield ("buffer", 4096)
    yield ("open", 1.0)
    yield ("answer",)
    if policy == "first" and random.random() < 0.8:
        yield ("say", 1, random.randrange(1, 20))
    for _ in range(random.randrange(4)):
        yield _middle(random)
    yield from _ending(random)


def _bounded(step: Step, most: int | None) -> Step:
    if step[0] != "say" or most is None:
        return step
    _, count, size = step
    return ("say", min(int(count), most), size)


def _half_a_handshake(random: Random) -> Iterator[Step]:
    """Leave during the opening handshake: in the middle of the request, or before its answer."""
    yield ("open", random.choice((0.0, random.random(), 1.0, 1.0)))
    if random.random() < 0.5:
        yield ("wait", round(random.uniform(0.0, 0.05), 3))
    yield random.choice((("reset",), ("fin",), ("half_close", 0.2)))


def _middle(random: Random) -> Step:
    kinds: tuple[Step, ...] = (
        ("say", random.randrange(1, 4), random.randrange(40)),
        ("say", random.randrange(20, 200), random.choice((10, 200, 2000))),
        ("read", round(random.uniform(0.0, 0.2), 3)),
        ("read", round(random.uniform(0.0, 0.4), 3)),
        ("wait", round(random.uniform(0.0, 0.3), 3)),
        ("ping",),
        ("fragments", random.randrange(1, 5)),
    )
    return random.choices(kinds, weights=(5, 1, 4, 2, 3, 1, 1))[0]


def _ending(random: Random) -> Iterator[Step]:
    kind = random.choices(
        ("refresh", "clean", "reset", "silent", "half_close", "part", "burst", "unread", "flood", "junk", "fin"),
        weights=(3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1),
    )[0]
    leave: Step = random.choice((("reset",), ("fin",)))
    if kind == "refresh":
        yield ("close", 1001, "", 0)
        yield ("fin",)
    elif kind == "clean":
        code = random.choice((*CLEAN_CODES, random.randrange(3000, 5000)))
        yield ("close", code, random.choice(("", "bye", "é" * 30)), 1)
    elif kind in ("silent", "half_close"):
        yield (kind, round(random.uniform(0.1, 1.2), 3))
        yield ("reset",)
    elif kind == "part":
        yield ("part", random.randrange(1, 60))
        yield leave
    elif kind == "burst":
        yield ("say", random.randrange(5, 60), 20)
        yield random.choice((leave, ("close", 1000, "", 1), ("close", 1001, "", 0)))
    elif kind == "unread":
        yield ("wait", round(random.uniform(0.1, 1.0), 3))
        yield leave
    elif kind == "flood":
        yield ("say", random.randrange(200, 1500), 1000)
        yield leave
    elif kind == "junk":
        yield ("junk", random.choice(("unmasked", "opcode", "utf8", "close_code", "length")))
        yield ("read", 0.2)
    yield leave
