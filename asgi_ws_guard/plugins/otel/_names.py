"""
Find exporters and samplers by name, through OpenTelemetry's own entry-point groups.

Whatever is installed works by name; nothing is listed here but what "otlp" stands for. Only this plugin imports it.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ..._exceptions import ConfigurationError

SPANS, METRICS = "opentelemetry_traces_exporter", "opentelemetry_metrics_exporter"
GROUPS = (SPANS, METRICS)
INSTANCE = "an instance of SpanExporter, SpanProcessor, MetricExporter or MetricReader"

_SAMPLERS = "opentelemetry_traces_sampler"
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PROTOCOL_VARIABLES = {
    SPANS: ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    METRICS: ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
}


def find_exporter(name: str, group: str) -> tuple[str, Any] | None:
    """
    Find an exporter of one signal.

    Args:
        name: As in ``OTEL_TRACES_EXPORTER``, such as ``"otlp"`` or ``"console"``.
        group: `SPANS` or `METRICS`.

    Returns:
        Its name in the group, which is not the one asked for when that is ``"otlp"``, and what the entry point stands
        for; None if there is no such exporter of this signal.

    Raises:
        ConfigurationError: It is there but cannot be imported, or a variable asks for a protocol without an exporter.
    """
    own = _otlp(group) if name == "otlp" else name
    if own is None:
        return None
    found = _entry(group, own)
    if found is None:
        return None
    try:
        return own, found.load()
    except ImportError as error:
        what = f"cannot be imported from {found.value}: {error}"
    except AttributeError:
        what = f"is not in its own package: {found.value}"
    raise ConfigurationError("exporters", name, f"an exporter that works, but this one {what}")


def installed() -> list[str]:
    """List the names of the installed exporters, sorted."""
    names = {one.name for group in GROUPS for one in entry_points(group=group)}
    return sorted(names | ({"otlp"} if names & set(_PROTOCOLS.values()) else set()))


def find_sampler(name: str) -> Any:
    """
    Find a sampler's factory, which takes one argument.

    Raises:
        ConfigurationError: There is none.
    """
    found = _entry(_SAMPLERS, name)
    if found is None:
        names = ", ".join(sorted({one.name for one in entry_points(group=_SAMPLERS)}))
        raise ConfigurationError("sampler", name, f"one of {names}, a ratio from 0 to 1, or a Sampler")
    return found.load()


def _otlp(group: str) -> str | None:
    """
    Resolve "otlp" as the SDK's own configurator does: the variables, else gRPC.

    That keeps the meaning it has under ``opentelemetry-instrument`` in the same environment. Where only OTLP over HTTP
    is installed (it is what the extra brings) the configurator would fail; here HTTP is taken.
    """
    for variable in _PROTOCOL_VARIABLES[group]:
        protocol = os.environ.get(variable, "").strip()
        if not protocol:
            continue
        own = _PROTOCOLS.get(protocol)
        if own is None:
            raise ConfigurationError(variable, protocol, f"one of {', '.join(_PROTOCOLS)}")
        if _entry(group, own) is None:
            package = f"opentelemetry-exporter-{own.replace('_', '-')}"
            raise ConfigurationError(variable, protocol, f"its exporter to be installed: pip install {package}")
        return own
    return next((own for own in _PROTOCOLS.values() if _entry(group, own) is not None), None)


def _entry(group: str, name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None)
