"""The command line from outside: the demo, what is missing for it, and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_ws_guard.cli._server import APP_DIR

TIMEOUT_S = 60


def run(*arguments: str, without: str | None = None, cwd: Path = APP_DIR) -> subprocess.CompletedProcess[str]:
    """Run `python -m asgi_ws_guard`, with the module *without* made impossible to import."""
    code = "import sys; from asgi_ws_guard.__main__ import main; sys.argv[0] = 'asgi-ws-guard'; "
    if without is not None:
        code += f"sys.modules[{without!r}] = None; "
    command = [sys.executable, "-c", code + "main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, check=False)


def test_the_demo_is_dirty_without_and_clean_with_the_guard() -> None:
    """All three lines of the incident appear on the bare server, and none of them behind the guard."""
    done = run("demo", "--refreshes", "8", "--seed", "3", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["clean"] is True
    bare, guarded = report["bare"], report["guarded"]
    for line in ("empty_error", "send_after_close", "not_connected"):
        assert bare["log"][line] > 0
        assert guarded["log"][line] == 0
    assert bare["log"]["tracebacks"] > 0
    assert guarded["log"]["tracebacks"] == guarded["log"]["other_errors"] == 0
    assert guarded["handlers_alive"] == guarded["tasks_alive"] == guarded["viewers_cut"] == 0
    assert bare["raised"] > guarded["raised"] == 0
    assert sum(guarded["dropped"].values()) > 0
    dropped = sum(guarded["dropped"].values())
    assert guarded["send_success_rate"] == guarded["forwarded"] / (guarded["forwarded"] + guarded["failed"] + dropped)


def test_the_demo_shows_one_table() -> None:
    """Without `--json` there is a table with a column for each run."""
    done = run("demo", "--refreshes", "4")
    assert done.returncode == 0, done.stderr
    assert "without the guard" in done.stdout
    assert "late sends dropped" in done.stdout
    assert "send success rate" in done.stdout


@pytest.mark.parametrize("module", ["rich", "typer", "uvicorn", "websockets"])
def test_a_missing_extra_is_one_sentence(module: str) -> None:
    """The command line says what to install, with status 2 and no traceback."""
    done = run("demo", without=module)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f'asgi-ws-guard: the command line needs {module}: pip install "asgi-ws-guard[cli]"\n'


def test_a_missing_fastapi_is_one_sentence() -> None:
    """The demo needs FastAPI, the command line does not."""
    done = run("demo", without="fastapi")
    assert done.returncode == 2
    assert done.stderr.strip() == "The demo runs a FastAPI application: pip install fastapi"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("demo", "--refreshes", "0"), "--refreshes"),
        (("demo", "--refreshes", "501"), "--refreshes"),
        (("demo", "--refreshes", "many"), "--refreshes"),
        (("demo", "--seed", "x"), "--seed"),
        (("demo", "--no-such-option"), "--no-such-option"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], what: str) -> None:
    """A wrong option or command ends with status 2 and names itself, without a traceback."""
    done = run(*arguments)
    assert done.returncode == 2
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_shown() -> None:
    """`--version` prints one line and needs no command."""
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("asgi-ws-guard ")


def test_the_module_can_be_run() -> None:
    """`python -m asgi_ws_guard` is the same command."""
    command = [sys.executable, "-m", "asgi_ws_guard", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=APP_DIR, check=False)
    assert done.returncode == 0
    assert "demo" in done.stdout
