"""Every Python block of README.md and docs/*.md runs; every command that they name exists."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from quart import Quart

import asgi_ws_guard
from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard.plugins import auth, limits, origin, shedding, timeouts
from asgi_ws_guard.plugins.otel import attributes
from asgi_ws_guard.testing import ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]


OF: dict[ModuleType, tuple[str, ...]] = {
    asgi_ws_guard: ("Drain",),
    auth: ("Auth", "FirstMessageAuth", "Tickets", "MemoryNonces", "RedisNonces", "jwt", "tokens"),
    limits: ("Limits", "Rate", "ClientAddress"),
    origin: ("Origin",),
    shedding: ("Shedding",),
    timeouts: ("Timeouts",),
}
"""What docs/policies.md lists the options of."""


@pytest.fixture(autouse=True)
def _not_on_granian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not granian's, although another test may have imported its module."""
    monkeypatch.delitem(sys.modules, "granian._granian", raising=False)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Accept and say hello."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})


def _application(block: str) -> Any:
    if "add_middleware" in block:
        return FastAPI()
    return Quart("snippet") if "asgi_app" in block else hello


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str) -> None:
    """A block runs as it stands, given an application of the framework that it is about; what it wraps is guarded."""
    names: dict[str, Any] = {"WebSocketGuardMiddleware": WebSocketGuardMiddleware, "app": _application(block)}
    exec(compile(block, "snippet", "exec"), names)
    if "telemetry" in names:
        names["telemetry"].shutdown()
    guards = [names["app"], getattr(names["app"], "asgi_app", None), names.get("guarded")]
    if "add_middleware" not in block and "current_connection" not in block and not block.startswith("WebSocketGuard"):
        assert any(isinstance(guard, WebSocketGuardMiddleware) for guard in guards)


def test_the_first_block_echoes() -> None:
    """The application of the first block does what it says."""

    async def main() -> None:
        names: dict[str, Any] = {}
        exec(BLOCKS[0].values[0], names)  # type: ignore[arg-type]
        server = ScriptedServer()
        server.connect()
        server.text("hi")
        server.disconnect()
        await server.call(names["app"])
        assert server.sent[1] == {"type": "websocket.send", "text": "you said: hi"}

    asyncio.run(main())


def test_the_two_commands_exist() -> None:
    """The commands of README are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_the_options_of_the_readme_are_the_real_ones() -> None:
    """README lists every option of the middleware with its real default."""
    listed = re.findall(r"^    (\w+)=([^,]+),", (ROOT / "README.md").read_text(), re.MULTILINE)
    defaults = WebSocketGuardMiddleware.__init__.__kwdefaults__
    assert {name: eval(value) for name, value in listed} == defaults


def test_every_link_between_the_pages_leads_somewhere() -> None:
    """A relative link names a file of the repository."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_folder_table_names_every_module() -> None:
    """The table of docs/architecture.md has every module of the package and every plugin, and nothing else."""
    package = ROOT / "asgi_ws_guard"
    there = {path.name for path in package.glob("*.py")} | {"py.typed"}
    there |= {f"plugins/{path.name}" for path in (package / "plugins").glob("*.py") if path.name != "__init__.py"}
    there |= {f"plugins/{path.parent.name}/" for path in (package / "plugins").glob("*/__init__.py")}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")} - {"plugins/"}
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Folder table")[2].partition("## ")[0]
    cells = "".join(row.split("|")[2] for row in table.splitlines() if row.count("|") > 3)
    assert set(re.findall(r"`([^`]+)`", cells)) == there


def test_every_name_of_telemetry_is_documented() -> None:
    """Each attribute that a span, metric or log record may have stands in docs/telemetry.md."""
    page = (ROOT / "docs" / "telemetry.md").read_text()
    words = {value for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)}
    names = {word.rstrip(".") for word in words if "." in word and not word.startswith("https:")}
    assert len(names) > 40
    assert [name for name in sorted(names) if name not in page] == []


def test_the_options_of_the_policies_are_the_real_ones() -> None:
    """docs/policies.md lists every option of the policies and of the drain, with its real default."""
    (listed,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "policies.md").read_text(), re.DOTALL)
    parts = {name: getattr(module, name) for module, names in OF.items() for name in names}
    told: dict[str, dict[str, Any]] = {}
    for statement in ast.parse(listed).body:
        assert isinstance(statement, ast.Expr)
        call = statement.value
        assert isinstance(call, ast.Call)
        required = {one.id: inspect.Parameter.empty for one in call.args if isinstance(one, ast.Name)}
        given = {one.arg: eval(ast.unparse(one.value), {"time": time}) for one in call.keywords if one.arg}
        told[ast.unparse(call.func)] = {**required, **given}
    real = {
        name: {option: one.default for option, one in inspect.signature(part).parameters.items()}
        for name, part in parts.items()
    }
    assert told == real
