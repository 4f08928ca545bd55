"""`asgi-ws-guard verify`: a good service holds, a bad one fails at the right probe, and bad input is one line."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.server
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_cli_demo import run
from test_cli_run import install
from typer.testing import CliRunner, Result
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from asgi_ws_guard.cli import _verify_command
from asgi_ws_guard.cli._address import VerifyError, find_address
from asgi_ws_guard.cli._app import app
from asgi_ws_guard.cli._checks import Check, Level, held, note, unchecked
from asgi_ws_guard.cli._checks import Result as ProbeResult
from asgi_ws_guard.cli._checks import Run as ProbeRun
from asgi_ws_guard.cli._health_reader import Reading
from asgi_ws_guard.cli._opening import begin
from asgi_ws_guard.cli._probes import PROBES, half_open, reset
from asgi_ws_guard.cli._server import HOST, running_server
from asgi_ws_guard.cli._service import Service, Settings
from asgi_ws_guard.cli._verify import _judge_verdict, _left, _run, begin_at, verify

APPS = "tests.cli.verify_apps"
TIMEOUT_S = 2.0  # what fails by silence takes so long


@contextlib.contextmanager
def service(name: str, folder: Path) -> Iterator[str]:
    """Serve one of the applications; give its address."""
    arguments = ["--timeout-graceful-shutdown", "1"]  # some of their handlers never end
    with running_server(f"{APPS}:{name}", log=folder / f"{name}.log", arguments=arguments) as server:
        yield f"ws://{HOST}:{server.port}/room"


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve all that do no harm to others; give the address that their name completes."""
    with service("every", tmp_path_factory.mktemp("every")) as url:
        yield url.removesuffix("room")


def probe(url: str, *names: str, has_health: bool = False, **settings: Any) -> ProbeRun:
    """Run some probes against an address."""
    wanted = Settings(**{"timeout_s": TIMEOUT_S, "connections": 8, "probes": names, **settings})
    address = find_address(url, timeout_s=TIMEOUT_S)
    health = f"{url.replace('ws:', 'http:')}-health/health" if has_health else None
    return asyncio.run(verify(begin_at(address, health, TIMEOUT_S), wanted))


def levels(run: ProbeRun) -> dict[str, str]:
    """Return the level of each probe. Dict: name -> level."""
    return {result.probe: result.level.value for result in run.results}


def words(run: ProbeRun, name: str, level: Level = Level.FAILED) -> str:
    """Return what a probe found, of one level."""
    (result,) = [one for one in run.results if one.probe == name]
    return "\n".join(check.what for check in result.checks if check.level is level)


def call(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["verify", *arguments])


# --- a service that is well ------------------------------------------------------------------------


