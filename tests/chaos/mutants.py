# ruff: noqa: E501
"""
Breaks the guard in one line at a time, and asks whether the short storm finds it: ``python -m chaos.mutants``.

A storm that finds nothing proves nothing until it is seen to find. Every mutant is a copy of the repository's package;
a line that the code does not have any more ends the run with an error, like a mutant that survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 300.0
MUTANTS = (
    ("a connection stays with the watch", "_bookkeeping.py", "            session.watch.remove(session)", "            pass"),
    ("policies do not hear of the end", "_ending.py", "    session.release()\n    session.end(", "    session.end("),
    ("a drop counts twice", "_connection.py", "self.dropped.get(reason.value, 0) + 1", "self.dropped.get(reason.value, 0) + 2"),
    ("the span of a connection stays open", "plugins/otel/_traced.py", "        span.end(ended_ns)", "        pass"),
    ("nobody reads ahead", "_receiving.py", "            session.path.block_reads()\n            self.reader.start()", "            pass"),
    ("late sends raise disconnects through the guard", "_ending.py", "        error = left\n", "        error = error\n"),
    ("what hypercorn holds is not read", "_remains.py", "            loop.start(_read_the_rest(session, hypercorn, receiving.read), receiving.context)", "            pass"),
)  # fmt: skip
"""What is broken, where, the line, and what stands there instead."""


def main() -> int:
    """Break, and tell what the storm said, as the rows of a table."""
    bad = 0
    print("| what is broken | found |\n|---|---|")
    for what, module, line, instead in MUTANTS:
        if not any(word in what for word in sys.argv[1:] or [""]):
            continue
        found = _try(module, line, instead)
        bad += not found.startswith("yes")
        print(f"| {what} (`{module}`) | {found} |", flush=True)
    return 1 if bad else 0


def _try(module: str, line: str, instead: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("asgi_ws_guard", "tests", "examples"):
            shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "pyproject.toml", copy)
        path = copy / "asgi_ws_guard" / module
        text = path.read_text()
        if line not in text:
            return "stale: the code has no such line"
        path.write_text(text.replace(line, instead))
        command = (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/chaos/test_chaos.py",
            "-k",
            "storm",
        )
        done = subprocess.run(
            command,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode not in (0, 1):
            return f"error: {done.stdout[-300:]!r}"
        first = next((row for row in done.stdout.splitlines() if row.startswith("E ") and "seed" in row), "")
        return f"yes: {first[:160]}" if done.returncode else "**no**"


if __name__ == "__main__":
    sys.exit(main())
