"""The public names: complete both ways, and described."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import asgi_ws_guard

HOME = Path(asgi_ws_guard.__file__).parent
FOR_PLUGINS = ("_close", "_events", "_exceptions", "_plugin")
DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_the_list_is_sorted_and_holds_nothing_twice() -> None:
    """One sorted list."""
    assert asgi_ws_guard.__all__ == sorted(set(asgi_ws_guard.__all__))


def test_the_list_is_complete_both_ways() -> None:
    """What the front page imports is public, and what is public is imported there; no name is private."""
    tree = ast.parse((HOME / "__init__.py").read_text("utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(asgi_ws_guard.__all__)
    assert not [name for name in imported if name.startswith("_")]


@pytest.mark.parametrize("name", asgi_ws_guard.__all__)
def test_every_name_is_there(name: str) -> None:
    """Each public name is an object of this package, under its own name."""
    public = getattr(asgi_ws_guard, name)
    module = getattr(public, "__module__", "asgi_ws_guard")
    assert module.partition(".")[0] == "asgi_ws_guard" or name == "Decision"
    assert getattr(public, "__name__", name) == name


def test_a_star_gives_the_list() -> None:
    """``from asgi_ws_guard import *`` gives the public names and no other."""
    space: dict[str, object] = {}
    exec("from asgi_ws_guard import *", space)
    assert set(space) - {"__builtins__"} == set(asgi_ws_guard.__all__)


@pytest.mark.parametrize("module", FOR_PLUGINS)
def test_what_a_plugin_needs_is_public(module: str) -> None:
    """Every public class of the vocabulary, of the events and of the seam can be imported from the front page."""
    tree = ast.parse((HOME / f"{module}.py").read_text("utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert classes
    assert classes <= set(asgi_ws_guard.__all__)


def test_the_names_of_the_design_are_public() -> None:
    """The names that the documentation promises."""
    promised = {"WebSocketGuardMiddleware", "ConnectionClosed", "ProtocolError", "ConfigurationError"}
    promised |= {"GuardError", "current_connection", "may_send", "State"}
    assert promised <= set(asgi_ws_guard.__all__)


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda path: str(path.relative_to(HOME)))
def test_what_is_public_is_described(path: Path) -> None:
    """Every module, public class, function and method has a docstring of its own, not a dataclass's signature."""
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    bare = []

    def look(node: ast.Module | ast.ClassDef) -> None:
        for child in node.body:
            if isinstance(child, DEFINITIONS) and not child.name.startswith("_"):
                if not ast.get_docstring(child):
                    bare.append(f"{child.name}, line {child.lineno}")
                if isinstance(child, ast.ClassDef):
                    look(child)

    look(tree)
    assert not bare


@pytest.mark.parametrize("name", sorted(set(asgi_ws_guard.__all__) - {"Decision"}))
def test_help_says_something(name: str) -> None:
    """`help` of a public name begins with a sentence."""
    text = inspect.getdoc(getattr(asgi_ws_guard, name))
    assert text
    assert not text.startswith(f"{name}(")
    assert text.split("\n\n")[0].strip().endswith((".", ":"))


def test_the_package_is_typed() -> None:
    """The marker that lets type checkers look inside is there."""
    assert (HOME / "py.typed").is_file()