def test_everything_holds_for_a_guarded_good_application(tmp_path: Path) -> None:
    """Every probe, the health before and after each, and JSON of a stable shape; the query is in none of it."""
    with service("good", tmp_path) as url:
        done = run("verify", f"{url}?token=s3cret", "--timeout-s", "1", "--connections", "100", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert sorted(report) == ["address", "failed", "health", "probes", "warnings"]
    assert report["address"] == url
    assert report["health"] == url.replace("ws:", "http:").replace("/room", "/ws-health/health")
    assert (report["failed"], report["warnings"]) == (0, 0)
    assert [one["probe"] for one in report["probes"]] == [*PROBES, "afterwards"]
    for one in report["probes"]:
        assert sorted(one) == ["checks", "level", "probe", "took_s"]
        assert one["level"] == "held"
    found = {one["probe"]: [check["what"] for check in one["checks"]] for one in report["probes"]}
    for name in PROBES:
        assert "no connection is left (0 live)" in found[name]
        assert any(what.startswith("afterwards another connection is served within ") for what in found[name])
    assert found["page-refresh-storm"][0] == "30 pages came, read a little and went"
    assert any("going_away 30" in what for what in found["page-refresh-storm"])
    assert found["clean-close"][0].startswith("the close was answered with 1000 after ")
    assert "1 s and longer; 0 pings came" in found["half-open"][0]
    assert found["wrong-origin"][0] == "cross-site: a foreign origin is refused with HTTP 403"
    assert found["oversize-message"][0] == "a message of 1048577 bytes is taken"
    assert found["many-vanish"][0] == "100 connections were open, and vanished at once"
    assert "s3cret" not in done.stdout + done.stderr


def test_the_table_has_a_row_for_each_probe(every: str) -> None:
    """Without `--json`; where there is no terminal, there is no bar."""
    health = f"{every.replace('ws:', 'http:')}well-health/health"
    options = ["--health", health, "--origin", "https://home.example"]
    done = run("verify", f"{every}well", "--probe", "reset", "--probe", "clean-close", *options)
    assert done.returncode == 0, done.stdout
    assert f"A bad client at {every}well" in done.stdout
    assert [name for name in (*PROBES, "afterwards") if name in done.stdout] == ["clean-close", "reset", "afterwards"]
    assert "no connection is left" in done.stdout
    assert done.stderr == ""


def test_a_terminal_is_shown_what_is_done(every: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, so that the report can be piped."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = call(f"{every}well", "--probe", "clean-close", "--json")
    assert "2/2" in result.stderr
    assert "afterwards: done" in result.stderr
    assert json.loads(result.stdout)["failed"] == 0


def test_the_origin_is_sent(every: str) -> None:
    """A service that wants another one is not met."""
    address = find_address(f"{every}well", timeout_s=TIMEOUT_S, origin="https://wrong.example")
    with pytest.raises(VerifyError, match=r"HTTP 403; --origin, --header"):
        asyncio.run(verify(begin_at(address, None, TIMEOUT_S), Settings(probes=("reset",))))


# --- services that are bad in one way --------------------------------------------------------------


def test_connections_that_leak_are_seen(every: str) -> None:
    """The health still has them after the timeout."""
    found = probe(f"{every}leaks", "reset", has_health=True, timeout_s=0.5, afterwards_s=0.2)
    assert levels(found) == {"reset": "failed", "afterwards": "failed"}
    assert words(found, "reset") == "2 connections more than before are still live after 0.5 s"
    assert words(found, "afterwards") == "after 0.2 s 3 connections are left, and 0 handlers without one (0 zombies)"


def test_connections_that_go_in_time_are_waited_for(every: str) -> None:
    """It need not be at once."""
    found = probe(f"{every}late", "reset", has_health=True)
    assert levels(found) == {"reset": "held", "afterwards": "held"}


def test_handlers_that_never_end_are_seen(every: str) -> None:
    """The guard ends the connection, but the handler stays: a zombie."""
    found = probe(f"{every}parks", "reset", "half-open", has_health=True, afterwards_s=0.2, timeout_s=1.5)
    assert words(found, "reset", Level.NOTE).startswith("2 handlers still run though their connection has ended")
    assert "new zombies: handlers that outlive their connection" in words(found, "half-open")
    assert words(found, "afterwards").startswith("after 0.2 s 0 connections are left, and 5 handlers without one (")


def test_a_service_that_hangs_after_a_reset_is_seen(tmp_path: Path) -> None:
    """The reset is what fails; what comes after cannot be run, and all is over soon."""
    with service("hangs", tmp_path) as url:
        found = probe(url, "clean-close", "reset", "half-open", timeout_s=1.0)
    assert levels(found) == {
        "clean-close": "held",
        "reset": "failed",
        "half-open": "unchecked",
        "afterwards": "unchecked",
    }
    assert words(found, "reset") == "afterwards nobody is served: no answer to the opening handshake within 1 s"
    assert words(found, "half-open", Level.UNCHECKED) == "not run: the service serves nobody any more"


@pytest.mark.parametrize(("is_strict", "level"), [(False, "warning"), (True, "failed")])
def test_a_foreign_origin_that_is_accepted_is_a_finding(is_strict: bool, level: str, every: str) -> None:
    """A warning, as it may be meant; a failure for those who ask."""
    found = probe(f"{every}echo", "wrong-origin", strict_origin=is_strict)
    assert levels(found) == {"wrong-origin": level, "afterwards": "unchecked"}
    assert words(found, "wrong-origin", Level(level)).startswith("cross-site: Origin https://attacker.example is acc")
    assert words(found, "afterwards", Level.UNCHECKED).startswith("could not be checked without health")


@pytest.mark.parametrize(
    ("name", "level", "what"),
    [
        ("dies", "failed", "afterwards nobody is served: the connection was lost: "),
        ("fails", "failed", "the application failed for 1048577 bytes: 1011"),
        ("refuses", "held", "the service closed for 1048577 bytes, with 1009"),
    ],
)
def test_what_becomes_of_an_oversize_message(name: str, level: str, what: str, every: str, tmp_path: Path) -> None:
    """A process that dies and a handler that raises have failed; a refusal is as good as an answer."""
    with service(name, tmp_path) if name == "dies" else contextlib.nullcontext(every + name) as url:
        found = probe(url, "oversize-message", message="x")
    assert levels(found)["oversize-message"] == level
    assert what in words(found, "oversize-message", Level(level))


def test_a_close_behind_messages_that_nobody_reads_is_seen(every: str) -> None:
    """A server, uvicorn 0.54, stops reading at the first unread message, so that the close stays there."""
    found = probe(f"{every}never_reads", "page-refresh-storm", "burst-then-silence", timeout_s=0.5)
    assert words(found, "page-refresh-storm") == "the close of 4 of 8 pages was not answered"
    assert words(found, "burst-then-silence") == "the close was not answered within 0.5 s"


def test_a_peer_that_does_not_read_and_blocks_others_is_seen(every: str) -> None:
    """While it is there, nobody else is served."""
    found = probe(f"{every}blocks", "no-reading", timeout_s=1.0)
    assert words(found, "no-reading").startswith("while a peer does not read: another connection is open but did not ")


def test_a_silent_peer_is_kept_or_not(every: str) -> None:
    """Kept is a note, and a failure for those who ask; a service that notices is told how fast."""
    kept = probe(f"{every}echo", "half-open", timeout_s=0.5)
    asked = probe(f"{every}echo", "half-open", half_open_s=0.5)
    assert words(kept, "half-open", Level.NOTE) == "a silent peer is kept for 0.5 s and longer; 0 pings came"
    assert (levels(kept)["half-open"], levels(asked)["half-open"]) == ("held", "failed")
    ended = probe(f"{every}impatient", "half-open", half_open_s=2.0)
    assert words(ended, "half-open", Level.HELD).startswith("the service ended the silent connection after 0.2 s; ")


def test_a_service_that_turns_everybody_away_is_served_by_that(every: str) -> None:
    """What it does to everybody is no failure of a probe; a probe that never ends is."""

    async def endless(service: Service) -> list[Check]:
        await asyncio.Event().wait()
        return []

    async def main(url: str) -> ProbeResult:
        settings = Settings(timeout_s=0.1, half_open_s=0.5)
        service = Service(find_address(url, timeout_s=TIMEOUT_S), settings)
        await service.meet(TIMEOUT_S)
        result, is_served = await _run("endless", endless, service, None)
        assert is_served
        return result

    assert levels(probe(f"{every}turns_away", "clean-close"))["clean-close"] == "held"
    result = asyncio.run(main(f"{every}turns_away"))
    assert [check.what for check in result.checks if check.level is Level.FAILED] == [
        "the probe was not through after 1.1 s"
    ]


@pytest.mark.parametrize(("headers", "cookie"), [([], "mine=1"), (["Cookie: theirs=2", "X-Key: 3"], "theirs=2")])
def test_what_is_sent_along(headers: list[str], cookie: str) -> None:
    """The headers as they were given; a cookie of ours only where there is none."""
    with socket.create_server((HOST, 0)) as server:
        address = find_address(f"ws://{HOST}:{server.getsockname()[1]}/", timeout_s=1, origin="o", headers=headers)
    request = b"".join(begin(address, None, "mine=1").data_to_send()).decode()
    assert [line for line in request.split("\r\n") if line.startswith("Cookie")] == [f"Cookie: {cookie}"]
    assert "\r\nOrigin: o\r\n" in request
    assert ("X-Key: 3" in request) == bool(headers)
    assert "\r\nOrigin: other\r\n" in b"".join(begin(address, "other", None).data_to_send()).decode()


def test_a_peer_falls_silent_and_vanishes() -> None:
    """A server that pings sees no pong and ends the one; what it reads of the other is a reset."""
    causes: list[BaseException | None] = []

    async def handle(connection: ServerConnection) -> None:
        try:
            await connection.recv()
        except ConnectionClosed as error:
            causes.append(error.__cause__)

    async def main() -> list[Check]:
        async with serve(handle, HOST, 0, ping_interval=0.1, ping_timeout=0.1) as server:
            port = server.sockets[0].getsockname()[1]
            service = Service(find_address(f"ws://{HOST}:{port}/", timeout_s=1), Settings(half_open_s=5.0))
            checks = await half_open(service)
            causes.clear()
            await reset(service)
            while not causes:
                await asyncio.sleep(0)
        return checks

    (check,) = asyncio.run(asyncio.wait_for(main(), 10))
    assert check.what.startswith("the service ended the silent connection after 0.")
    assert check.what.endswith("; 1 pings came")
    assert isinstance(causes[0], ConnectionResetError)


# --- what the numbers mean -------------------------------------------------------------------------


def reading(live: int = 0, opened: int = 0, status: str = "ok", failing: tuple[str, ...] = ()) -> Reading:
    """Make a reading."""
    return Reading(status, failing, live, lingering=0, zombies=0, opened=opened)


@pytest.mark.parametrize(
    ("live", "opened", "left"),
    [(5, 13, 0), (6, 13, 1), (6, 14, 0), (7, 14, 1), (5, 10, 0), (4, 13, -1)],
)
def test_who_came_meanwhile_is_not_taken_for_ours(live: int, opened: int, left: int) -> None:
    """Three handshakes were ours; anybody else who came may have stayed."""
    assert _left(3, reading(5, 10), reading(live, opened)) == left


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (reading(), reading(status="degraded"), []),
        (reading(), reading(status="failing", failing=("zombies",)), [Level.FAILED]),
        (reading(), reading(status="failing", failing=("abnormal_ends", "zombies")), [Level.FAILED]),
        (reading(), reading(status="failing", failing=("abnormal_ends",)), [Level.NOTE]),
        (reading(status="failing"), reading(status="failing", failing=("zombies",)), []),
    ],
)
def test_a_verdict_that_the_probes_cause_is_no_failure(before: Reading, after: Reading, expected: list[Level]) -> None:
    """Resets are abnormal ends, and the probes are the ones who reset."""
    assert [check.level for check in _judge_verdict(before, after)] == expected


