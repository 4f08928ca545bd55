"""
Makes the spans of a handler roots of their own, with a link to the handshake of its connection.

A connection may live for hours; whoever wants a trace for each thing that its handler does, instead of one trace that
never ends, asks for this. A span processor sets the link, because the spans are the application's.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

HANDSHAKE_KEY = "asgi_ws_guard.handshake"
"""Where the handshake's span context stands in the OpenTelemetry context of the handler."""
_MARK = "_asgi_ws_guard_links_roots"


def root_context(handshake: SpanContext) -> Context:
    """
    Make the context of a handler whose spans are to be roots.

    Args:
        handshake: Span context of its handshake.

    Returns:
        The current context without a span, with the handshake under `HANDSHAKE_KEY`.
    """
    return otel_context.set_value(HANDSHAKE_KEY, handshake, trace.set_span_in_context(trace.INVALID_SPAN))


def current_link() -> SpanContext:
    """Give the span that something belongs to now: the current one; where a handler has none, its handshake."""
    current = trace.get_current_span().get_span_context()
    handshake = otel_context.get_value(HANDSHAKE_KEY)
    return handshake if not current.is_valid and isinstance(handshake, SpanContext) else current


def link_roots(provider: Any) -> None:
    """
    Let a provider link every root that starts in such a context, once however often it is asked for.

    Args:
        provider: A tracer provider of the SDK; others are left alone.
    """
    add = getattr(provider, "add_span_processor", None)
    if callable(add) and not getattr(provider, _MARK, False):
        setattr(provider, _MARK, True)
        add(RootLinker())


class RootLinker:
    """A span processor of the SDK; it imports nothing of it."""

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        """
        Link a span that has no parent.

        Args:
            span: A span of the SDK that has just started.
            parent_context: The context that it was started in, None: the current one.
        """
        handshake = otel_context.get_value(HANDSHAKE_KEY, parent_context)
        if span.parent is None and isinstance(handshake, SpanContext):
            span.add_link(handshake)

    def _on_ending(self, span: Any) -> None:
        """Let it end."""

    def on_end(self, span: Any) -> None:
        """Let it end."""

    def shutdown(self) -> None:
        """Hold nothing open."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """
        Hold nothing back.

        Args:
            timeout_millis: Not needed.
        """
        return True
