"""Plays the story of a seed, which is the same each time."""

from __future__ import annotations

import random

from .world import Broken, World

ACTS = 60


class Found(AssertionError):
    """
    A story broke the model.

    Attributes:
        steps: How far it had come.
    """

    def __init__(self, text: str, steps: int) -> None:
        super().__init__(text)
        self.steps = steps


def play(seed: int) -> int:
    """
    Play one story.

    Args:
        seed: Its number.

    Returns:
        Steps: handles of the event loop that were run, each followed by a check of every invariant.

    Raises:
        Found: The guard broke its contract; the text names the seed.
    """
    generator = random.Random(seed)
    draw = generator.randrange
    disorder = generator.choice((0.0, 0.2, 1.0))
    world = World(draw)

    def choose(count: int) -> int:
        return draw(count) if generator.random() < disorder else 0

    try:
        for _ in range(2 * ACTS if world.policies else ACTS):
            world.act()
            if draw(3):
                world.turns(choose, draw(8))
            if draw(4) == 0:
                world.wait(choose, generator.choice((0.1, 0.5, 3.0)))
        if draw(2):
            world.outwait(choose)
        world.end(choose)
    except Broken as error:
        steps = world.loop.steps
        raise Found(f"seed {seed}, step {steps}, {world.options}: {error}", steps) from error
    finally:
        world.close()
    return world.loop.steps
