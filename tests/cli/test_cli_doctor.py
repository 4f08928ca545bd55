"""`asgi-ws-guard doctor`: what it finds in applications, servers and the machine, and bad input."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from test_cli_demo import run
from typer.testing import CliRunner

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Receive, Scope, Send
from asgi_ws_guard.cli import _doctor_application, _doctor_servers
from asgi_ws_guard.cli._app import app as command_line
from asgi_ws_guard.cli._doctor import SPARE_FILES, examine
from asgi_ws_guard.cli._doctor_application import advise_application
from asgi_ws_guard.cli._doctor_servers import advise_servers
from asgi_ws_guard.cli._findings import Finding, Level

HERE = __name__
CHAT = "examples.fastapi_chat:app"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


class Wraps:
    """A middleware with a send of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, by another send."""

        async def own(message: Any) -> None:
            await send(message)

        await self.app(scope, receive, own)


class Passes(Wraps):
    """A middleware that hands down what it was given."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        print(scope, receive, "a call of three arguments that passes nothing on")
        await self.app(scope, receive, send)


class Checks(BaseHTTPMiddleware):
    """Checks something of requests."""


guarded = WebSocketGuardMiddleware(Wraps(Passes(app)))


def findings(application: object, subject: str) -> list[Finding]:
    """Look at an application; return what is said of one subject."""
    return [finding for finding in advise_application(application) if finding.subject == subject]


def whats(application: object, subject: str) -> list[str]:
    """Return only what was found."""
    return [finding.what for finding in findings(application, subject)]


def test_an_application_without_a_guard_is_told_how_to_get_one() -> None:
    """It is a warning: that is what the command is asked for."""
    (finding,) = findings(app, "guard")
    assert (finding.level, finding.what) == (Level.WARNING, "no guard is found in the application")
    assert "asgi-ws-guard run" in finding.remedy
    assert findings(guarded, "guard") == []


def test_two_guards_are_one_too_many() -> None:
    """The inner one does nothing."""
    (finding,) = findings(WebSocketGuardMiddleware(Wraps(guarded)), "guard")
    assert (finding.level, finding.what) == (Level.NOTE, "2 guards are found around each other")


def test_a_middleware_inside_of_the_guard_is_noted() -> None:
    """When it wraps send; also where the guard comes from outside later."""
    inside = ["this middleware wraps send inside of the guard"]
    assert whats(guarded, f"{HERE}.Wraps") == inside
    assert whats(Wraps(app), f"{HERE}.Wraps") == inside
    assert whats(guarded, f"{HERE}.Passes") == []
    api = FastAPI()
    api.add_middleware(Wraps)
    assert whats(api, f"{HERE}.Wraps") == inside
    assert findings(guarded, f"{HERE}.Wraps")[0].level is Level.NOTE


def test_a_middleware_outside_of_the_guard_is_a_warning() -> None:
    """It stands between the guard and the server."""
    outside = ["this middleware wraps send outside of the guard"]
    assert whats(Wraps(Passes(WebSocketGuardMiddleware(app))), f"{HERE}.Wraps") == outside
    assert whats(Passes(WebSocketGuardMiddleware(app)), f"{HERE}.Passes") == []
    api = FastAPI()
    api.add_middleware(WebSocketGuardMiddleware)
    api.add_middleware(SessionMiddleware, secret_key="x")
    assert whats(api, "starlette.middleware.sessions.SessionMiddleware") == outside


def test_an_application_is_no_middleware() -> None:
    """The innermost object is what is guarded, whatever its own send does."""
    (last,) = [layer for layer in [Wraps(app)] if layer]
    last.__dict__.clear()
    assert whats(last, f"{HERE}.Wraps") == []


def test_a_middleware_without_source_is_not_judged() -> None:
    """Nobody can tell, and nothing is said."""
    space: dict[str, Any] = {"Wraps": Wraps}
    exec("class Hidden(Wraps):\n    async def __call__(self, scope, receive, send): ...", space)
    assert whats(space["Hidden"](app), "builtins.Hidden") == []


class Older:
    """A middleware of ASGI 2: it is given no send yet."""

    def __init__(self, app: object) -> None:
        self.app = app

    def __call__(self, scope: Scope) -> Any:
        """Go on with the scope."""
        return self.app


