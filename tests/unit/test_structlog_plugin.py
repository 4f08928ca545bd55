"""The log lines: one per step, complete, without secrets, and impossible to forge."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.types import Processor

import asgi_ws_guard
from asgi_ws_guard import (
    Abandoned,
    Accepted,
    Books,
    CallSite,
    CloseAdjusted,
    Closed,
    CloseStatus,
    Draining,
    DropReason,
    Ended,
    Event,
    HandlerOutlived,
    HandlerStopped,
    Handshake,
    Identified,
    Initiator,
    LateSend,
    Leaked,
    MessageHandled,
    MessageLost,
    MessageReceived,
    MessageSent,
    ObserverFailed,
    Opened,
    PolicyApplied,
    ReadAheadFull,
    Rejected,
    SendTimedOut,
    Violated,
)
from asgi_ws_guard._plugin import Observer
from asgi_ws_guard.plugins.structlog import MAX_TEXT, StructlogObserver, safe

ID = "00112233445566aa"
SITE = CallSite("/srv/chat.py", 42, "broadcast")
SECRETS = ("s3cret-query", "s3cret-cookie", "s3cret-bearer")


def handshake(path: str = "/ws/room") -> Handshake:
    return Handshake(
        path=path,
        query_string=b"token=s3cret-query",
        headers=((b"cookie", b"session=s3cret-cookie"), (b"authorization", b"Bearer s3cret-bearer")),
        client=("10.0.0.1", 5000),
        server=("10.0.0.2", 80),
        scheme="wss",
        http_version="1.1",
        subprotocols=("chat",),
        can_deny=True,
    )


BOOKS = Books(received=3, sent=4, forwarded=5, failed=6, refused=7, dropped={"app_closed": 8, "policy": 1})


def facts(
    status: CloseStatus, *, path: str = "/ws/room", route: str | None = "/ws/{room}", reason: str = "bye"
) -> dict[str, Any]:
    return {
        "connection_id": ID,
        "at_s": 9.0,
        "path": path,
        "route": route,
        "code": 1001,
        "reason": reason,
        "initiator": Initiator.CLIENT,
        "status": status,
        "handshake_s": 0.12345678,
        "duration_s": 2.00000049,
        "lingered_s": 3.50000049,
        "error_type": "ValueError",
        "absorbed_type": "ClientDisconnected",
        "books": BOOKS,
    }


SUMMARY: dict[str, Any] = {
    "path": "/ws/room",
    "route": "/ws/{room}",
    "code": 1001,
    "reason": "bye",
    "initiator": "client",
    "handshake_s": 0.123457,
    "duration_s": 2.0,
    "lingered_s": 3.5,
    "error_type": "ValueError",
    "absorbed_type": "ClientDisconnected",
    "received": 3,
    "attempted": 27,
    "sent": 4,
    "failed": 6,
    "refused": 7,
    "dropped": {"app_closed": 8, "policy": 1},
}
AWAY = CloseStatus.GOING_AWAY

LINES: list[tuple[Event, str, str, dict[str, Any]]] = [
    # event, level, line, values
    (Opened(ID, 1.0, handshake()), "debug", "websocket opened", {"path": "/ws/room"}),
    (Accepted(ID, 1.0, None, None, 0.5), "info", "websocket accepted", {"route": None}),
    (Accepted(ID, 1.0, "s3cret", "/ws/{room}", 0.5), "info", "websocket accepted", {"route": "/ws/{room}"}),
    (
        Ended(ID, 1.0, 1001, "bye", Initiator.TRANSPORT, AWAY),
        "debug",
        "websocket ended",
        {"code": 1001, "reason": "bye", "initiator": "transport", "status": "going_away"},
    ),
    (
        LateSend(ID, 1.0, "websocket.send", DropReason.CLIENT_DISCONNECTED, SITE),
        "warning",
        "websocket late send dropped",
        {
            "message_type": "websocket.send",
            "reason": "client_disconnected",
            "site": "/srv/chat.py:42 in broadcast",
        },
    ),
    (
        Leaked(ID, 1.0, "websocket.close", DropReason.HANDLER_DONE, None),
        "warning",
        "websocket leaked: sent to after its handler was done",
        {"message_type": "websocket.close", "reason": "handler_done", "site": None},
    ),
    (
        Violated(ID, 1.0, "OPEN", "websocket.accept", "the application sent websocket.accept"),
        "warning",
        "websocket protocol violated",
        {"state": "OPEN", "problem": "the application sent websocket.accept"},
    ),
    (
        CloseAdjusted(ID, 1.0, 1006, 1011, reason_cut=True),
        "warning",
        "websocket close adjusted",
        {"asked_code": 1006, "code": 1011, "reason_cut": True},
    ),
    (SendTimedOut(ID, 1.0, 5.0), "warning", "websocket send timed out", {"timeout_s": 5.0}),
    (Identified(ID, 1.0, "a1"), "debug", "websocket identified", {"identity": "a1"}),
    (ReadAheadFull(ID, 1.0, 8, 9), "warning", "websocket messages are not read", {"messages": 8, "size": 9}),
    (
        HandlerOutlived(ID, 1.0, "/ws/{room}", 1001, "bye", Initiator.CLIENT, AWAY, True, 5.0, 21.00000049, BOOKS),
        "warning",
        "websocket handler still runs after the end",
        {
            "route": "/ws/{room}",
            "initiator": "client",
            "status": "going_away",
            "lingered_s": 21.0,
            "dropped": {"app_closed": 8, "policy": 1},
        },
    ),
    (Draining(ID, 1.0, 10.0), "debug", "websocket draining", {"deadline_s": 10.0}),
    (HandlerStopped(ID, 1.0, "cancelled"), "warning", "websocket handler stopped", {"how": "cancelled"}),
    (
        PolicyApplied(ID, 1.0, "app.Limits", "deny", "rate"),
        "info",
        "websocket policy applied",
        {"policy": "app.Limits", "decision": "deny", "reason": "rate"},
    ),
    (
        ObserverFailed(ID, 1.0, "app.observe", "KeyError", "Closed"),
        "warning",
        "websocket observer failed",
        {"observer": "app.observe", "error_type": "KeyError", "at": "Closed"},
    ),
    (Closed(**facts(AWAY)), "info", "websocket closed", {**SUMMARY, "status": "going_away"}),
    (Abandoned(**facts(AWAY)), "info", "websocket abandoned", {**SUMMARY, "status": "going_away"}),
    (
        Rejected(**facts(CloseStatus.DENIED), response_status=403),
        "info",
        "websocket rejected",
        {**SUMMARY, "status": "denied", "response_status": 403},
    ),
]
SILENT: list[Event] = [
    MessageReceived(ID, 1.0, "text", 5),
    MessageHandled(ID, 1.0, "text", 5, 0.5),
    MessageSent(ID, 1.0, "binary", 5, 0.5),
    MessageLost(ID, 1.0, "binary", 5, 0.5, None, "ValueError"),
]


@pytest.mark.parametrize(("event", "level", "line", "values"), LINES, ids=lambda one: type(one).__name__)
def test_one_line_per_step(event: Event, level: str, line: str, values: dict[str, Any]) -> None:
    """Each step of a connection is one line, with its level, the connection's id and exactly these values."""
    with capture_logs() as logs:
        StructlogObserver()(event)
    assert logs == [{"event": line, "log_level": level, "connection_id": ID, **values}]


