"""
Run every framework on every server, bare and guarded, and write the results and the page: ``make compatibility``.

With names of frameworks it runs these alone and keeps the other results; with ``--page`` it runs none. It exits with 1
when something does not hold with the guard and no limit says why.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from interop.servers import SERVERS, Server

from .limits import limit_of
from .page import PAGE, lost, make_page
from .results import COMMITTED, MODES, Results, read
from .runs import run
from .scenarios import FRAMEWORKS, Framework

SERVERS_AT_ONCE = 3  # they wait for most of the time


def main(arguments: list[str]) -> int:
    """Run, write, and give the exit status."""
    if arguments == ["--page"]:
        results = read()
    else:
        results = _run(arguments or list(FRAMEWORKS))
        if arguments:
            results.held = {**read().held, **results.held}
        results.write(COMMITTED)
    PAGE.write_text(make_page(results))
    return _unexplained(results)


def _run(wanted: Sequence[str]) -> Results:
    results = Results(datetime.date.today().isoformat(), platform.python_version())
    servers = [server for server in SERVERS if not server.missing]
    for name, framework in FRAMEWORKS.items():
        missing = [module for module in framework.imports if importlib.util.find_spec(module) is None]
        if missing:
            results.left_out[name] = f"there is no {', no '.join(missing)} on this interpreter"
    present = [framework for name, framework in FRAMEWORKS.items() if name not in results.left_out]
    asked = [framework for framework in present if framework.name in wanted]
    distributions = [*(server.distribution for server in servers), *(one.distribution for one in present)]
    results.versions = {name: importlib.metadata.version(name) for name in dict.fromkeys(distributions) if name}
    with ThreadPoolExecutor(SERVERS_AT_ONCE) as pool:
        list(pool.map(lambda server: _fill(results, server, asked), servers))
    results.held = {
        framework.name: {server.name: results.held[framework.name][server.name] for server in servers}
        for framework in asked
    }
    return results


def _fill(results: Results, server: Server, frameworks: list[Framework]) -> None:
    """Fill a column of the table."""
    for framework in frameworks:
        for mode in MODES:
            held = run(server, {framework.name: framework.scenarios}, mode, verbose=True)[framework.name]
            results.add(framework.name, server.name, mode, held)
            print(f"{framework.name} on {server.name}, {mode}: {len(held)} of {len(framework.scenarios)}", flush=True)


def _unexplained(results: Results) -> int:
    """Print what does not hold with the guard although no limit says so."""
    surprises = [one for one in lost(results) if limit_of(*one) is None]
    for framework, server, scenario in surprises:
        print(f"no limit says why: {framework} on {server}, {scenario}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
