"""
An unchanged application, guarded from outside: by `wrap`, by `run` and by `opentelemetry-instrument`.

Each way is a process of its own on each server. The application of the incident must be clean in every one; a smaller
one tells what the servers' own options do to each way.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from versions import at_least
from websockets.sync.client import connect

from asgi_ws_guard.cli._pages import GOING_AWAY, open_page, read_until, reset
from asgi_ws_guard.cli._report import LogCounts

from .servers import DAPHNE, GRANIAN, HOST, HYPERCORN, REPOSITORY, UVICORN_SANSIO, Running, Server, free_port, start

SERVERS = (UVICORN_SANSIO, HYPERCORN, DAPHNE, GRANIAN)
SCRIPTS = Path(sysconfig.get_path("scripts"))
PROBE = "probe_outside:app"
FACTORY = "probe_outside:create_app"
HERE = Path(__file__).parent
CHAT = "examples.fastapi_chat:app"
NO_EXPORTERS = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
CLEAN = LogCounts(empty_error=0, send_after_close=0, not_connected=0, other_errors=0, tracebacks=0)
PAGES = 8
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Way:
    """A way to guard an application: what is started instead of a server, for which name, with which variables."""

    name: str
    server: Callable[[Server], Server]
    target: Callable[[str], str]
    environment: Callable[[str], Mapping[str, str]]


def _run(server: Server) -> Server:
    """Let `asgi-ws-guard run` start the server, with all of its own options after ``--``."""
    _, module, *options = [word for word in server.command if word != "{app}"]
    command = ("-m", "asgi_ws_guard", "run", "--server", module, "{app}", "--", *options)
    return replace(server, command=command)


def _instrument(server: Server) -> Server:
    """Let `opentelemetry-instrument` start the server's own script."""
    return replace(server, command=(str(SCRIPTS / "opentelemetry-instrument"), *server.command[1:]))


def _instrument_environment(_: str) -> Mapping[str, str]:
    return {**NO_EXPORTERS, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}


BARE = Way("bare", lambda server: server, lambda target: target, lambda target: {})
WRAP = Way(
    "wrap",
    lambda server: server,
    lambda target: "asgi_ws_guard.wrap:app",
    lambda target: {"ASGI_WS_GUARD_APP": target},
)
RUN = Way("run", _run, lambda target: target, lambda target: {})
INSTRUMENT = Way("opentelemetry-instrument", _instrument, lambda target: target, _instrument_environment)
WAYS = (WRAP, RUN, INSTRUMENT)

ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
servers = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