@pytest.mark.parametrize("event", SILENT, ids=lambda one: type(one).__name__)
def test_no_line_per_message(event: Event) -> None:
    """Messages make no line."""
    with capture_logs() as logs:
        StructlogObserver()(event)
    assert logs == []


def test_an_unknown_event_makes_no_line() -> None:
    """A class that comes later is passed over, as the seam asks."""

    class Later(Event):
        """A new event."""

    with capture_logs() as logs:
        StructlogObserver()(Later(ID, 1.0))
    assert logs == []


def test_every_event_has_its_line_or_none_on_purpose() -> None:
    """A new event class is a decision: it gets a line here, or stands among the silent."""
    kinds = {one for one in vars(asgi_ws_guard).values() if isinstance(one, type) and issubclass(one, Event)}
    concrete = kinds - {Event, asgi_ws_guard.Terminal}
    assert concrete == {type(row[0]) for row in LINES} | {type(event) for event in SILENT}


@pytest.mark.parametrize("kind", [Closed, Abandoned])
@pytest.mark.parametrize("status", CloseStatus)
def test_the_level_of_the_end(kind: type[Closed | Abandoned], status: CloseStatus) -> None:
    """Ends that somebody should look at are warnings; a normal one never is, and none is an error."""
    bad = {"app_error", "protocol_error", "slow_consumer", "transport_error"}
    if kind is Abandoned:
        bad.add("timeout")  # a connection that was let in and closed for its idleness or its age was to be closed
    with capture_logs() as logs:
        StructlogObserver()(kind(**facts(status)))
    assert [line["log_level"] for line in logs] == ["warning" if str(status) in bad else "info"]


