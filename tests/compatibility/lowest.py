"""The lowest versions that are supported, which pyproject.toml states and ``make test-lowest`` installs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from interop.servers import SERVERS

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
TOOLS = ("coverage", "exceptiongroup", "hypothesis", "httpx", "pytest", "pytest-xdist", "opentelemetry-proto")
_BOUND = re.compile(r'^ {4}"([\w-]+)(?:\[[\w,]+\])? >= ([\w.]+)', re.MULTILINE)


def lowest() -> dict[str, str]:
    """
    Read the lower bounds of what is required, of the extras, and of the dependency group ``lowest``.

    Returns:
        dict: distribution -> version, in the order of the file; without the tools of the tests.
    """
    text = PYPROJECT.read_text()
    required = text.partition("dependencies = [")[2].partition("\n]")[0]
    extras = text.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    group = text.partition("\nlowest = [")[2].partition("\n]")[0]
    bounds = dict(_BOUND.findall(f"{required}\n{extras}\n{group}"))
    return {name: version for name, version in bounds.items() if name not in TOOLS}


def lowest_table() -> Iterator[str]:
    """Give the lines of the chapter."""
    yield "## Lowest tested versions"
    yield ""
    yield (
        "What `make test-lowest` installs and tests; older versions may work, and nobody looks. Starlette tells its "
        "routes from 1.7 on: before, `http.route` is there for FastAPI's own routes alone."
    )
    yield ""
    yield "| distribution | from |"
    yield "|---|---|"
    for name, version in lowest().items():
        more = [
            f"{server.name.removeprefix('uvicorn-')} from {'.'.join(map(str, server.since))}"
            for server in SERVERS
            if server.distribution == name and not version.startswith(".".join(map(str, server.since)))
        ]
        yield f"| {name} | {version}{'; its implementation ' * bool(more)}{', '.join(more)} |"
