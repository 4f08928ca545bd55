"""
Others in the same stack: nothing is doubled, every span has its parent, no context is lost and no error is told twice.

``sides.py`` has the stacks. Each client begins a trace of its own, so that a span in any other trace is a stray.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from otlp_decoded import Span
from otlp_receiver import HttpReceiver
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .clients import library_client
from .servers import UVICORN_SANSIO, Running, start
from .sites import IMPORT_ROOT, PACKAGE

CLIENT = "c1c1c1c1c1c1c1c1"
TEXTS = 3
TICKS = 9  # 0.9 s: long enough for the guard to read ahead, as the handler does not receive
WAIT_S = 15.0
KINDS = ("echo", "push", "error", "deny")
OURS = "asgi_ws_guard"
THEIRS = "opentelemetry.instrumentation."
BAD_LINES = (
    "Failed to detach context",
    "was never retrieved",
    "was never awaited",
    "the context is another one",
    "observer",
    "different Context",
)

Key = tuple[str, str]
"""Stack and kind of handler."""


@dataclass(frozen=True)
class Told:
    """
    What was told of all connections, by all who tell.

    Attributes:
        spans: All of them.
        traces: dict: stack and kind -> id of the client's trace.
        envelopes: What Sentry would have sent.
        log: Of the server.
    """

    spans: list[Span]
    traces: dict[Key, str]
    envelopes: list[dict[str, Any]]
    log: str

    def of(self, stack: str, kind: str, scope: str = "") -> list[Span]:
        """List the spans of a connection by who made them, in the order of their starts."""
        trace_id = self.traces[stack, kind]
        found = [one for one in self.spans if one.trace_id == trace_id and one.scope.name.startswith(scope)]
        return sorted(found, key=lambda one: one.start_ns)

    def messages(self, stack: str, kind: str) -> Counter[str]:
        """Count their spans of messages by direction."""
        return Counter(one.name.rsplit(" ", 1)[-1] for one in self.of(stack, kind, THEIRS) if _is_message(one))

    def sent(self, stack: str, kind: str, of: str) -> list[dict[str, Any]]:
        """List what Sentry got of a connection: ``event`` for errors and log lines, or ``transaction``."""
        return [
            one
            for one in self.envelopes
            if one.get("type", "event") == of and one.get("request", {}).get("url", "").endswith(f"/{stack}/{kind}")
        ]


def _is_message(span: Span) -> bool:
    return span.name.endswith((" websocket receive", " websocket send"))


def _visit(running: Running, stack: str, kind: str) -> str:
    """Play a client; give the id of its trace."""
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{CLIENT}-01"}
    if kind == "deny":
        with pytest.raises(InvalidStatus), library_client(running.port, f"/{stack}/{kind}", headers=headers):
            pass
        return trace_id
    with library_client(running.port, f"/{stack}/{kind}", headers=headers) as client:
        if kind == "echo":
            for number in range(TEXTS):
                client.send(str(number))
                assert client.recv(timeout=5) == str(number)
        elif kind == "push":
            for _ in range(TICKS):
                assert client.recv(timeout=5) == "tick"
        else:
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=5)
    return trace_id


@contextmanager
def _sides(folder: Path, stacks: tuple[str, ...], *, sentry: str = "off") -> Iterator[Told]:
    """Visit every handler behind every stack, and end the server, which flushes."""
    envelopes = folder / "envelopes.jsonl"
    with HttpReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "SIDES_SENTRY": sentry,
            "SIDES_ENVELOPES": str(envelopes),
        }
        with start(
            UVICORN_SANSIO,
            f"{PACKAGE}.sides:make_app",
            folder,
            env=environment,
            python_path=[IMPORT_ROOT],
            arguments=["--factory"],
        ) as running:
            keys = [(stack, kind) for stack in stacks for kind in KINDS]
            with ThreadPoolExecutor(len(stacks)) as pool:
                traces = dict(zip(keys, pool.map(lambda key: _visit(running, *key), keys), strict=True))
            _wait_for_handlers(receiver, stacks, traces)
        sent = envelopes.read_text("utf-8").splitlines() if envelopes.exists() else []
        yield Told(receiver.spans(), traces, [json.loads(line) for line in sent], running.log)


def _wait_for_handlers(receiver: HttpReceiver, stacks: tuple[str, ...], traces: dict[Key, str]) -> None:
    """Wait for the connection's span wherever there is a guard: it is the last one that is made."""
    guarded = [one for one in stacks if "guard" in one or one in ("alone", "excluded")]
    expected = {traces[stack, kind] for stack in guarded for kind in KINDS if kind != "deny"}

    def ended() -> bool:
        return expected <= {one.trace_id for one in receiver.spans() if one.name.startswith("websocket /")}

    receiver.wait_until(ended, WAIT_S)


