"""Who is behind a connection: at the handle, renewed or said by the application, and what observers are told of it."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi_ws_guard import (
    Allow,
    ConnectionHandle,
    Handshake,
    Identified,
    Identity,
    ProtocolError,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.plugins.otel import TracingObserver
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
ANN = Identity("ann@example.org", expires_unix_s=5e9, label="a1")


class _Knows:
    def __init__(self, identity: Identity | None) -> None:
        self.identity = identity

    def admit(self, handshake: Handshake) -> Allow:
        return Allow(identity=self.identity)


def _in_a_handler(act: Any, identity: Identity | None = ANN, *observers: Any) -> Recorder:
    """Call *act* with the handle inside the handler of an open connection; give what was told."""
    seen = Recorder()

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            act(current_connection())

        server = ScriptedServer()
        server.connect()
        guard = WebSocketGuardMiddleware(app, observers=(seen, *observers), policies=(_Knows(identity),))
        await server.call(guard)
        assert server.types() == ["websocket.accept", "websocket.close"]

    run(main)
    return seen


def test_the_handle_knows_who_it_is() -> None:
    """What the policy found, as it found it; None where nobody knows."""
    found: list[Identity | None] = []
    _in_a_handler(lambda handle: found.append(handle.identity))
    _in_a_handler(lambda handle: found.append(handle.identity), None)
    assert found[0] is ANN
    assert found[1] is None


def test_observers_are_told_the_label_and_never_the_subject() -> None:
    """Told before the application is called; an identity without a label is told of nobody."""
    seen = _in_a_handler(lambda handle: None)
    assert seen.names()[:3] == ["Opened", "Identified", "Accepted"]
    assert seen.one(Identified).label == "a1"
    assert "ann@example.org" not in repr(seen.events)
    assert _in_a_handler(lambda handle: None, Identity("ann")).of(Identified) == []


def test_a_label_is_made_fit_for_a_log() -> None:
    """A user may be called anything: it is cut, and forges no line."""
    seen = _in_a_handler(lambda handle: None, Identity("x", label="a\nb\x1b[1m" + "c" * 300))
    assert seen.one(Identified).label == "a?b?[1m" + "c" * 193


@pytest.mark.parametrize("expires", [6e9, 1, None])
def test_a_renewal_moves_the_expiry_alone(expires: float | None) -> None:
    """Subject and label stay, and observers, who show the label, are not told again."""
    found: list[Identity | None] = []

    def act(handle: ConnectionHandle) -> None:
        handle.renew(expires)
        found.append(handle.identity)

    seen = _in_a_handler(act)
    assert found == [Identity("ann@example.org", expires, "a1")]
    assert len(seen.of(Identified)) == 1


def test_the_application_may_say_who_it_is() -> None:
    """It counts from then on; another label is told."""
    found: list[Identity | None] = []

    def act(handle: ConnectionHandle) -> None:
        handle.identify(Identity("bob", label="b2"))
        found.append(handle.identity)
        handle.identify(Identity("bob", label="b2"))

    seen = _in_a_handler(act, None)
    assert found == [Identity("bob", label="b2")]
    assert [event.label for event in seen.of(Identified)] == ["b2"]
    assert [event.label for event in _in_a_handler(act).of(Identified)] == ["a1", "b2"]


@pytest.mark.parametrize("value", [math.nan, math.inf, "soon", True, 10**400])
def test_a_renewal_until_nonsense_is_refused(value: Any) -> None:
    """`ValueError` names the argument, and the expiry is as it was."""

    def act(handle: ConnectionHandle) -> None:
        with pytest.raises(ValueError, match="expires_unix_s"):
            handle.renew(value)
        assert handle.identity is ANN

    _in_a_handler(act)


def test_nothing_is_renewed_for_nobody() -> None:
    """A handler that believes that its client is known had better hear that it is not."""

    def act(handle: ConnectionHandle) -> None:
        with pytest.raises(ProtocolError, match="without an identity"):
            handle.renew(6e9)

    _in_a_handler(act, None)


@pytest.mark.parametrize("value", [None, "bob", Identity(["bob"]), Identity("bob", math.nan)])  # type: ignore[arg-type]
def test_a_malformed_identity_is_refused(value: Any) -> None:
    """`ValueError`, without the subject in its text; who it was stays."""

    def act(handle: ConnectionHandle) -> None:
        with pytest.raises(ValueError, match="identity") as caught:
            handle.identify(value)
        assert "bob" not in str(caught.value)
        assert handle.identity is ANN

    _in_a_handler(act)


def test_after_the_end_it_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """A handle may be kept; a renewal that comes late tells nobody and closes nothing."""
    kept: list[ConnectionHandle] = []
    with caplog.at_level(logging.DEBUG):
        seen = _in_a_handler(kept.append)
        told = len(seen.events)
        kept[0].renew(None)
        kept[0].identify(Identity("bob", label="b2"))
    assert len(seen.events) == told


def test_both_spans_carry_the_label() -> None:
    """By the name that the semantic conventions have for a pseudonym."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    _in_a_handler(lambda handle: None, ANN, TracingObserver(provider))
    spans = exporter.get_finished_spans()
    assert [(span.attributes or {})["enduser.pseudo.id"] for span in spans] == ["a1", "a1"]
    assert "ann@example.org" not in str([span.to_json() for span in spans])
