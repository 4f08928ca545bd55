"""Measure, and write the report: ``--quick`` in a minute, ``--page`` from what was found before."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .machine import conditions
from .page import write
from .plan import FULL, QUICK, growth, in_process, resident, served
from .results import Results

_ROOT = Path(__file__).resolve().parents[2]
_PARTS = {"in_process": in_process, "growth": growth, "served": served, "resident": resident}


def main() -> None:
    """Do what the options say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every subject once, with few messages: a look, no proof")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page anew from the raw results")
    parser.add_argument("--part", choices=_PARTS, action="append", help="measure this part anew, keep the rest")
    parser.add_argument("--results", type=Path, default=_ROOT / "build" / "benchmarks.json", help="the raw results")
    parser.add_argument("--docs", type=Path, default=None, help="where to write; build/ with --quick, else docs/")
    options = parser.parse_args()
    results = Results.load(options.results) if options.page or options.part else Results(conditions())
    for name in () if options.page else options.part or _PARTS:
        for table in [one for one in results.tables if one.split("/")[0] in _TABLES[name]]:
            del results.tables[table]
        _PARTS[name](results, QUICK if options.quick else FULL, _say)
        results.save(options.results)
    docs = options.docs or _ROOT / ("build" if options.quick else "docs")
    for path in write(results, docs):
        print(path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path)


_TABLES = {
    "in_process": ("message", "connection", "memory"),
    "growth": ("crowd", "collection"),
    "served": ("echo", "churn"),
    "resident": ("resident",),
}
_STARTED_S = time.monotonic()


def _say(line: str) -> None:
    print(f"{time.monotonic() - _STARTED_S:5.0f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