@pytest.mark.parametrize(
    ("checks", "level"),
    [
        ((held(""), note("")), Level.HELD),
        ((held(""), unchecked("")), Level.HELD),
        ((unchecked(""), note("")), Level.NOTE),
        ((held(""), Check(Level.WARNING, "")), Level.WARNING),
        ((Check(Level.FAILED, ""), Check(Level.WARNING, "")), Level.FAILED),
    ],
)
def test_the_worst_check_counts(checks: tuple[Check, ...], level: Level) -> None:
    """But a note takes nothing from what held."""
    assert ProbeResult("", checks).level is level


# --- side by side ----------------------------------------------------------------------------------


def test_the_application_is_compared_without_and_with_the_guard() -> None:
    """The incident application on uvicorn: the same probes, tracebacks and the lines of the incident only when bare."""
    arguments = [
        "--path",
        "/ws/global_monitor/user?token=s3cret",
        "--server",
        "uvicorn",
        "--probe",
        "page-refresh-storm",
    ]
    done = run("verify", "examples.fastapi_chat:app", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["application"], report["path"]) == ("examples.fastapi_chat:app", "/ws/global_monitor/user")
    bare, guarded = report["columns"]
    assert (bare["server"], bare["form"], bare["health"]) == ("uvicorn", "bare", None)
    assert (guarded["form"], guarded["failed"], guarded["error"]) == ("guarded", 0, "")
    assert guarded["health"].endswith("/ws-health/health")
    assert bare["log"]["empty_error"] > 0
    assert bare["log"]["not_connected"] > 0
    assert set(guarded["log"].values()) == {0}
    assert "s3cret" not in done.stdout + done.stderr


