"""Plays stories: ``python -m model --steps 1000000``; ``--seed N --stories 1`` plays a found one again."""

from __future__ import annotations

import argparse
import random
import sys
import time

from .story import Found, play


def main() -> int:
    """Play, and say how far it is."""
    parser = argparse.ArgumentParser(prog="model", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="number of the first story; random when not given")
    parser.add_argument("--steps", type=int, default=1_000_000, help="handles to run, at least")
    parser.add_argument("--stories", type=int, default=None, help="stories to play, at most")
    parser.add_argument("--faults", type=int, default=1, help="found stories after which to stop")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if asked.seed is None else asked.seed
    print(f"seed {seed}, {asked.steps:,} steps", flush=True)
    steps = stories = found = 0
    began_s = shown_s = time.monotonic()
    while steps < asked.steps and (asked.stories is None or stories < asked.stories):
        try:
            steps += play(seed + stories)
        except Found as error:
            found += 1
            steps += error.steps
            print(f"\n{error}", flush=True)
            if found >= asked.faults:
                break
        stories += 1
        if sys.stdout.isatty() and time.monotonic() - shown_s >= 0.5:
            shown_s = time.monotonic()
            print(f"\r{steps:>12,} steps, {stories:>8,} stories, {found} found", end="", flush=True)
    print(f"\r{steps:>12,} steps, {stories:>8,} stories, {found} found, {time.monotonic() - began_s:.1f} s", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
