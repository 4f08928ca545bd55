"""
Traces: a span for the opening handshake, one for the connection, and by option one for each message.

The handshake's span ends at the answer, so that it is as short as any other request's. The connection's span is made
when the connection is over, with its true times; until then a few facts are all that is kept, and no span can be left
open. Context is passed explicitly; what the handler inherits is set in its own task and reset there.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any, Literal

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, SpanKind

from ..._events import (
    Abandoned,
    Accepted,
    Ended,
    Event,
    HandlerOutlived,
    Handshake,
    Identified,
    Leaked,
    MessageHandled,
    MessageLost,
    MessageSent,
    Opened,
    Rejected,
    Terminal,
)
from ..._exceptions import ConfigurationError
from . import attributes as names
from . import describe
from ._traced import Traced
from .linking import HANDSHAKE_KEY, link_roots, root_context

MessageSpans = Literal["off", "all"] | float
HandlerSpans = Literal["children", "linked"]

_CONNECTION_KEY = "asgi_ws_guard.connection"
"""Where the connection's id stands in the OpenTelemetry context of its handler."""

# Built once: ``isinstance(event, A | B)`` makes the union anew each time, which takes longer than the look.
_MESSAGES = (MessageSent, MessageLost, MessageHandled)
_NOT_NOTED = (Accepted, Identified, Leaked)
_ANSWERS = (Abandoned, Rejected, HandlerOutlived)


class TracingObserver:
    """Hears every event and makes spans."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        *,
        message_spans: MessageSpans = "off",
        handler_spans: HandlerSpans = "children",
    ) -> None:
        """
        Make spans with a provider.

        Args:
            tracer_provider: None: the global one, also when it is set later.
            message_spans: ``"off"``, ``"all"``, or the share of messages that get a span, 0 to 1. They are roots,
                linked to the handshake; one that is sent inside a span of the application's is that span's child.
            handler_spans: ``"children"``: the handler's own spans belong to the handshake's trace; ``"linked"``: they
                are roots, with a link to the handshake.

        Raises:
            ConfigurationError: An option has a value that is not allowed.
        """
        self._share = _share(message_spans)
        if handler_spans not in ("children", "linked"):
            raise ConfigurationError("handler_spans", handler_spans, "'children' or 'linked'")
        self._linked = handler_spans == "linked"
        self._provider = tracer_provider
        self._tracer = trace.get_tracer(names.SCOPE, tracer_provider=tracer_provider, schema_url=names.SCHEMA_URL)
        self._live: dict[str, Traced] = {}

    @property
    def wants_messages(self) -> bool:
        """Whether messages get spans."""
        return self._share > 0 and self._has_sdk()

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        Args:
            event: Any event; classes that say nothing to a trace are passed over.
        """
        if isinstance(event, Opened):
            if self._has_sdk():
                self._opened(event)
            return
        traced = self._live.get(event.connection_id)
        if traced is None:
            return
        if isinstance(event, _MESSAGES):
            if self._share >= 1 or random.random() < self._share:
                traced.make_message_span(self._tracer, event)
            return
        if isinstance(event, Ended):
            traced.noted_before_close = len(traced.events or ())
        elif not isinstance(event, _NOT_NOTED):
            traced.note(event)
        if isinstance(event, Accepted):
            self._accepted(event, traced)
        elif isinstance(event, Identified):
            traced.identity = describe.identity(event)
        elif isinstance(event, HandlerOutlived):
            self._over(event, traced)
        elif isinstance(event, Terminal):
            del self._live[event.connection_id]
            try:
                self._over(event, traced)
            finally:  # a span processor may raise
                _restore(traced.token)

    def _has_sdk(self) -> bool:
        """Tell whether spans go anywhere: without an SDK this observer costs next to nothing."""
        provider = self._provider or trace.get_tracer_provider()
        return not type(provider).__module__.startswith("opentelemetry.trace")

    def _opened(self, event: Opened) -> None:
        """Start the handshake's span, inside a span that surrounds the guard, else as the child of the client's."""
        before = otel_context.get_current()
        surrounding = trace.get_current_span(before).get_span_context().is_valid
        at_ns = time.time_ns()
        span = self._tracer.start_span(
            "GET",
            context=None if surrounding else propagate.extract(event.handshake, getter=_HEADERS),
            kind=SpanKind.INTERNAL if surrounding else SpanKind.SERVER,
            attributes=describe.request(event.connection_id, event.handshake),
            start_time=at_ns,
        )
        traced = self._live[event.connection_id] = Traced(span, at_ns - round(event.at_s * 1e9))
        if self._linked:
            link_roots(self._provider or trace.get_tracer_provider())
            around = root_context(traced.link)
        else:
            around = trace.set_span_in_context(span, before)
        traced.context = Context({**around, HANDSHAKE_KEY: traced.link, _CONNECTION_KEY: event.connection_id})
        token = otel_context.attach(traced.context)
        if otel_context.get_value(_CONNECTION_KEY, before) != event.connection_id:
            traced.token = token  # else another such observer gives back what was before both: it hears the end first

    def _accepted(self, event: Accepted, traced: Traced) -> None:
        traced.accepted_s, traced.route = event.at_s, event.route
        values = {names.HTTP_STATUS: 101, names.CONNECTION_RESULT: names.ACCEPTED}
        traced.end_handshake(event.at_s, values, None)
        if not self._linked and otel_context.get_current() is traced.context:
            # The handler keeps the context for as long as it runs, and must not keep the span for as long.
            traced.context = trace.set_span_in_context(NonRecordingSpan(traced.link), traced.context)
            otel_context.attach(traced.context)

    def _over(self, event: HandlerOutlived | Terminal, traced: Traced) -> None:
        """Make the span of a connection that is over; or end that of a handshake without an accept."""
        traced.route, error = event.route, describe.error(event)
        if isinstance(event, _ANSWERS):
            traced.end_handshake(event.at_s - event.lingered_s, describe.answer(event), error)
        traced.make_connection_span(self._tracer, event, error)


def _share(message_spans: object) -> float:
    if message_spans in ("off", "all"):
        return float(message_spans == "all")
    if isinstance(message_spans, bool) or not isinstance(message_spans, int | float) or not 0 <= message_spans <= 1:
        raise ConfigurationError("message_spans", message_spans, "'off', 'all', or a share from 0 to 1")
    return float(message_spans)


class _Headers(Getter[Handshake]):
    """Lets a propagator take the headers that it knows from a handshake, lines of one name joined as HTTP has it."""

    def get(self, carrier: Handshake, key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1", "replace")
        found = [value.decode("latin-1") for name, value in carrier.headers if name.lower() == wanted]
        return [",".join(found)] if found else None

    def keys(self, carrier: Handshake) -> list[str]:
        return list({name.decode("latin-1").lower(): None for name, _ in carrier.headers})


_HEADERS = _Headers()


def _restore(token: Any) -> None:
    """Give the handler's task back the context that it had."""
    variable = getattr(token, "var", None)
    if variable is None:
        if token is not None:
            otel_context.detach(token)
        return
    with contextlib.suppress(ValueError):  # told in another context: the garbage collector closed the coroutine
        variable.reset(token)
