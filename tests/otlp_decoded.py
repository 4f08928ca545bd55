"""
What OTLP says, as plain Python: decoded with the protocol's own messages.

A value's Python type is the type on the wire: ``str``, ``bool``, ``int``, ``float``, ``bytes``, a list or a dict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """Who made it, and for which service."""

    name: str
    version: str
    schema_url: str
    resource: Attributes


@dataclass(frozen=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True)
class SpanLink:
    """Another span that a span names; ids are hexadecimal."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(frozen=True)
class Span:
    """
    A span. Ids are hexadecimal, `parent_id` is empty for a root.

    Attributes:
        kind: Such as ``"SERVER"``.
        status: ``"UNSET"``, ``"OK"`` or ``"ERROR"``.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    status: str
    status_description: str
    scope: Scope


@dataclass(frozen=True)
class Point:
    """
    One value of a metric.

    Attributes:
        value: Of a sum or a gauge; the sum of a histogram.
        count: Of a histogram, else None.
        bounds: Upper bounds of a histogram's buckets.
        buckets: Counts of a histogram's buckets, one more than bounds.
    """

    attributes: Attributes
    value: int | float
    start_ns: int
    time_ns: int
    count: int | None = None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Metric:
    """
    One collection of one metric.

    Attributes:
        kind: ``"sum"``, ``"gauge"`` or ``"histogram"``.
        temporality: ``"CUMULATIVE"`` or ``"DELTA"``, empty for a gauge.
        is_monotonic: Whether it is a sum that only grows.
    """

    name: str
    unit: str
    description: str
    kind: str
    temporality: str
    is_monotonic: bool
    points: tuple[Point, ...]
    scope: Scope


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _scope(scoped: Any, resource: Any) -> Scope:
    return Scope(scoped.scope.name, scoped.scope.version, scoped.schema_url, _attributes(resource.attributes))


def spans_of(request: Any) -> list[Span]:
    """Decode the spans of an ``ExportTraceServiceRequest``."""
    return [
        Span(
            name=one.name,
            kind=one.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_"),
            trace_id=one.trace_id.hex(),
            span_id=one.span_id.hex(),
            parent_id=one.parent_span_id.hex(),
            start_ns=one.start_time_unix_nano,
            end_ns=one.end_time_unix_nano,
            attributes=_attributes(one.attributes),
            events=tuple(SpanEvent(at.name, at.time_unix_nano, _attributes(at.attributes)) for at in one.events),
            links=tuple(SpanLink(to.trace_id.hex(), to.span_id.hex(), _attributes(to.attributes)) for to in one.links),
            status=one.status.StatusCode.Name(one.status.code).removeprefix("STATUS_CODE_"),
            status_description=one.status.message,
            scope=_scope(scoped, of_resource.resource),
        )
        for of_resource in request.resource_spans
        for scoped in of_resource.scope_spans
        for one in scoped.spans
    ]


def metrics_of(request: Any) -> list[Metric]:
    """Decode the metrics of an ``ExportMetricsServiceRequest``."""
    return [
        _metric(one, _scope(scoped, of_resource.resource))
        for of_resource in request.resource_metrics
        for scoped in of_resource.scope_metrics
        for one in scoped.metrics
    ]


def _metric(one: Any, scope: Scope) -> Metric:
    kind = one.WhichOneof("data")
    data = getattr(one, kind)
    return Metric(
        name=one.name,
        unit=one.unit,
        description=one.description,
        kind=kind,
        temporality="" if kind == "gauge" else _TEMPORALITIES[data.aggregation_temporality],
        is_monotonic=kind == "sum" and data.is_monotonic,
        points=tuple(_point(point, kind) for point in data.data_points),
        scope=scope,
    )


_TEMPORALITIES = {0: "", 1: "DELTA", 2: "CUMULATIVE"}


def _point(point: Any, kind: str) -> Point:
    attributes, times = _attributes(point.attributes), (point.start_time_unix_nano, point.time_unix_nano)
    if kind == "histogram":
        return Point(
            attributes, point.sum, *times, point.count, tuple(point.explicit_bounds), tuple(point.bucket_counts)
        )
    return Point(attributes, getattr(point, point.WhichOneof("value")), *times)