OUTSIDE = ("otel-guard", "quiet-guard", "fastapi-guard")
INSIDE = ("guard-otel", "guard-quiet", "guard-fastapi")
BARE = ("otel", "fastapi")
ALONE = ("alone", "excluded", "guard-silent")
NATIVE = ("native-guard", "guard-native")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Play everything with OpenTelemetry's instrumentations and with FastAPI's own."""
    with _sides(tmp_path_factory.mktemp("sides"), (*ALONE, *BARE, *OUTSIDE, *INSIDE, *NATIVE)) as one:
        yield one


def _ours(told: Told, stack: str, kind: str) -> Span:
    """See that ours are two, one of a denial, joined as ever; give the handshake's."""
    handshake, *connection = told.of(stack, kind, OURS)
    assert (handshake.name, handshake.status) == (f"GET /{{stack}}/{kind}", "UNSET")
    assert [one.name for one in connection] == ([] if kind == "deny" else [f"websocket /{{stack}}/{kind}"])
    for one in connection:
        assert (one.kind, one.parent_id) == ("INTERNAL", handshake.span_id)
        assert [to.span_id for to in one.links] == [handshake.span_id]
        assert one.status == ("ERROR" if kind == "error" else "UNSET")
    return handshake


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", ALONE)
def test_alone(told: Told, stack: str, kind: str) -> None:
    """Where the others are absent, told to exclude the path, or switched off, ours are the only ones."""
    handshake = _ours(told, stack, kind)
    assert (handshake.kind, handshake.parent_id) == ("SERVER", CLIENT)
    others = [one for one in told.of(stack, kind) if one.scope.name != OURS]
    assert [(one.name, one.parent_id) for one in others] == [("work", handshake.span_id)] * (TEXTS * (kind == "echo"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", OUTSIDE)
def test_an_instrumentation_outside(told: Told, stack: str, kind: str) -> None:
    """The client's span has theirs as its child, theirs has our handshake, and that the connection."""
    theirs = [one for one in told.of(stack, kind, THEIRS) if not _is_message(one)]
    assert [(one.kind, one.parent_id) for one in theirs] == [("SERVER", CLIENT)]
    handshake = _ours(told, stack, kind)
    assert (handshake.kind, handshake.parent_id) == ("INTERNAL", theirs[0].span_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", INSIDE)
def test_an_instrumentation_inside(told: Told, stack: str, kind: str) -> None:
    """The client's span has our handshake as its child, and that has theirs and the connection."""
    handshake = _ours(told, stack, kind)
    assert (handshake.kind, handshake.parent_id) == ("SERVER", CLIENT)
    theirs = [one for one in told.of(stack, kind, THEIRS) if not _is_message(one)]
    assert [(one.kind, one.parent_id) for one in theirs] == [("INTERNAL", handshake.span_id)]


@pytest.mark.parametrize("kind", KINDS)
def test_fastapis_own_spans_outside(told: Told, kind: str) -> None:
    """As a middleware of the application, the guard stands within FastAPI's span of the connection."""
    theirs = [one for one in told.of("native-guard", kind, "fastapi") if not one.name.startswith("fastapi.")]
    assert [(one.name, one.kind, one.parent_id) for one in theirs] == [(f"WS /{{stack}}/{kind}", "SERVER", CLIENT)]
    handshake = _ours(told, "native-guard", kind)
    assert (handshake.kind, handshake.parent_id) == ("INTERNAL", theirs[0].span_id)


@pytest.mark.parametrize("kind", KINDS)
def test_fastapis_own_spans_inside(told: Told, kind: str) -> None:
    """Around the application, the guard does not hinder FastAPI from reading the client's header once more."""
    handshake = _ours(told, "guard-native", kind)
    theirs = [one for one in told.of("guard-native", kind, "fastapi") if not one.name.startswith("fastapi.")]
    assert [(one.kind, one.parent_id) for one in (handshake, *theirs)] == [("SERVER", CLIENT)] * 2


@pytest.mark.parametrize("stack", ["quiet-guard", "guard-quiet", "guard-fastapi"])
def test_their_spans_of_messages_can_be_switched_off(told: Told, stack: str) -> None:
    """With ``exclude_spans`` there is none, in neither order."""
    assert [told.messages(stack, kind) for kind in KINDS] == [Counter()] * len(KINDS)


def test_their_span_says_200_whatever_becomes_of_a_send(told: Told) -> None:
    """Also for a handler whose sends are late; ours says what became of them."""
    theirs = next(one for one in told.of("quiet-guard", "push", THEIRS))
    assert theirs.attributes["http.status_code"] == 200
    connection = told.of("quiet-guard", "push", OURS)[1]
    assert connection.attributes["asgi_ws_guard.sends.dropped"] > 0


@pytest.mark.parametrize("kind", ["echo", "deny"])
@pytest.mark.parametrize(
    ("stack", "bare"), [("otel-guard", "otel"), ("guard-otel", "otel"), ("fastapi-guard", "fastapi")]
)
def test_their_spans_of_messages_are_as_many_as_ever(told: Told, stack: str, bare: str, kind: str) -> None:
    """The guard adds no read and no send of its own that they would see."""
    expected = Counter(send=2) if kind == "deny" else Counter(receive=TEXTS + 2, send=TEXTS + 1)
    assert told.messages(bare, kind) == expected
    assert told.messages(stack, kind) == expected


@pytest.mark.parametrize("stack", [*OUTSIDE, *INSIDE])
def test_the_handlers_own_spans_belong_to_the_trace(told: Told, stack: str) -> None:
    """They are children of the innermost span around the handler."""
    parent = next(one for one in told.of(stack, "echo", OURS if stack in OUTSIDE else THEIRS) if not _is_message(one))
    assert [one.parent_id for one in told.of(stack, "echo", "handler")] == [parent.span_id] * TEXTS


def test_there_is_no_stray(told: Told) -> None:
    """Every span belongs to a client's trace, also that of a read that the guard does by itself."""
    assert [one.name for one in told.spans if one.trace_id not in told.traces.values()] == []
    reads = [one for one in told.of("otel-guard", "push", THEIRS) if one.name.endswith("receive")]
    outer = next(one for one in told.of("otel-guard", "push", THEIRS) if not _is_message(one))
    assert reads[-1].parent_id == outer.span_id


def test_no_context_is_lost(told: Told) -> None:
    """Nothing in the log of contexts, tasks and observers, and no traceback but those of the handler's own error."""
    _check_log(told)


def _check_log(told: Told) -> None:
    assert [line for line in told.log.splitlines() if any(bad in line for bad in BAD_LINES)] == []
    # A bare stack's own handlers end with a disconnect, which uvicorn takes; their error is logged like any other.
    last_lines = [line for line in told.log.splitlines() if line[:1].isalpha() and "Error: " in line]
    failing = sum(kind == "error" for _, kind in told.traces)
    assert [line for line in last_lines if line.startswith("ValueError: a bug")] == last_lines
    assert len(last_lines) == failing


SENTRY_OUTSIDE = ("sentry-guard", "otel-sentry-guard", "sentry-guard-otel")


@pytest.fixture(scope="module")
def told_sentry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Play everything with Sentry's ASGI middleware, alone and together with OpenTelemetry's."""
    stacks = ("sentry", "guard-sentry", *SENTRY_OUTSIDE)
    with _sides(tmp_path_factory.mktemp("sentry"), stacks, sentry="middleware") as one:
        yield one


@pytest.fixture(scope="module")
def told_integration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Play everything with what Sentry patches into Starlette and FastAPI by itself."""
    stacks = ("otel", "alone", "guard-silent", "native-guard", "fastapi-guard")
    with _sides(tmp_path_factory.mktemp("integration"), stacks, sentry="integration") as one:
        yield one


def _errors(told: Told, stack: str, kind: str) -> list[str]:
    """Name the exceptions of each event of a connection."""
    events = told.sent(stack, kind, "event")
    return ["/".join(one["type"] for one in event.get("exception", {}).get("values", [])) for event in events]


@pytest.mark.parametrize("stack", ["sentry", "guard-sentry", *SENTRY_OUTSIDE])
def test_sentrys_middleware_hears_of_an_error_once(told_sentry: Told, stack: str) -> None:
    """One event for the handler's bug, and one transaction for each connection without a span for a message."""
    assert _errors(told_sentry, stack, "error") == ["ValueError"]
    for kind in KINDS:
        assert [one["spans"] for one in told_sentry.sent(stack, kind, "transaction")] == [[]]
        if kind not in ("error", "push"):
            assert _errors(told_sentry, stack, kind) == []


@pytest.mark.parametrize("stack", ["alone", "guard-silent", "native-guard", "fastapi-guard"])
def test_sentrys_integrations_hear_of_an_error_once(told_integration: Told, stack: str) -> None:
    """One event for the handler's bug, one transaction for each connection, and no more."""
    assert _errors(told_integration, stack, "error") == ["ValueError"]
    for kind in KINDS:
        assert len(told_integration.sent(stack, kind, "transaction")) == 1
        if kind not in ("error", "push"):
            assert _errors(told_integration, stack, kind) == []


@pytest.mark.parametrize("stack", SENTRY_OUTSIDE)
def test_sentrys_middleware_outside_hears_of_no_disconnect(told_sentry: Told, stack: str) -> None:
    """What the handler raises because the peer is gone ends at the guard; without a guard it is an event."""
    assert _errors(told_sentry, "sentry", "push") == ["ClientDisconnected/WebSocketDisconnect"]
    assert _errors(told_sentry, stack, "push") == []


@pytest.mark.parametrize("stack", ["native-guard", "fastapi-guard"])
def test_sentrys_integrations_hear_of_no_disconnect_outside(told_integration: Told, stack: str) -> None:
    """They stand around the application's middlewares: a guard that is one of these keeps the disconnect."""
    assert _errors(told_integration, "otel", "push") == ["ClientDisconnected/WebSocketDisconnect"]
    assert _errors(told_integration, stack, "push") == []


def test_sentry_inside_hears_what_the_handler_raises(told_sentry: Told, told_integration: Told) -> None:
    """Nothing can be kept from what stands between the handler and the guard."""
    assert _errors(told_sentry, "guard-sentry", "push") == ["ConnectionClosed/WebSocketDisconnect"]
    for stack in ("alone", "guard-silent"):
        assert _errors(told_integration, stack, "push") == ["ConnectionClosed/WebSocketDisconnect"]


def test_sentry_names_a_transaction_by_what_it_finds_in_the_scope(told_sentry: Told) -> None:
    """The router writes into the guard's copy of the scope: outside of the guard there is only the URL."""
    for stack, start_of in (
        ("sentry", "interop.sides."),
        ("guard-sentry", "interop.sides."),
        ("sentry-guard", "ws://"),
    ):
        (transaction,) = told_sentry.sent(stack, "echo", "transaction")
        assert transaction["transaction"].removeprefix("tests.").startswith(start_of)


@pytest.mark.parametrize("stack", ["guard-sentry", *SENTRY_OUTSIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_traces_beside_sentry(told_sentry: Told, stack: str, kind: str) -> None:
    """Sentry's transactions have traces of their own; ours, and theirs of OpenTelemetry, are what they were."""
    handshake = _ours(told_sentry, stack, kind)
    theirs = told_sentry.of(stack, kind, THEIRS)
    parents = {"otel-sentry-guard": [CLIENT], "sentry-guard-otel": [handshake.span_id]}.get(stack, [])
    assert [one.parent_id for one in theirs] == parents
    assert handshake.parent_id == (theirs[0].span_id if stack == "otel-sentry-guard" else CLIENT)
    ids = [one["contexts"]["trace"]["trace_id"] for one in told_sentry.sent(stack, kind, "transaction")]
    assert len(ids) == 1
    assert ids[0] not in told_sentry.traces.values()


def test_no_context_is_lost_beside_sentry(told_sentry: Told, told_integration: Told) -> None:
    """Nothing in the logs but the handler's own error, and no span in any other trace."""
    for told in (told_sentry, told_integration):
        _check_log(told)
        strays = [one for one in told.spans if one.trace_id not in told.traces.values()]
        assert [one.name for one in strays if one.scope.name != "handler"] == []