def test_an_application_with_a_guard_of_its_own_has_one_column_for_each_server() -> None:
    """There is nothing to compare it with."""
    arguments = ["--path", "/", "--server", "hypercorn", "--server", "daphne", "--probe", "clean-close"]
    result = call("examples.raw_asgi:app", *arguments)
    assert result.exit_code == 0, result.stderr
    heads = [line for line in result.stdout.splitlines() if "own guard" in line or "hypercorn" in line]
    assert "hypercorn" in heads[0]
    assert "daphne" in heads[0]
    assert "own guard: the application brings a guard" in result.stdout
    assert "tracebacks in the log" in result.stdout


def test_a_failure_without_the_guard_is_status_0() -> None:
    """It is what the guard is for. The ticker asks for its connection, which only a guard gives it."""
    done = run("verify", "examples.raw_asgi:app.app", "--path", "/", "--server", "uvicorn", "--probe", "clean-close")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean-close: the service cut the connection at once, without a close frame (uvicorn bare)" in one_line(done)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output without the breaks that fit it to a terminal."""
    return " ".join(done.stdout.split())


def test_a_failure_with_the_guard_is_status_1() -> None:
    """Here both columns fail, for the same reason, which is said once."""
    arguments = ["--path", "/", "--server", "granian", "--probe", "oversize-message", "--message", "x"]
    done = run("verify", f"{APPS}:dies", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "oversize-message: afterwards nobody is served" in done.stdout
    assert "(granian bare, granian guarded)" in one_line(done)
    (row,) = [line for line in done.stdout.splitlines() if "tracebacks in the log" in line]
    assert row.count(" 0 ") == 2


# --- bad input -------------------------------------------------------------------------------------


def assert_one_line(result: Result, what: str) -> None:
    """It is refused with status 2 and one line that says why."""
    assert result.exit_code == 2, result.stdout
    assert result.stderr.startswith("asgi-ws-guard: ")
    assert what in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["http://127.0.0.1/ws"], "'http://127.0.0.1/ws' is no address: expected ws://host:port/path or wss://"),
        (["ws://127.0.0.1:x/ws?token=s3cret"], "'ws://127.0.0.1:x/ws' is no address"),
        (["http://user:s3cret@127.0.0.1/"], "'http://...' is no address"),
        (["ws://"], "is no address"),
        (["ws://127.0.0.1:1/#x"], "is no address"),
        (["ws://no-such-host.invalid/"], "no-such-host.invalid cannot be found"),
        (["ws://127.0.0.1:1/", "--header", "X"], "--header 'Name: value'"),
        (["ws://127.0.0.1:1/", "--header", "X: a\nY: b"], "--header 'Name: value'"),
        (["ws://127.0.0.1:1/", "--header", "Host: x"], "--header Host: the opening handshake has its own"),
        (["ws://127.0.0.1:1/", "--header", "Sec-WebSocket-Key: x"], "the opening handshake has its own"),
        (["ws://127.0.0.1:1/", "--origin", "a\nb"], "--header and --origin take visible ASCII characters"),
        (["ws://127.0.0.1:1/", "--path", "/ws"], "--path is for an application"),
        (["ws://127.0.0.1:1/", "--server", "uvicorn"], "--server is for an application"),
        (["ws://127.0.0.1:1/", "--probe", "x"], "--probe 'x' is not known: expected page-refresh-storm, "),
        (["examples.raw_asgi:app"], "--path is missing"),
        (["examples.raw_asgi:app", "--path", "ws"], "--path 'ws': expected a path that begins with /"),
        (["examples.raw_asgi:app", "--path", "/", "--health", "http://x/"], "--health is for an address"),
        (["examples.raw_asgi:app", "--path", "/", "--server", "nginx"], "--server 'nginx' is not known: expected uvic"),
        (["examples.raw_asgi", "--path", "/"], "'examples.raw_asgi' is no application: expected package.module:attr"),
        (["no_such_module:app", "--path", "/"], "'no_such_module:app' is wrong: there is no module 'no_such_module'"),
        (["examples.raw_asgi:ap", "--path", "/"], "did you mean 'app'?"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], what: str) -> None:
    """No traceback, status 2, and no token repeated."""
    result = call(*arguments)
    assert_one_line(result, what)
    assert "s3cret" not in result.stderr