class Named(Older):
    """A middleware whose arguments nobody can tell apart."""

    async def __call__(self, *arguments: Any) -> None:
        """Pass on."""


@pytest.mark.parametrize("kind", [Older, Named])
def test_a_middleware_of_another_form_is_not_judged(kind: type[Older]) -> None:
    """There is no send to look for."""
    assert whats(kind(app), f"{HERE}.{kind.__name__}") == []


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        (CORSMiddleware, "starlette.middleware.cors.CORSMiddleware", "Any page may open a WebSocket"),
        (BaseHTTPMiddleware, "starlette.middleware.base.BaseHTTPMiddleware", "What it checks for requests"),
        (Checks, f"{HERE}.Checks", "What it checks for requests"),
    ],
)
def test_a_middleware_that_skips_websockets_is_named(kind: Any, name: str, why: str) -> None:
    """A base class counts; what is not done for websockets is said."""
    api = FastAPI()
    api.add_middleware(kind)
    api.add_middleware(GZipMiddleware)
    (finding,) = findings(api, name)
    assert (finding.level, finding.what) == (Level.WARNING, "this middleware skips WebSockets")
    assert finding.why.startswith(why)
    assert findings(api, "starlette.middleware.gzip.GZipMiddleware") == []


@pytest.mark.parametrize("kind", ["SlowAPIMiddleware", "SlowAPIASGIMiddleware"])
def test_slowapi_limits_no_websockets(kind: str) -> None:
    """It is known by name, and not imported."""
    slow = type(kind, (Passes,), {"__module__": "slowapi.middleware"})
    (finding,) = findings(slow(app), f"slowapi.middleware.{kind}")
    assert finding.why == "No limit applies to handshakes or to messages."


OPEN_TELEMETRY = "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware"
TRACES = "OpenTelemetry traces every message"


@pytest.mark.parametrize(
    ("excluded", "is_found"), [(None, True), (["send"], True), (["receive"], True), (["receive", "send"], False)]
)
def test_spans_of_messages_are_found(excluded: Any, is_found: bool) -> None:
    """In a middleware that is built or not, and in an instrumented application, unless both are excluded."""
    built = OpenTelemetryMiddleware(app, exclude_spans=excluded)
    to_come, instrumented = FastAPI(), FastAPI()
    to_come.add_middleware(OpenTelemetryMiddleware, exclude_spans=excluded)
    FastAPIInstrumentor.instrument_app(instrumented, exclude_spans=excluded)
    for application, subject in (
        (built, OPEN_TELEMETRY),
        (to_come, OPEN_TELEMETRY),
        (instrumented, "fastapi.applications.FastAPI"),
    ):
        assert (TRACES in whats(application, subject)) is is_found
    FastAPIInstrumentor.uninstrument_app(instrumented)
    assert TRACES not in whats(instrumented, "fastapi.applications.FastAPI")


def test_a_framework_without_an_adapter_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it refuses; FastAPI is said instead of Starlette, and what is not imported is not said."""
    monkeypatch.setattr(_doctor_application, "find_spec", lambda name: None)
    for name in ("litestar", "falcon", "blacksheep"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "quart", sys)
    (finding,) = findings(app, "fastapi")
    assert finding.level is Level.WARNING
    assert 'Cannot call "send" once a close message has been sent.' in finding.why
    assert findings(app, "starlette") == findings(app, "falcon") == []
    assert len(findings(app, "quart")) == 1
    monkeypatch.delitem(sys.modules, "fastapi")
    assert len(findings(app, "starlette")) == 1


@pytest.mark.parametrize("file", ["fastapi", "starlette"])
def test_a_framework_with_an_adapter_is_a_note(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own file, or that of what it is built on."""
    known = f"asgi_ws_guard.adapters.{file}"
    monkeypatch.setattr(_doctor_application, "find_spec", lambda name: object() if name == known else None)
    (finding,) = findings(app, "fastapi")
    assert (finding.level, finding.what) == (Level.NOTE, "the adapter starlette applies")


# --- servers -------------------------------------------------------------------------------------


