"""`asgi-ws-guard run`: the command that it becomes, and bad input. tests/interop/test_from_outside.py starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.cli import _run
from asgi_ws_guard.cli._app import app
from asgi_ws_guard.cli._run import NAMES, Command, RunError, command

TARGET = "package.module:app"
WRAP = "asgi_ws_guard.wrap:app"


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these servers be installed, and no others."""
    monkeypatch.setattr(_run, "find_spec", lambda name: object() if name in names else None)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "daphne"])
def test_the_server_gets_the_application_and_its_own_options(server: str) -> None:
    """The options stand as they were given, after the application; the environment says what to wrap."""
    options = ["--bind", "127.0.0.1:0", "-b=x", "--", "a b"]
    process = command(TARGET, server, options, {"HOME": "/"})
    assert process == Command(
        [sys.executable, "-m", server, WRAP, *options], {"HOME": "/", "ASGI_WS_GUARD_APP": TARGET}
    )


def test_the_argument_counts_more_than_the_variable() -> None:
    """Who says what to run means it."""
    assert command(TARGET, "uvicorn", [], {"ASGI_WS_GUARD_APP": "x:y"}).environment == {"ASGI_WS_GUARD_APP": TARGET}


@pytest.mark.parametrize("target", ["package.module:create", "package.module:create()"])
def test_a_factory_stays_one(target: str) -> None:
    """With --factory the server is given a factory, and the name is read as one."""
    process = command(target, "uvicorn", ["--factory"], {})
    assert process.arguments[3] == "asgi_ws_guard.wrap:create_app"
    assert process.environment["ASGI_WS_GUARD_APP"] == "package.module:create()"


@pytest.mark.parametrize(
    ("options", "environment", "added"),
    [
        ([], {}, ["--interface", "asgi"]),
        (["--port", "1"], {}, ["--interface", "asgi"]),
        (["--interface", "asgi"], {}, []),
        (["--interface=asginl"], {}, []),
        (["--interface", "rsgi", "--interface", "asgi"], {}, []),
        ([], {"GRANIAN_INTERFACE": "asginl"}, []),
        (["--interface", "asgi"], {"GRANIAN_INTERFACE": "rsgi"}, []),
    ],
)
def test_granian_speaks_asgi(options: list[str], environment: dict[str, str], added: list[str]) -> None:
    """The interface is added where none was asked for."""
    process = command(TARGET, "granian", options, environment)
    assert process.arguments == [sys.executable, "-m", "granian", WRAP, *added, *options]


@pytest.mark.parametrize(
    ("options", "environment"),
    [(["--interface", "rsgi"], {}), (["--interface=wsgi"], {}), ([], {"GRANIAN_INTERFACE": "rsgi"})],
)
def test_granian_speaks_nothing_else(options: list[str], environment: dict[str, str]) -> None:
    """A guard that hears nothing is no guard."""
    with pytest.raises(RunError, match=r"granian's --interface is '[rw]sgi': a guard needs asgi or asginl"):
        command(TARGET, "granian", options, environment)


def test_the_first_server_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order uvicorn, hypercorn, daphne, granian."""
    assert NAMES == ("uvicorn", "hypercorn", "daphne", "granian")
    for at, name in enumerate(NAMES):
        install(monkeypatch, *NAMES[at:])
        assert command(TARGET, None, [], {}).arguments[2] == name


def test_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    install(monkeypatch)
    with pytest.raises(RunError, match=r"^no server is installed \(uvicorn, .*\): pip install uvicorn$"):
        command(TARGET, None, [], {})


def call(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["run", *arguments])


def test_a_server_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, and status 2."""
    install(monkeypatch, "uvicorn")
    result = call(TARGET, "--server", "daphne")
    assert result.exit_code == 2
    assert result.stderr == "asgi-ws-guard: daphne is not installed: pip install daphne\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["package.module"], {}, "'package.module' is no application: expected package.module:attribute, or "),
        (
            [TARGET, "--server", "nginx"],
            {},
            "--server 'nginx' is not known: expected uvicorn, hypercorn, daphne, granian",
        ),
        ([TARGET], {"ASGI_WS_GUARD_LINGER_S": "x"}, "ASGI_WS_GUARD_LINGER_S='x' is not allowed: expected a number"),
        (
            [TARGET],
            {"ASGI_WS_GUARD_LINGER": "1"},
            "ASGI_WS_GUARD_LINGER='1' is not allowed: expected ASGI_WS_GUARD_LIN",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is started, and the status is 2."""
    monkeypatch.setattr(os, "execve", fail)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"asgi-ws-guard: {sentence}")
    assert result.stderr.count("\n") == 1


def fail(*arguments: object) -> None:
    """Stand for a server that must not be started."""
    raise AssertionError(arguments)


def test_an_option_without_the_dashes_is_refused() -> None:
    """The server's options stand behind --: nothing is guessed."""
    result = call(TARGET, "--port", "1")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_the_process_becomes_the_server(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By exec; on Windows, whose exec does not wait, as a child whose status it returns."""
    started: list[object] = []
    name: Callable[..., Any] = lambda *arguments: started.append(arguments)  # noqa: E731
    monkeypatch.setattr(os, "name", system)
    monkeypatch.setattr(os, "execve", name)
    monkeypatch.setattr(subprocess, "call", lambda arguments, env: 7)
    process = Command(["python", "-m", "uvicorn"], {"A": "b"})
    assert _run.become(process) == 7
    assert started == ([("python", process.arguments, process.environment)] if system == "posix" else [])


def test_the_texts_are_checked_before_there_is_a_server() -> None:
    """A server with workers would start them again and again."""
    with pytest.raises(ConfigurationError):
        command(TARGET, "uvicorn", ["--workers", "2"], {"ASGI_WS_GUARD_WATCH": "x"})


def test_every_server_is_really_there() -> None:
    """The tests above replace how a server is looked for; here it is the real way."""
    assert all(server.is_installed for server in _run.SERVERS)
