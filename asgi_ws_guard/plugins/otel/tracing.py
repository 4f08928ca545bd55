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
from contextvars import Token
from typing import Any, Literal

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode

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
from .linking import HANDSHAKE_KEY, link_roots, root_context
from .steps import step

MessageSpans = Literal["off", "all"] | float
HandlerSpans = Literal["children", "linked"]

_CONNECTION_KEY = "asgi_ws_guard.connection"
"""Where the connection's id stands in the OpenTelemetry context of its handler."""
MAX_EVENTS = 32
"""Span events of one connection; what finds no place is counted."""
RESERVED = 2
"""Of them for the accept and the close, which are not kept: the span's own times and attributes tell of them."""

# Built once: ``isinstance(event, A | B)`` makes the union anew each time, which takes longer than the look.
_MESSAGES = (MessageSent, MessageLost, MessageHandled)
_NOT_NOTED = (Accepted, Identified, Leaked)
_ANSWERS = (Abandoned, Rejected, HandlerOutlived)


class _Traced:
    """What is kept of one connection until its span is made."""

    __slots__ = (
        "accepted_s",
        "context",
        "events",
        "identity",
        "link",
        "noted_before_close",
        "offset_ns",
        "omitted",
        "route",
        "span",
        "token",
    )

    def __init__(self, span: Span, offset_ns: int) -> None:
        self.span: Span | None = span
        self.link: SpanContext = span.get_span_context()
        self.offset_ns = offset_ns
        self.context: Context | None = None
        self.token: Token[Context] | None = None
        self.accepted_s: float | None = None
        self.route: str | None = None
        self.identity: describe.Values = {}
        self.events: list[tuple[str, describe.Values, float]] | None = None
        self.noted_before_close = 0
        self.omitted = 0

    def at_ns(self, at_s: float) -> int:
        """Give the time of day of a moment of the event loop's clock, in nanoseconds."""
        return self.offset_ns + round(at_s * 1e9)

    def note(self, event: Event) -> None:
        """Keep an event for the connection's span, while there is room."""
        described = step(event)
        if described is None:
            return
        if self.events is None:
            self.events = []
        if len(self.events) < MAX_EVENTS - RESERVED:
            self.events.append((*described, event.at_s))
        else:
            self.omitted += 1


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
        self._live: dict[str, _Traced] = {}

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
            self._message(event, traced)
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
        traced = self._live[event.connection_id] = _Traced(span, at_ns - round(event.at_s * 1e9))
        if self._linked:
            link_roots(self._provider or trace.get_tracer_provider())
            around = root_context(traced.link)
        else:
            around = trace.set_span_in_context(span, before)
        traced.context = Context({**around, HANDSHAKE_KEY: traced.link, _CONNECTION_KEY: event.connection_id})
        token = otel_context.attach(traced.context)
        if otel_context.get_value(_CONNECTION_KEY, before) != event.connection_id:
            traced.token = token  # else another such observer gives back what was before both: it hears the end first

    def _accepted(self, event: Accepted, traced: _Traced) -> None:
        traced.accepted_s, traced.route = event.at_s, event.route
        values = {names.HTTP_STATUS: 101, names.CONNECTION_RESULT: names.ACCEPTED}
        self._answered(traced, event.at_s, values, None)
        if not self._linked and otel_context.get_current() is traced.context:
            # The handler keeps the context for as long as it runs, and must not keep the span for as long.
            traced.context = trace.set_span_in_context(NonRecordingSpan(traced.link), traced.context)
            otel_context.attach(traced.context)

    def _answered(self, traced: _Traced, at_s: float, values: describe.Values, error: str | None) -> None:
        """End the handshake's span, unless it has ended."""
        span, traced.span = traced.span, None
        if span is None:
            return
        values |= {**describe.route(traced.route), **traced.identity}
        if traced.route is not None:
            span.update_name(f"GET {values[names.HTTP_ROUTE]}")
        if error is not None:
            values[names.ERROR_TYPE] = error
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(values)
        span.end(traced.at_ns(at_s))

    def _over(self, event: HandlerOutlived | Terminal, traced: _Traced) -> None:
        """Make the span of a connection that is over, once; or end that of a handshake without an accept."""
        traced.route = event.route
        ended_s, error = event.at_s - event.lingered_s, describe.error(event)
        if isinstance(event, _ANSWERS):
            self._answered(traced, ended_s, describe.answer(event), error)
        if traced.accepted_s is None:
            return
        route = describe.route(event.route)
        values = {names.CONNECTION_ID: event.connection_id, **route, **describe.end(event)}
        values |= traced.identity
        if traced.omitted:
            values[names.EVENTS_OMITTED] = traced.omitted
        if error is not None:
            values[names.ERROR_TYPE] = error
        accepted_ns, ended_ns = traced.at_ns(traced.accepted_s), traced.at_ns(ended_s)
        span = self._tracer.start_span(
            " ".join(("websocket", *route.values())),
            context=trace.set_span_in_context(NonRecordingSpan(traced.link), Context()),
            kind=SpanKind.INTERNAL,
            attributes=values,  # not set later: whatever is known at the start is validated once, and a sampler sees it
            links=[trace.Link(traced.link)],
            start_time=accepted_ns,
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        noted, split = traced.events or (), traced.noted_before_close
        span.add_event("websocket.accept", None, accepted_ns)
        for name, described, at_s in noted[:split]:
            span.add_event(name, described, traced.at_ns(at_s))
        span.add_event("websocket.close", None, ended_ns)
        for name, described, at_s in noted[split:]:
            span.add_event(name, described, traced.at_ns(at_s))
        span.end(ended_ns)
        traced.accepted_s = traced.events = None

    def _message(self, event: MessageSent | MessageLost | MessageHandled, traced: _Traced) -> None:
        if self._share < 1 and random.random() >= self._share:
            return
        values = {**describe.message(event), **describe.route(traced.route)}
        span = self._tracer.start_span(
            " ".join(("websocket", values[names.IO_DIRECTION], *describe.route(traced.route).values())),
            context=_around(event, traced),
            kind=SpanKind.INTERNAL,
            attributes=values,
            links=[trace.Link(traced.link)],
            start_time=traced.at_ns(event.at_s - event.took_s),
        )
        if isinstance(event, MessageLost) and event.error_type is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(traced.at_ns(event.at_s))


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


def _around(event: MessageSent | MessageLost | MessageHandled, traced: _Traced) -> Context:
    """Give the context of a message's span: the sender's own span, unless that is no more than a handshake's."""
    current, handshake = trace.get_current_span().get_span_context(), otel_context.get_value(HANDSHAKE_KEY)
    is_own = current.is_valid and current not in (handshake, traced.link)
    return otel_context.get_current() if is_own and not isinstance(event, MessageHandled) else Context()


def _restore(token: Any) -> None:
    """Give the handler's task back the context that it had."""
    variable = getattr(token, "var", None)
    if variable is None:
        if token is not None:
            otel_context.detach(token)
        return
    with contextlib.suppress(ValueError):  # told in another context: the garbage collector closed the coroutine
        variable.reset(token)
