"""The short storm over three processes with a Redis, and proofs that its judge sees what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .hub_storm import ROOM, Client, storm

SEED, SECONDS = 20261124, 4.5


def test_a_storm_over_three_processes_costs_no_message(tmp_path: Path) -> None:
    """Every client has every message of its streams once and in order; no dead member, no task is left."""
    made = storm(SEED, SECONDS, tmp_path)
    assert not made.faults, f"seed {SEED}: " + "\n".join(made.faults)
    assert made.counts["published"] > 50
    assert {"redis", "killed", "refresh", "reset", "stall"} <= set(made.counts)


@pytest.mark.parametrize(
    ("got", "is_well"),
    [
        ([(2, "b"), (3, "c")], True),
        ([(1, "a"), (3, "c")], False),
        ([(2, "b"), (2, "b"), (3, "c")], False),
        ([(3, "c"), (2, "b")], False),
        ([(2, "x"), (3, "c")], False),
    ],
)
def test_the_judge_sees_what_was_missed_or_doubled(got: list[tuple[int, str]], is_well: bool) -> None:
    """Or came in another order, or as something else."""
    client = Client(None, 1)  # type: ignore[arg-type]
    client.got[ROOM] = got
    assert (client.faults({ROOM: [(1, "a"), (2, "b"), (3, "c")]}) == []) is is_well
