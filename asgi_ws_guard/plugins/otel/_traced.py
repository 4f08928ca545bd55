"""
What is kept of one connection until its spans are made, and what these spans say.

It makes a span when it is told to: it hears no events, and leaves the context of the handler alone. `tracing.py` does
both.
"""

from __future__ import annotations

from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from ..._events import Event, HandlerOutlived, MessageHandled, MessageLost, MessageSent, Terminal
from . import attributes as names
from . import describe
from .linking import HANDSHAKE_KEY
from .steps import step

MAX_EVENTS = 32
"""Span events of one connection; what finds no place is counted."""
RESERVED = 2
"""Of them for the accept and the close, which are not kept: the span's own times and attributes tell of them."""


class Traced:
    """
    One connection.

    Attributes:
        span: The handshake's, until it ends.
        link: Its span context, which stays.
        offset_ns: What the time of day is ahead of the event loop's clock.
        context: What the handler inherits.
        token: Gives the handler's task back the context that it had; None: another observer does.
        accepted_s: When it was accepted; None: not at all, or its span is made.
        route: Its route template, when one is known.
        identity: Who is behind it.
        events: The steps for its span: name, attributes, time of the loop.
        noted_before_close: How many of them came before the close.
        omitted: How many found no place.
    """

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
        """
        Begin with the handshake.

        Args:
            span: Its span.
            offset_ns: What the time of day is ahead of the event loop's clock.
        """
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

    def end_handshake(self, at_s: float, values: describe.Values, error: str | None) -> None:
        """
        End the handshake's span, unless it has ended.

        Args:
            at_s: When the answer was given.
            values: What it was.
            error: The value of `names.ERROR_TYPE`; None: no error.
        """
        span, self.span = self.span, None
        if span is None:
            return
        values |= {**describe.route(self.route), **self.identity}
        if self.route is not None:
            span.update_name(f"GET {values[names.HTTP_ROUTE]}")
        if error is not None:
            values[names.ERROR_TYPE] = error
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(values)
        span.end(self.at_ns(at_s))

    def make_connection_span(self, tracer: Tracer, event: HandlerOutlived | Terminal, error: str | None) -> None:
        """
        Make the span of a connection that is over, once, and only when it was accepted.

        Args:
            tracer: Makes it.
            event: Says that it is over.
            error: The value of `names.ERROR_TYPE`; None: no error.
        """
        if self.accepted_s is None:
            return
        route = describe.route(event.route)
        values = {names.CONNECTION_ID: event.connection_id, **route, **describe.end(event)}
        values |= self.identity
        if self.omitted:
            values[names.EVENTS_OMITTED] = self.omitted
        if error is not None:
            values[names.ERROR_TYPE] = error
        accepted_ns, ended_ns = self.at_ns(self.accepted_s), self.at_ns(event.at_s - event.lingered_s)
        span = tracer.start_span(
            " ".join(("websocket", *route.values())),
            context=trace.set_span_in_context(NonRecordingSpan(self.link), Context()),
            kind=SpanKind.INTERNAL,
            attributes=values,  # not set later: whatever is known at the start is validated once, and a sampler sees it
            links=[trace.Link(self.link)],
            start_time=accepted_ns,
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        noted, split = self.events or (), self.noted_before_close
        span.add_event("websocket.accept", None, accepted_ns)
        for name, described, at_s in noted[:split]:
            span.add_event(name, described, self.at_ns(at_s))
        span.add_event("websocket.close", None, ended_ns)
        for name, described, at_s in noted[split:]:
            span.add_event(name, described, self.at_ns(at_s))
        span.end(ended_ns)
        self.accepted_s = self.events = None

    def make_message_span(self, tracer: Tracer, event: MessageSent | MessageLost | MessageHandled) -> None:
        """
        Make the span of one message.

        Args:
            tracer: Makes it.
            event: What became of the message.
        """
        route = describe.route(self.route)
        values = {**describe.message(event), **route}
        span = tracer.start_span(
            " ".join(("websocket", values[names.IO_DIRECTION], *route.values())),
            context=_around(event, self.link),
            kind=SpanKind.INTERNAL,
            attributes=values,
            links=[trace.Link(self.link)],
            start_time=self.at_ns(event.at_s - event.took_s),
        )
        if isinstance(event, MessageLost) and event.error_type is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self.at_ns(event.at_s))


def _around(event: MessageSent | MessageLost | MessageHandled, link: SpanContext) -> Context:
    """Give the context of a message's span: the sender's own span, unless that is no more than a handshake's."""
    current, handshake = trace.get_current_span().get_span_context(), otel_context.get_value(HANDSHAKE_KEY)
    is_own = current.is_valid and current not in (handshake, link)
    return otel_context.get_current() if is_own and not isinstance(event, MessageHandled) else Context()