def test_numbers_stay_numbers() -> None:
    """Values keep the types that a log processor can count with; words are plain strings."""
    with capture_logs() as logs:
        StructlogObserver()(Rejected(**facts(CloseStatus.DENIED), response_status=403))
    (line,) = logs
    for name in ("code", "received", "attempted", "sent", "failed", "refused", "response_status"):
        assert type(line[name]) is int
    for name in ("duration_s", "handshake_s", "lingered_s"):
        assert type(line[name]) is float
    for name in ("status", "initiator", "path", "reason"):
        assert type(line[name]) is str
    assert type(line["dropped"]) is dict
    assert json.loads(json.dumps(line)) == line


def test_a_logger_of_ones_own() -> None:
    """A given logger is used, with what is bound to it."""
    with capture_logs() as logs:
        StructlogObserver(structlog.get_logger().bind(service="chat"))(Accepted(ID, 1.0, None, None, 0.5))
    assert [line["service"] for line in logs] == ["chat"]


def test_it_is_an_observer() -> None:
    """It fits the seam, and does not ask for messages, which would slow every one of them."""
    observer = StructlogObserver()
    assert isinstance(observer, Observer)
    assert not getattr(observer, "wants_messages", False)


# --- what is written ------------------------------------------------------------------------------


def plain(logger: object, name: str, values: Any) -> str:
    """Render as carelessly as can be: nothing is quoted or escaped."""
    return " ".join(f"{key}={value}" for key, value in values.items())


RENDERERS: dict[str, Callable[[], Processor]] = {
    "plain": lambda: plain,
    "console": lambda: structlog.dev.ConsoleRenderer(colors=False),
    "key value": lambda: structlog.processors.KeyValueRenderer(),
    "logfmt": lambda: structlog.processors.LogfmtRenderer(bool_as_flag=False),
    "json": lambda: structlog.processors.JSONRenderer(ensure_ascii=False),
}


def written(renderer: str, *events: Event) -> str:
    """Give what a real logger writes for events."""
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.add_log_level, RENDERERS[renderer]()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    observer = StructlogObserver(logger)
    for event in events:
        observer(event)
    return out.getvalue()


FORGERIES = [
    "/ws\n2026-01-01 [error] all is lost connection_id=0",
    "/ws\r\nSet-Cookie: a=b",
    "/ws\rover",
    "/\x1b[2J\x1b[1;1H\x1b[31mred",
    "/\x9b31m",
    "/\u2028next\u2029par",
    "/\x85nel\x0bvt\x0cff\x1cfs\x1dgs\x1ers",
    "/\x00nul\x07bell\x08\x08\x08back\x7fdel",
    "/\u202egnp.exe\u2066\u200f",
    "/\ufeff\u200b\u00ad",
    "/\ud800\udfff",
    "/\U000e0041",
    "x" * 100_000,
    "\n" * 100_000,
]


def foreign(text: str) -> list[Event]:
    """Put foreign text into each field of each event that may hold it."""
    return [
        Opened(ID, 1.0, handshake(text)),
        Accepted(ID, 1.0, text, text, 0.5),
        Ended(ID, 1.0, 1001, text, Initiator.CLIENT, AWAY),
        Violated(ID, 1.0, "OPEN", text, f"the application sent {text}"),
        PolicyApplied(ID, 1.0, "app.Limits", "deny", text),
        Identified(ID, 1.0, text),
        Closed(**facts(AWAY, path=text, reason=text)),
        Abandoned(**facts(AWAY, path=text, reason=text)),
        Rejected(**facts(AWAY, path=text, reason=text), response_status=403),
    ]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("text", FORGERIES, ids=lambda text: ascii(text[:12]))
def test_no_line_can_be_forged(text: str, renderer: str) -> None:
    """A path, reason, subprotocol or message type of any characters and any length makes one printable, short line."""
    for event in foreign(text):
        out = written(renderer, event)
        assert out.endswith("\n")
        line = out[:-1]
        assert line.isprintable(), ascii(line)
        assert len(out.splitlines()) == 1
        assert len(line) < 2 * 12 * MAX_TEXT + 1000
        assert ID in line
        line.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", ""),
        ("/chat/é/日本/😀 x", "/chat/é/日本/😀 x"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\x00\x7f\x85", "\\x00\\x7f\\x85"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "…"),
        ("\n" * 300, "\\n" * 200 + "…"),
    ],
)
def test_safe_text(text: str, made: str) -> None:
    """Printable text stays, what is unprintable is escaped, what is long is cut and says so."""
    assert MAX_TEXT == 200
    assert safe(text) == made


@pytest.mark.parametrize("renderer", RENDERERS)
def test_no_secret_is_written(renderer: str) -> None:
    """Query string, cookie and authorization header are in no line of any event, however it is rendered."""
    out = written(renderer, *[row[0] for row in LINES], *SILENT)
    assert out.count("\n") == len(LINES)
    for secret in (*SECRETS, "token", "session", "Bearer", "authorization", "cookie"):
        assert secret not in out
    assert "/ws/room" in out
