"""The import table: which module belongs where, and that imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import asgi_ws_guard

PACKAGE = "asgi_ws_guard"
HOME = Path(asgi_ws_guard.__file__).parent

GROUPS = ("vocabulary", "core", "seam", "shell", "rest")
"""Each group may import itself and those before it."""

TABLE = {
    "_types": "vocabulary",
    "_close": "vocabulary",
    "_exceptions": "vocabulary",
    "_events": "core",
    "_state": "core",
    "_connection": "core",
    "_adapter": "seam",
    "_plugin": "seam",
    "_account": "shell",
    "_admission": "shell",
    "_bookkeeping": "shell",
    "_callsite": "shell",
    "_credit": "shell",
    "_dispatch": "shell",
    "_drain": "shell",
    "_edge": "shell",
    "_ending": "shell",
    "_entrance": "shell",
    "_gates": "shell",
    "_handle": "shell",
    "_holding": "shell",
    "_lateness": "shell",
    "_ledger": "shell",
    "_linger": "shell",
    "_loops": "shell",
    "_middleware": "shell",
    "_opening": "shell",
    "_options": "shell",
    "_outlet": "shell",
    "_pacing": "shell",
    "_path": "shell",
    "_policing": "shell",
    "_reader": "shell",
    "_remains": "shell",
    "_route": "shell",
    "_receive_lanes": "shell",
    "_receiving": "shell",
    "_scope": "shell",
    "_send_lanes": "shell",
    "_senders": "shell",
    "_sending": "shell",
    "_servers": "shell",
    "_session": "shell",
    "_sigterm": "shell",
    "_telling": "shell",
    "_terms": "shell",
    "_ticks": "shell",
    "_timing": "shell",
    "_turns": "shell",
    "_waking": "shell",
    "_watch": "shell",
    "_wheel": "shell",
    "__init__": "rest",
    "__main__": "rest",
    "_environment": "rest",
    "_hooks": "rest",
    "_layers": "rest",
    "_target": "rest",
    "instrumentor": "rest",
    "testing": "rest",
    "wrap": "rest",
    "adapters": "rest",
    "adapters.blacksheep": "rest",
    "adapters.falcon": "rest",
    "adapters.litestar": "rest",
    "adapters.quart": "rest",
    "adapters.starlette": "rest",
    "hub": "rest",
    "hub._attach": "rest",
    "hub._backend": "rest",
    "hub._checks": "rest",
    "hub._collections": "rest",
    "hub._connections": "rest",
    "hub._delivery": "rest",
    "hub._encoding": "rest",
    "hub._fan": "rest",
    "hub._hub": "rest",
    "hub._keeper": "rest",
    "hub._limits": "rest",
    "hub._live": "rest",
    "hub._members": "rest",
    "hub._membership": "rest",
    "hub._metrics": "rest",
    "hub._outbox": "rest",
    "hub._positions": "rest",
    "hub._post": "rest",
    "hub._protocol": "rest",
    "hub._publication": "rest",
    "hub._redis_inbox": "rest",
    "hub._redis_link": "rest",
    "hub._redis_maker": "rest",
    "hub._redis_presence": "rest",
    "hub._redis_store": "rest",
    "hub._report": "rest",
    "hub._resuming": "rest",
    "hub._slices": "rest",
    "hub._store": "rest",
    "hub._streaming": "rest",
    "hub._streams": "rest",
    "hub._sums": "rest",
    "hub._target": "rest",
    "hub._wire": "rest",
    "hub._work": "rest",
    "hub.client": "rest",
    "hub.redis": "rest",
    "plugins": "rest",
    "plugins.auth": "rest",
    "plugins.auth._asking": "rest",
    "plugins.auth._denials": "rest",
    "plugins.auth._first_message": "rest",
    "plugins.auth._jwt": "rest",
    "plugins.auth._labels": "rest",
    "plugins.auth._nonces": "rest",
    "plugins.auth._policy": "rest",
    "plugins.auth._sources": "rest",
    "plugins.auth._tickets": "rest",
    "plugins.auth._tokens": "rest",
    "plugins.health": "rest",
    "plugins.health._app": "rest",
    "plugins.health._verdict": "rest",
    "plugins.limits": "rest",
    "plugins.limits._address": "rest",
    "plugins.limits._buckets": "rest",
    "plugins.limits._checks": "rest",
    "plugins.limits._gate": "rest",
    "plugins.limits._lease": "rest",
    "plugins.limits._limits": "rest",
    "plugins.limits._live": "rest",
    "plugins.limits._meter": "rest",
    "plugins.limits._rate": "rest",
    "plugins.limits._routes": "rest",
    "plugins.limits._shared": "rest",
    "plugins.limits._storage": "rest",
    "plugins.logcontext": "rest",
    "plugins.origin": "rest",
    "plugins.otel": "rest",
    "plugins.otel._courier": "rest",
    "plugins.otel._names": "rest",
    "plugins.otel._quiet": "rest",
    "plugins.otel._running": "rest",
    "plugins.otel._settings": "rest",
    "plugins.otel._sinks": "rest",
    "plugins.otel._traced": "rest",
    "plugins.otel.attributes": "rest",
    "plugins.otel.describe": "rest",
    "plugins.otel.exporters": "rest",
    "plugins.otel.linking": "rest",
    "plugins.otel.logs": "rest",
    "plugins.otel.metrics": "rest",
    "plugins.otel.readings": "rest",
    "plugins.otel.steps": "rest",
    "plugins.otel.telemetry": "rest",
    "plugins.otel.tracing": "rest",
    "plugins.timeouts": "rest",
    "plugins.registry": "rest",
    "plugins.registry._live": "rest",
    "plugins.registry._records": "rest",
    "plugins.registry._registry": "rest",
    "plugins.registry._window": "rest",
    "plugins.shedding": "rest",
    "plugins.structlog": "rest",
    "cli": "rest",
    "cli._address": "rest",
    "cli._app": "rest",
    "cli._checks": "rest",
    "cli._demo": "rest",
    "cli._demo_server": "rest",
    "cli._doctor": "rest",
    "cli._doctor_application": "rest",
    "cli._doctor_servers": "rest",
    "cli._endings": "rest",
    "cli._findings": "rest",
    "cli._health_reader": "rest",
    "cli._opening": "rest",
    "cli._pages": "rest",
    "cli._peer": "rest",
    "cli._probes": "rest",
    "cli._report": "rest",
    "cli._run": "rest",
    "cli._server": "rest",
    "cli._service": "rest",
    "cli._serving": "rest",
    "cli._verify": "rest",
    "cli._verify_bare": "rest",
    "cli._verify_command": "rest",
    "cli._verify_report": "rest",
    "cli._verify_servers": "rest",
}

UPWARD = {
    # `observers=None` stands for these observers: the front door is the one place that knows plugins, in a function.
    ("_middleware", "plugins.logcontext"),
    ("_middleware", "plugins.otel"),
    ("_middleware", "plugins.structlog"),
    # `health_path` joins these two, which do not know each other; the same place, inside a function.
    ("_middleware", "plugins.health"),
    ("_middleware", "plugins.registry"),
    # `adapters="auto"` stands for the adapters: the front door applies them, inside a function, and keeps which wait.
    ("_middleware", "adapters"),
}
"""Arrows that may turn upwards, each with its reason."""

FORBIDDEN_IN_THE_CORE = {
    *("asyncio", "contextvars", "datetime", "logging", "os", "random", "secrets"),
    *("socket", "sched", "selectors", "signal", "threading", "time", "uuid"),
}
PLUGGED = ("plugins", "adapters")
BARRED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclass(frozen=True)
class Import:
    """
    One import statement.

    Attributes:
        name: The module of this package, without its name, else the whole name of a foreign one.
        is_ours: Whether it is a module of this package.
        is_deferred: Whether it stands under ``TYPE_CHECKING``.
        line: Where it stands.
    """

    name: str
    is_ours: bool
    is_deferred: bool
    line: int


def modules(home: Path = HOME) -> dict[str, Path]:
    """List the modules. Dict: name without the package -> file."""
    found = {}
    for path in home.rglob("*.py"):
        parts = path.relative_to(home).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    """Tell whether a node is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(node: ast.AST, *, is_deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Walk all nodes, those in functions too; say which stand under ``TYPE_CHECKING``."""
    yield node, is_deferred
    if is_type_checking(node):
        assert isinstance(node, ast.If)
        for stated in node.body:
            yield from walk(stated, is_deferred=True)
        for stated in node.orelse:
            yield from walk(stated, is_deferred=is_deferred)
        return
    for child in ast.iter_child_nodes(node):
        yield from walk(child, is_deferred=is_deferred)


def absolute(name: str, module: str | None, level: int, *, is_package: bool) -> str:
    """Give the whole name of what a module imports from."""
    if level == 0:
        return module or ""
    inside = [PACKAGE, *([] if name == "__init__" else name.split("."))]
    if name != "__init__" and not is_package:
        inside.pop()
    inside = inside[: len(inside) - (level - 1)]
    return ".".join([*inside, *([module] if module else [])])


def imports_of(name: str, source: str, known: dict[str, Path], *, is_package: bool = False) -> list[Import]:
    """List every import of a module, wherever it stands."""
    found = []
    for node, is_deferred in walk(ast.parse(source)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(name, node.module, node.level, is_package=is_package)
            submodules = [f"{base}.{one.name}" for one in node.names]
            targets = [one if one.removeprefix(f"{PACKAGE}.") in known else base for one in submodules]
        for target in dict.fromkeys(targets):
            is_ours = target.partition(".")[0] == PACKAGE
            short = target.removeprefix(PACKAGE).removeprefix(".") or "__init__"
            found.append(Import(short if is_ours else target, is_ours, is_deferred, node.lineno))  # type: ignore[attr-defined]
    return found


def group_of(name: str, table: dict[str, str] = TABLE) -> str:
    """Give the group of a module."""
    assert name in table, f"{name}: decide where it belongs"
    return table[name]


def plugin_of(name: str) -> str | None:
    """Give the plugin or adapter that a module is a part of: a file, or a folder with all its files."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in PLUGGED and len(parts) > 1 else None


def faults(name: str, imports: list[Import], table: dict[str, str] = TABLE) -> list[str]:
    """List the imports that break the rules."""
    group, plugin = group_of(name, table), plugin_of(name)
    found = []
    for one in imports:
        if not one.is_ours:
            continue
        rank = GROUPS.index(group_of(one.name, table))
        if rank > GROUPS.index(group) and (name, one.name) not in UPWARD:
            found.append(f"{name}:{one.line}: {group} imports {one.name} of the {group_of(one.name, table)}")
        if plugin is not None and plugin_of(one.name) != plugin:
            is_seen = group_of(one.name, table) in ("vocabulary", "seam") or one.name == "_events"
            if not is_seen:
                found.append(f"{name}:{one.line}: a plugin sees vocabulary, events and the seam, not {one.name}")
    return found


def all_imports(name: str) -> list[Import]:
    """List the imports of a module of the package."""
    path = MODULES[name]
    return imports_of(name, path.read_text("utf-8"), MODULES, is_package=path.name == "__init__.py")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_one_way(name: str) -> None:
    """Vocabulary, core, seam, shell, rest: each imports what stands before it; plugins do not know each other."""
    assert faults(name, all_imports(name)) == []


def test_every_row_has_a_module() -> None:
    """The table and the package hold the same modules; a new one is a decision."""
    missing = sorted(set(MODULES) - set(TABLE))
    assert not missing, f"{missing}: decide where it belongs"
    assert sorted(TABLE) == sorted(MODULES)


def test_every_exception_is_needed() -> None:
    """An arrow that may turn upwards is there, and stands in a function: nothing of it happens at import."""
    for name, target in UPWARD:
        tree = ast.parse(MODULES[name].read_text("utf-8"))
        assert target in {one.name for one in all_imports(name)}
        at_the_top = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert target not in {one.name for one in imports_of(name, "\n".join(at_the_top), MODULES)}


@pytest.mark.parametrize("name", sorted(name for name in TABLE if TABLE[name] in ("vocabulary", "core")))
def test_the_core_is_sans_io(name: str) -> None:
    """Vocabulary and core import the standard library alone; they read no clock, draw, log and await nothing."""
    foreign = {one.name.partition(".")[0] for one in all_imports(name) if not one.is_ours}
    assert foreign <= sys.stdlib_module_names
    assert not foreign & FORBIDDEN_IN_THE_CORE
    for node, _ in walk(ast.parse(MODULES[name].read_text("utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await)
        assert not (isinstance(node, ast.comprehension) and node.is_async)


def test_only_types_makes_a_circle() -> None:
    """Without what stands under ``TYPE_CHECKING`` no module imports itself, over whatever way."""
    graph = {name: {one.name for one in all_imports(name) if one.is_ours and not one.is_deferred} for name in MODULES}
    graph["_middleware"] -= {target for name, target in UPWARD if name == "_middleware"}
    done: list[str] = []
    while len(done) < len(graph):
        free = sorted(name for name in graph if name not in done and graph[name] <= set(done))
        assert free, f"a circle among {sorted(set(graph) - set(done))}"
        done.extend(free)


def test_only_the_shell_defers_imports() -> None:
    """Only modules of the shell name each other under ``TYPE_CHECKING``."""
    for name in MODULES:
        deferred = [one for one in all_imports(name) if one.is_deferred and one.is_ours]
        assert not deferred or group_of(name) == "shell"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_is_a_drawer(name: str) -> None:
    """No module is named for holding anything."""
    assert not BARRED_NAMES & {part.strip("_") for part in name.split(".")}


def test_nothing_needs_an_extra() -> None:
    """Importing the package imports no framework, no server, no structlog, and nothing of the command line."""
    code = f"import {PACKAGE}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert PACKAGE in loaded
    barred = {"starlette", "fastapi", "quart", "uvicorn", "hypercorn", "granian", "daphne", "trio", "uvloop"}
    barred |= {"structlog", "typer", "rich", "websockets", "exceptiongroup", "itsdangerous", "joserfc", "redis"}
    assert not barred & set(loaded)


# --- the test of the test ------------------------------------------------------------------------

SMALL = {
    "_types": "vocabulary",
    "_events": "core",
    "_connection": "core",
    "_plugin": "seam",
    "_session": "shell",
    "__init__": "rest",
    "plugins.a": "rest",
    "plugins.b": "rest",
    "plugins.b.metrics": "rest",
    "plugins.b.names": "rest",
}


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("_events", "from ._types import Scope", 0),
        ("_types", "from ._events import Event", 1),
        ("_types", "from asgi_ws_guard._events import Event", 1),
        ("_types", "import asgi_ws_guard._events", 1),
        ("_types", "from . import _events, _session", 2),
        ("_types", "import asgi_ws_guard", 1),
        ("_events", "def late():\n    from ._session import Session", 1),
        ("_events", "if TYPE_CHECKING:\n    from ._session import Session", 1),
        ("_events", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    from ._session import Session", 1),
        ("_events", "try:\n    import asgi_ws_guard._plugin as x\nexcept ImportError:\n    pass", 1),
        ("_session", "from ._connection import Connection", 0),
        ("_session", "from .plugins.a import A", 1),
        ("plugins.a", "from .._events import Event\nfrom .._plugin import Policy\nfrom .._types import Scope", 0),
        ("plugins.a", "from .._connection import Connection", 1),
        ("plugins.a", "from .._session import Session", 1),
        ("plugins.a", "from .b import B", 1),
        ("plugins.a", "from . import b", 1),
        ("plugins.a", "from .. import Observer", 1),
        ("plugins.b.metrics", "from .names import METRIC", 0),
        ("plugins.b.metrics", "from ..a import A", 1),
        ("plugins.b.metrics", "from ..._events import Event", 0),
    ],
)
def test_a_wrong_import_is_noticed(name: str, source: str, wrong: int) -> None:
    """The rules above find an upward arrow wherever it hides."""
    found = faults(name, imports_of(name, source, dict.fromkeys(SMALL, HOME)), SMALL)
    assert len(found) == wrong


def test_a_module_without_a_row_is_noticed() -> None:
    """It fails, and says what to do."""
    with pytest.raises(AssertionError, match="_new: decide where it belongs"):
        faults("_new", [], SMALL)
    with pytest.raises(AssertionError, match="_new: decide where it belongs"):
        faults("_session", imports_of("_session", "from ._new import x", {"_new": HOME}), SMALL)