@pytest.mark.parametrize("arguments", [["--connections", "501"], ["--timeout-s", "0.1"], ["--timeout-s", "61"]])
def test_the_bounds_are_kept(arguments: list[str]) -> None:
    """More than a check needs is refused, with the range."""
    result = call("ws://127.0.0.1:1/", *arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in result.stderr


def test_too_few_open_files_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a probe that fails for our own limit."""
    monkeypatch.setattr(_verify_command, "SPARE_FILES", 10**9)
    assert_one_line(call("ws://127.0.0.1:1/"), "100 connections need 1000000100 open files: ulimit -n is ")


def test_a_server_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    install(monkeypatch, "uvicorn")
    result = call("examples.raw_asgi:app", "--path", "/", "--server", "daphne")
    assert_one_line(result, "daphne is not installed: pip install daphne")


def test_no_server_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for all of them."""
    install(monkeypatch)
    assert_one_line(call("examples.raw_asgi:app", "--path", "/"), "no server is installed")


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Give a port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield taken.getsockname()[1]


def test_an_address_that_does_not_answer_is_one_line(dead_port: int) -> None:
    """It says which, and why."""
    assert_one_line(call(f"ws://{HOST}:{dead_port}/"), f"{HOST}:{dead_port} does not answer: Connection refused")


class Redirects(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status, and with a body that never ends."""

    status = 302
    asked: list[str]

    def do_GET(self) -> None:
        """Redirect, or refuse."""
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.connection.settimeout(10)
        with contextlib.suppress(OSError):
            self.rfile.read(1)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@contextlib.contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """Answer with a status; give the port, and what was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Redirects,), {"status": status, "asked": asked})
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (302, "refused with HTTP 302; redirects are not followed"),
        (401, "refused with HTTP 401; --header 'Authorization"),
        (403, "refused with HTTP 403; --origin, --header"),
        (404, "refused with HTTP 404; is the path right?"),
        (500, "refused with HTTP 500\n"),
    ],
)
def test_a_refused_handshake_is_one_line(status: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hint; nothing else is asked for, and nobody waits for the body or asks a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(status) as (port, asked):
        result = call(f"ws://{HOST}:{port}/ws?token=s3cret")
        assert_one_line(result, what)
        assert asked == ["/ws-health/health", "/ws?token=s3cret"]
    assert "s3cret" not in result.stderr


def test_an_application_that_denies_is_one_line() -> None:
    """On every server: there was nothing to probe."""
    result = call(f"{APPS}:denies", "--path", "/", "--server", "uvicorn", "--probe", "reset")
    assert_one_line(result, "uvicorn, bare: ws://127.0.0.1:")
    assert "HTTP 403" in result.stderr


@pytest.mark.parametrize(
    ("health", "what"),
    [
        ("ws://127.0.0.1/", "--health takes an address such as http://host:port/ws-health/health"),
        ("http://127.0.0.1:x/", "--health takes an address"),
        ("http://127.0.0.1:{port}/other?token=s3cret", "/other gives no health"),
    ],
)
def test_a_health_that_is_none_is_one_line(health: str, what: str) -> None:
    """Who asks for it wants it."""
    with answering(404) as (port, _):
        result = call(f"ws://{HOST}:{port}/", "--health", health.format(port=port), "--timeout-s", "0.5")
    assert_one_line(result, what)
    assert "s3cret" not in result.stderr


def self_signed(folder: Path) -> Path:
    """Write a key and a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    path = folder / "certificate.pem"
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_bad_certificate_is_one_line(tmp_path: Path) -> None:
    """It is not accepted, and there is no option to accept it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))

    async def main() -> Result:
        server = await asyncio.start_server(lambda reader, writer: None, HOST, 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        result = await asyncio.to_thread(call, f"wss://localhost:{port}/")
        server.close()
        await server.wait_closed()
        return result

    assert_one_line(asyncio.run(main()), "TLS: the certificate is not valid: self-signed certificate")


def test_tls_where_nobody_speaks_it_is_one_line() -> None:
    """The other way round."""
    with answering(403) as (port, _):
        assert_one_line(call(f"wss://{HOST}:{port}/"), "TLS failed, perhaps nobody speaks it there")