def servers() -> dict[tuple[str, str], Finding]:
    """Look at the servers. Dict: (name of the server, what) -> finding."""
    return {(finding.subject.split()[0], finding.what): finding for finding in advise_servers()}


def test_the_quirks_of_every_server_are_known() -> None:
    """Each with its level, and the version in its subject."""
    found = servers()
    levels = {
        ("uvicorn", "it will take websockets_sansio_impl, unless --ws says otherwise"): Level.NOTE,
        ("hypercorn", "it sends no ping by default"): Level.WARNING,
        ("hypercorn", "it reports every close of a client as 1006"): Level.NOTE,
        ("daphne", "it has no back pressure"): Level.WARNING,
        ("daphne", "it has no denial response"): Level.WARNING,
        ("daphne", "it sends no close code but 1000 and 3000 to 4999"): Level.NOTE,
        ("granian", "it has no option for WebSocket pings"): Level.WARNING,
        ("granian", "its default interface is RSGI"): Level.NOTE,
        ("granian", "a cancelled receive loses messages, and a close beside a pending one deadlocks"): Level.NOTE,
    }
    assert {key: finding.level for key, finding in found.items()} == levels
    for (name, _), finding in found.items():
        assert finding.subject == f"{name} {importlib.metadata.version(name)}"
        assert finding.why
        assert finding.remedy or finding.level is Level.NOTE


