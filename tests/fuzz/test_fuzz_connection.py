"""Foreign scopes, headers and messages, through a whole guard with every default observer."""

from __future__ import annotations

import asyncio
import contextlib
import io

import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from asgi_ws_guard import Close, Closed, ProtocolError, WebSocketGuardMiddleware
from asgi_ws_guard._close import legal_code, legal_reason, may_send, peer_status
from asgi_ws_guard._connection import Connection
from asgi_ws_guard._scope import handshake_of, whole_scope
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.otel import Telemetry
from asgi_ws_guard.plugins.structlog import StructlogObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

from .values import ANYTHING, NUMBERS, OCTETS, TEXT, near, some

ADDRESS = st.tuples(TEXT, st.one_of(st.none(), st.integers(0, 65535)))
TRACE = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True).map(str.encode)
HEADER = st.tuples(
    st.one_of(OCTETS, st.sampled_from([b"traceparent", b"tracestate", b"baggage", b"user-agent", b"Cookie"])),
    st.one_of(OCTETS, TRACE, st.from_regex(rb"[a-z]{1,5}=[a-z%0-9;,= ]{0,60}")),
)
SCOPE = near(
    path=TEXT,
    raw_path=OCTETS,
    query_string=OCTETS,
    root_path=TEXT,
    scheme=st.sampled_from(["ws", "wss"]),
    http_version=TEXT,
    headers=st.lists(HEADER, max_size=5),
    client=ADDRESS,
    server=ADDRESS,
    subprotocols=st.lists(TEXT, max_size=3),
    extensions=st.just({"websocket.http.response": {}}),
    asgi=near(version=TEXT, spec_version=TEXT),
    route=ANYTHING,
    path_template=TEXT,
    fastapi=ANYTHING,
)
NAMES = ["connect", "receive", "disconnect", "accept", "send", "close", "odd", "odd\n"]
KINDS = st.sampled_from([*NAMES, "http.response.start", "http.response.body"]).map("websocket.".__add__)
MESSAGE = st.one_of(
    near(
        type=KINDS,
        text=TEXT,
        bytes=OCTETS,
        code=NUMBERS,
        reason=TEXT,
        subprotocol=TEXT,
        headers=st.lists(HEADER, max_size=2),
        status=NUMBERS,
        body=OCTETS,
        more_body=st.booleans(),
    ),
    KINDS.map(lambda kind: {"type": kind, "text": "x"}),
    ANYTHING,
)
MESSAGES = st.lists(MESSAGE, max_size=6)


@some(250)
@given(SCOPE)
def test_any_scope_becomes_whole_and_frozen(scope: Scope) -> None:
    """No scope raises; every key of the specification has a value, and the server's own dict is not changed."""
    before = dict(scope)
    whole = whole_scope(scope)
    assert {"path", "raw_path", "query_string", "headers", "subprotocols", "extensions", "scheme"} <= set(whole)
    handshake = handshake_of(whole)
    assert isinstance(handshake.path, str)
    assert all(isinstance(part, bytes) for pair in handshake.headers for part in pair)
    assert list(scope) == list(before)
    assert all(scope[key] is before[key] for key in before)


@some(250)
@given(st.lists(st.tuples(st.booleans(), MESSAGE), max_size=8))
def test_a_connection_refuses_or_takes_any_message(messages: list[tuple[bool, Message]]) -> None:
    """Nothing but `ProtocolError`, which changes no state; every message is in the books."""
    connection, sent = Connection("0" * 16, at_s=0.0, can_deny=True), 0
    for is_sent, message in messages:
        state = connection.state
        if is_sent:
            sent += 1
            step = connection.send(message, 1.0)
            if step.error is not None:
                assert connection.state is state
            elif step.verdict.value == "forward":
                connection.answers += 1
            else:
                connection.drop(connection.ended.because)  # type: ignore[union-attr]
        else:
            try:
                connection.receive(message, 1.0)
            except ProtocolError:
                assert connection.state is state
        assert connection.books.attempted == sent


@some(250)
@given(NUMBERS.filter(lambda one: isinstance(one, int)), TEXT)
def test_any_close_becomes_legal(code: int, reason: str) -> None:
    """Every code and reason has one that may be sent; what may be sent stays as it is."""
    assert may_send(legal_code(code))
    assert not may_send(code) or legal_code(code) == code
    cut = legal_reason(reason)
    assert len(cut.encode()) <= 123
    assert reason.encode("utf-8", "replace").decode().startswith(cut)
    assert peer_status(code)
    assert Close(code, reason)


@some(100)
@given(SCOPE, MESSAGES, MESSAGES, st.one_of(st.none(), TEXT))
def test_a_guarded_connection_takes_anything(
    scope: Scope, delivered: list[Message], answered: list[Message], failure: str | None
) -> None:
    """
    A whole connection with logs and traces: the application is called, nothing hangs, nothing is left.

    No observer fails, each log line stays one, the spans end, and the books balance.
    """
    output, exporter, seen, provider = (
        io.StringIO(),
        InMemorySpanExporter(),
        Recorder(),
        TracerProvider(sampler=ALWAYS_ON),
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    logger = structlog.wrap_logger(
        structlog.PrintLogger(output), processors=[structlog.processors.KeyValueRenderer(repr_native_str=False)]
    )
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        await receive()
        for message in ({"type": "websocket.accept"}, *answered):
            with contextlib.suppress(ProtocolError):
                await send(message)
        for _ in delivered:
            with contextlib.suppress(ProtocolError, asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 5.0)
        if failure is not None:
            raise ValueError(failure)

    async def main() -> None:
        server = ScriptedServer()
        server.scope = {"type": "websocket", **scope}
        server.connect()
        server.deliver(*(one for one in delivered if not isinstance(one, BaseException)))
        before = asyncio.all_tasks()
        task = server.call(guard)
        await asyncio.wait({task}, timeout=600)
        assert task.done(), "it hangs"
        error = task.exception()  # asked for in any case: asyncio logs what nobody has
        assert failure is not None or not isinstance(error, ValueError)
        await asyncio.sleep(5.0)
        assert asyncio.all_tasks() == before

    telemetry = Telemetry(tracer_provider=provider)
    guard = WebSocketGuardMiddleware(app, observers=(StructlogObserver(logger), telemetry, seen), adapters=())
    run(main)
    assert calls == [1]
    assert guard.observer_failures == {}
    lines = output.getvalue().split("\n")
    assert len(lines) == len(output.getvalue().splitlines()) + 1, "a foreign text has made a line of its own"
    assert all("connection_id=" in line for line in lines if line)
    assert all(line.isprintable() for line in lines)
    books = guard.totals()
    assert books.attempted == len(answered) + 1
    assert len(exporter.get_finished_spans()) == 1 + len(seen.of(Closed))