def serve(
    way: Way,
    server: Server,
    target: str,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Running:
    """Start an application in one of the ways, with more options of the server."""
    started = way.server(server)
    return start(
        replace(started, command=(*started.command, *options)),
        way.target(target),
        folder,
        env={**way.environment(target), **(env or {})},
        python_path=[HERE],
    )


def ask(port: int) -> dict[str, Any]:
    """Ask the probe what it is."""
    with connect(f"ws://{HOST}:{port}/", proxy=None) as client:
        answer: dict[str, Any] = json.loads(client.recv(TIMEOUT_S))
    return answer


async def leave_early(port: int, user: int) -> None:
    """Say something in a room, and leave while the server is storing it; every other page resets its connection."""
    async with open_page(port, f"/ws/red/user-{user}") as page:
        await read_until(page, "history")
        await page.send(f"from {user}")
        if user % 2:
            reset(page)
        else:
            await page.close(GOING_AWAY)


async def refresh_a_room(port: int) -> None:
    """
    Let pages come and go while another one stays; it hears what was said by all who closed, and then by itself.

    Not the monitor of the demo: daphne has no lifespan, so that the background task never runs there.
    """
    async with open_page(port, "/ws/red/viewer") as viewer:
        await read_until(viewer, "history")
        await asyncio.gather(*(leave_early(port, user) for user in range(PAGES)))
        await viewer.send("done")
        waited_for = {"done", *(f"from {user}" for user in range(0, PAGES, 2))}
        while waited_for:
            message = json.loads(await asyncio.wait_for(viewer.recv(), TIMEOUT_S))
            waited_for -= {message.get("text")}


def refresh_and_read(running: Running, ends: str) -> str:
    """Refresh a room, wait until the log tells the end of every connection, and return the log."""
    asyncio.run(refresh_a_room(running.port))
    wait_for(running, ends, PAGES + 1)
    return running.log  # before the server is stopped: hypercorn then logs what it cancels


def wait_for(running: Running, text: str, times: int) -> None:
    """Wait until a text stands so many times in the log; fail when it does not come."""
    deadline = time.monotonic() + TIMEOUT_S
    while running.log.count(text) < times:
        assert time.monotonic() < deadline, f"{text} stands {running.log.count(text)} times in the log"
        time.sleep(0.02)


@ways
@servers
def test_the_incident_application_is_clean(way: Way, server: Server, tmp_path: Path) -> None:
    """Unchanged, on each server and in each way, it logs none of the three lines, and every connection has its end."""
    with serve(way, server, CHAT, tmp_path) as running:
        log = refresh_and_read(running, "websocket closed")
    assert LogCounts.of(log) == CLEAN, log
    assert log.count("websocket accepted") == log.count("websocket closed") == PAGES + 1
    if server is UVICORN_SANSIO:  # the others say nothing of a peer that is gone: their sends are not known to be late
        assert "websocket late send dropped" in log


def test_without_the_guard_it_is_not(tmp_path: Path) -> None:
    """On uvicorn the same pages bring all three lines of the incident."""
    with serve(BARE, UVICORN_SANSIO, CHAT, tmp_path) as running:
        counts = LogCounts.of(refresh_and_read(running, "WebSocket "))
    assert min(counts.empty_error, counts.send_after_close, counts.not_connected) > 0


@pytest.mark.parametrize(
    ("server", "target", "options"),
    [
        (UVICORN_SANSIO, FACTORY, ("--factory",)),
        (UVICORN_SANSIO, PROBE, ("--workers", "2")),
        (UVICORN_SANSIO, PROBE, ("--reload",)),
        (HYPERCORN, PROBE, ("-k", "trio")),
        (HYPERCORN, PROBE, ("--workers", "0")),
        (GRANIAN, FACTORY, ("--factory",)),
        (GRANIAN, PROBE, ("--runtime-mode", "st", "--no-reload")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else getattr(value, "name", value),
)
@pytest.mark.parametrize("way", [RUN, INSTRUMENT], ids=lambda way: way.name)
def test_the_servers_own_options_work(
    way: Way, server: Server, target: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    """Factories, workers, the reloader and other event loops: the application is guarded in every one."""
    with serve(way, server, target, tmp_path, options=options) as running:
        assert ask(running.port)["is_guarded"]
        assert "Traceback" not in running.log  # of the start: hypercorn logs tracebacks of what it cancels at its end


@servers
def test_a_factory_can_be_named(server: Server, tmp_path: Path) -> None:
    """On servers that know no factories too."""
    with serve(WRAP, server, f"{FACTORY}()", tmp_path) as running:
        assert ask(running.port)["is_guarded"]


def test_granian_needs_no_interface(tmp_path: Path) -> None:
    """`run` adds the one that it cannot do without."""
    words = [word for word in GRANIAN.command if word not in ("--interface", "asgi")]
    with serve(RUN, replace(GRANIAN, command=tuple(words)), PROBE, tmp_path) as running:
        assert ask(running.port)["is_guarded"]


@pytest.mark.parametrize("form", [("-b", HOST + ":{port}"), ("--bind=" + HOST + ":{port}",)], ids=["-b", "--bind="])
def test_hypercorn_is_bound_in_every_form(form: tuple[str, ...], tmp_path: Path) -> None:
    """What stands after ``--`` reaches the server as it is."""
    with serve(RUN, replace(HYPERCORN, command=("-m", "hypercorn", *form, "{app}")), PROBE, tmp_path) as running:
        assert ask(running.port)["is_guarded"]


def end(way: Way, server: Server, number: signal.Signals, folder: Path) -> tuple[int, bool]:
    """Start the probe, send a signal to the process that was started, and return its status, and whether it served."""
    with serve(way, server, PROBE, folder) as running:
        pid = ask(running.port)["pid"]
        running.process.send_signal(number)
        return running.process.wait(TIMEOUT_S), pid == running.process.pid


@servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signals_and_status_pass_through(server: Server, number: signal.Signals, tmp_path: Path) -> None:
    """The process that `run` was is the server: it takes its signals, and ends with its status."""
    assert end(RUN, server, number, tmp_path) == end(BARE, server, number, tmp_path)


@pytest.mark.parametrize("server", [UVICORN_SANSIO, HYPERCORN], ids=lambda server: server.name)
def test_the_instrumentation_can_be_disabled(server: Server, tmp_path: Path) -> None:
    """By its name, among others: the application is as it was."""
    env = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi, asgi_ws_guard"}
    with serve(INSTRUMENT, server, PROBE, tmp_path, env=env) as running:
        assert not ask(running.port)["is_guarded"]


@ways
def test_the_options_arrive(way: Way, tmp_path: Path) -> None:
    """A variable reaches the guard in each way: without observers there is no line of the guard."""
    with serve(way, UVICORN_SANSIO, PROBE, tmp_path, env={"ASGI_WS_GUARD_OBSERVERS": "none"}) as running:
        assert ask(running.port)["is_guarded"]
    assert "websocket accepted" not in running.log


def test_a_program_that_instruments_itself_has_guarded_workers(tmp_path: Path) -> None:
    """Also where `opentelemetry-instrument` does not reach the interpreters that a server spawns."""
    code = (
        "from asgi_ws_guard.instrumentor import WebSocketGuardInstrumentor; WebSocketGuardInstrumentor().instrument();"
        "import sys, uvicorn; uvicorn.run(sys.argv[2], host='127.0.0.1', port=int(sys.argv[1]), workers=2)"
    )
    program = replace(UVICORN_SANSIO, command=("-c", code, "{port}", "{app}"))
    with serve(BARE, program, PROBE, tmp_path) as running:
        assert ask(running.port)["is_guarded"]


WRONG = [
    ({}, "ASGI_WS_GUARD_APP is not set: "),
    (
        {"ASGI_WS_GUARD_APP": "no_such:app"},
        "ASGI_WS_GUARD_APP='no_such:app' is wrong: there is no module 'no_such' (tried",
    ),
    (
        {"ASGI_WS_GUARD_APP": FACTORY},
        f"ASGI_WS_GUARD_APP='{FACTORY}' is wrong: what is there is no ASGI application but",
    ),
    ({"ASGI_WS_GUARD_APP": PROBE, "ASGI_WS_GUARD_WATCH": "x"}, "ASGI_WS_GUARD_WATCH='x' is not allowed: expected true"),
]
# Measured: hypercorn 0.18 loses the status of its workers, granian 2.8 makes 1 of every status.
STATUS = {"uvicorn-sansio": 3, "hypercorn": 0, "daphne": 3, "granian": 1}


@servers
@pytest.mark.parametrize(("env", "sentence"), WRONG, ids=["missing", "module", "factory", "option"])
def test_a_wrong_variable_ends_every_server_with_one_sentence(
    server: Server, env: Mapping[str, str], sentence: str, tmp_path: Path
) -> None:
    """At its start, without a traceback, and with the sentence on stderr once."""
    done = start_and_end(server.command, env, tmp_path)
    assert done.returncode == STATUS[server.name]
    assert done.stderr.count(f"asgi-ws-guard: {sentence}") == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.skipif(not at_least("uvicorn", 0, 52), reason="an older uvicorn starts them again, whatever they say")
def test_uvicorn_does_not_start_its_workers_again(tmp_path: Path) -> None:
    """The status says that they would fail again: the server ends, and does not repeat the sentence for ever."""
    done = start_and_end((*UVICORN_SANSIO.command, "--workers", "2"), {}, tmp_path)
    assert "failed to start, stopping the parent process" in done.stderr
    assert 1 <= done.stderr.count("asgi-ws-guard: ASGI_WS_GUARD_APP is not set") <= 2


def start_and_end(command: tuple[str, ...], env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let a server import `wrap` with these variables alone, and wait until it has ended by itself."""
    words = [word.format(port=free_port(), app="asgi_ws_guard.wrap:app") for word in command]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("ASGI_WS_GUARD_")}
    return subprocess.run(
        [sys.executable, *words],
        env={**clean, "PYTHONPATH": os.pathsep.join([str(HERE), str(REPOSITORY)]), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@servers
def test_the_current_folder_is_importable(server: Server, tmp_path: Path) -> None:
    """As it is for the server itself."""
    (tmp_path / "here.py").write_text((HERE / "probe_outside.py").read_text())
    with start(server, "asgi_ws_guard.wrap:app", tmp_path, env={"ASGI_WS_GUARD_APP": "here:app"}) as running:
        assert ask(running.port)["is_guarded"]


@pytest.mark.skipif(not at_least("opentelemetry-instrumentation-fastapi", 0), reason="it is not installed")
def test_the_instrumentation_of_fastapi_goes_on(tmp_path: Path) -> None:
    """In the same stack OpenTelemetry makes its spans of every message, and the application is clean."""
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serve(INSTRUMENT, UVICORN_SANSIO, CHAT, tmp_path, env=env) as running:
        log = refresh_and_read(running, "websocket closed")
        assert LogCounts.of(log) == CLEAN, log
        wait_for(running, ' websocket send",\n', PAGES)