def test_servers_that_are_not_installed_are_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all is critical."""
    monkeypatch.setattr(_doctor_servers, "find_spec", lambda name: object() if name == "daphne" else None)
    assert {name for name, _ in servers()} == {"daphne"}
    monkeypatch.setattr(_doctor_servers, "find_spec", lambda name: None)
    (finding,) = advise_servers()
    assert (finding.level, finding.remedy) == (Level.CRITICAL, "pip install uvicorn websockets")


@pytest.mark.parametrize(
    ("version", "is_known"), [("0.29.9", False), ("0.30.0", True), ("0.54", True), ("0.55.1", False)]
)
def test_a_version_that_was_not_measured_is_noted(
    version: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said may not hold for it."""
    monkeypatch.setattr(_doctor_servers, "find_spec", lambda name: object() if name == "uvicorn" else None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert (("uvicorn", f"version {version} is outside of 0.30 to 0.54") in servers()) is not is_known


@pytest.mark.parametrize(
    ("module", "level", "what"),
    [
        (None, Level.CRITICAL, "it has no WebSocket implementation: neither websockets nor wsproto is there"),
        (
            "uvicorn.protocols.websockets.websockets_impl",
            Level.WARNING,
            "it will take the legacy websockets_impl, unless --ws says otherwise",
        ),
        (
            "uvicorn.protocols.websockets.wsproto_impl",
            Level.NOTE,
            "it will take wsproto_impl, unless --ws says otherwise",
        ),
    ],
)
def test_uvicorn_is_asked_what_it_will_take(
    module: str | None, level: Level, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is critical, the legacy one a warning."""
    chosen = None if module is None else type("Protocol", (), {"__module__": module})
    auto = importlib.import_module("uvicorn.protocols.websockets.auto")
    monkeypatch.setattr(auto, "AutoWebSocketsProtocol", chosen)
    found = [finding for (name, _), finding in servers().items() if name == "uvicorn"]
    assert [(finding.level, finding.what) for finding in found] == [(level, what)]


def test_hypercorn_is_asked_for_its_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that sends pings is not blamed."""
    config = importlib.import_module("hypercorn.config").Config
    monkeypatch.setattr(config, "websocket_ping_interval", 20.0)
    assert ("hypercorn", "it sends no ping by default") not in servers()


# --- the machine, the variables, the command -----------------------------------------------------


def one(subject: str, connections: int | None = None) -> Finding:
    """Examine the application of this file; return what is said of one subject."""
    (finding,) = [finding for finding in examine(f"{HERE}:app", connections) if finding.subject == subject]
    return finding


@pytest.mark.parametrize(
    ("connections", "level"),
    [(None, Level.NOTE), (1000 - SPARE_FILES, Level.NOTE), (1001 - SPARE_FILES, Level.CRITICAL)],
)
def test_open_files_are_compared(connections: int | None, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit below what the connections need is critical; the remedy has the number."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 4000))
    finding = one("open files", connections)
    assert finding.level is level
    assert finding.what == "this process may open 1000 files (ulimit -n; at most 4000)"
    if level is Level.CRITICAL:
        assert "ulimit -n 1001" in finding.remedy


def test_no_limit_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a system without such limits."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "open files" not in {finding.subject for finding in examine(f"{HERE}:app", 10**9)}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert "open files" not in {finding.subject for finding in examine(f"{HERE}:app", 10**9)}


@pytest.mark.parametrize("text", ["x", "-1"])
def test_a_wrong_variable_is_critical(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would not start."""
    monkeypatch.setenv("ASGI_WS_GUARD_LINGER_S", text)
    finding = one("ASGI_WS_GUARD_LINGER_S")
    assert finding.level is Level.CRITICAL
    assert finding.what.endswith("is not allowed: expected a number of seconds, 0 or more")


def call(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(command_line, ["doctor", *arguments])


def test_nothing_critical_is_status_0() -> None:
    """Warnings are advice; the JSON has everything, the worst first."""
    result = call(f"{HERE}:app", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["critical"], report["application"]) == (0, 0, f"{HERE}:app")
    levels = [finding["level"] for finding in report["findings"]]
    assert levels == sorted(levels, key=["critical", "warning", "note"].index)
    assert {"level", "subject", "what", "why", "remedy"} == set(report["findings"][0])


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_something_critical_is_status_1(form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is printed all the same."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    result = call(f"{HERE}:app", "--connections", "100", *form)
    assert result.exit_code == 1
    assert "critical" in result.stdout


def test_the_table_shows_what_why_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process of its own, in the folder of the application, which imports FastAPI itself."""
    monkeypatch.setenv("COLUMNS", "400")
    done = run("doctor", CHAT)
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if "no ping" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "warning",
        f"hypercorn {importlib.metadata.version('hypercorn')}",
        "it sends no ping by default",
        "A client that vanishes without a word (sleep, a lost network) stays connected for ever.",
        "--websocket-ping-interval 20, or websocket_ping_interval = 20 in its configuration",
    ]
    assert "│ fastapi " in done.stdout
    heads = next(line for line in done.stdout.splitlines() if "remedy" in line)
    assert [cell.strip() for cell in heads.split("┃")[1:-1]] == ["", "subject", "what", "why", "remedy"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_such_module:app", "'no_such_module:app' is wrong: there is no module 'no_such_module' (tried"),
        (f"{HERE}:ap", f"'{HERE}:ap' is wrong: there is no 'ap' in {HERE}"),
        ("app", "'app' is wrong: expected package.module:attribute, or"),
        (f"{HERE}:HERE", f"'{HERE}:HERE' is wrong: what is there is no ASGI application but"),
    ],
)
def test_a_bad_path_is_one_sentence(target: str, sentence: str) -> None:
    """With status 2, and nothing on stdout."""
    result = call(target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"asgi-ws-guard: {sentence}")
    assert result.stderr.count("\n") == 1


def test_the_current_folder_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for the servers, also for a command that stands elsewhere."""
    (tmp_path / "only_doctors.py").write_text("async def app(scope, receive, send): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    assert call("only_doctors:app").exit_code == 0


def test_a_module_that_fails_is_one_sentence(tmp_path: Path) -> None:
    """It names the error and its place; what the module prints is no part of the report."""
    (tmp_path / "fails.py").write_text("print('loading')\n1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit('no database')\n")
    (tmp_path / "prints.py").write_text("print('loading')\nasync def app(scope, receive, send): ...\n")
    failed = run("doctor", "fails:app", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    sentence = f"'fails:app' cannot be imported: ZeroDivisionError at {tmp_path / 'fails.py'}:2: division by zero"
    assert failed.stderr == f"loading\nasgi-ws-guard: {sentence}\n"
    left = run("doctor", "leaves:app", cwd=tmp_path)
    assert left.returncode == 2
    assert left.stderr.endswith("leaves.py:1: no database\n")
    printed = run("doctor", "prints:app", "--json", cwd=tmp_path)
    assert json.loads(printed.stdout)["critical"] == 0
