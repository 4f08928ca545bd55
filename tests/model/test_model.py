"""The contract G1 to G14, under every interleaving that a short run can make; ``make model`` is the long one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from .loop import ChosenLoop
from .story import play
from .world import Draw, World

FIXED = range(400)
"""Stories that are always played; the long run's are others."""
FRESH = 200
"""Stories that are others each time. The seed stands in the text of what is found."""

ORDER = st.lists(st.integers(0, 7), max_size=12)


def test_known_stories_keep_the_contract() -> None:
    """The same stories as last time."""
    assert sum(play(seed) for seed in FIXED) > 10_000


def test_fresh_stories_keep_the_contract() -> None:
    """Stories that nobody has seen yet."""
    first = random.SystemRandom().randrange(10**9)
    assert all(play(seed) > 0 for seed in range(first, first + FRESH))


def test_a_seed_replays_exactly() -> None:
    """A story runs the same steps in another process, whatever the addresses of its objects are."""
    code = "from model.story import play; print([play(seed) for seed in range(40)])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([play(seed) for seed in range(40)])


class Stories(RuleBasedStateMachine):
    """Stories that hypothesis tells, and makes short when they break the contract."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Build a guard with any options."""
        self.world = World(lambda count: data.draw(st.integers(0, count - 1)))

    @rule(data=st.data(), order=ORDER)
    def act(self, data: st.DataObject, order: list[int]) -> None:
        """Let one thing happen, and some handles run in this order."""
        assert self.world is not None
        self.world.draw = lambda count: data.draw(st.integers(0, count - 1))
        self.world.act()
        self.world.turns(_chooser(order), len(order))

    @rule(order=ORDER, at_most_s=st.sampled_from([0.1, 0.5, 3.0]))
    def wait(self, order: list[int], at_most_s: float) -> None:
        """Let time pass."""
        assert self.world is not None
        self.world.wait(_chooser(order), at_most_s)

    def teardown(self) -> None:
        """Let everybody leave: nothing may stay."""
        if self.world is not None:
            try:
                self.world.end(_chooser([]))
            finally:
                self.world.close()


def _chooser(order: list[int]) -> Draw:
    """Choose by a list; when it is used up, as asyncio does."""
    left = iter(order)
    return lambda count: next(left, 0) % count


def test_stories_of_hypothesis_keep_the_contract() -> None:
    """Rules in any order, and handles in any order between them."""
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_loop_runs_one_handle_at_a_time_in_the_order_that_it_is_told() -> None:
    """Every ready handle can be the next, a timer not before its time, and only what was run is counted."""
    ran: list[str] = []
    after: list[int] = []
    loop = ChosenLoop(lambda count: count - 1, lambda: after.append(len(ran)))
    loop.call_soon(ran.append, "first")
    loop.call_soon(ran.append, "cancelled").cancel()
    loop.call_soon(ran.append, "last")
    loop.call_later(1.0, ran.append, "timer")
    loop.turns(1)
    assert (ran, loop.steps, after) == (["last"], 1, [1])
    loop.turns(9)
    assert (ran, loop.is_idle, loop.next_s) == (["last", "first"], True, 1.0)
    loop.advance(1.0)
    loop.turns(9)
    assert (ran, loop.steps, loop.next_s) == (["last", "first", "timer"], 3, None)
    loop.close()
