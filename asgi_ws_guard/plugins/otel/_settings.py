"""
The settings of exporters: endpoint, headers, sampler, interval. Each is checked when built.

A header's value stands in no error: where a check fails, the value shown is a placeholder. Only this plugin imports it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..._exceptions import ConfigurationError
from ._names import METRICS, SPANS, find_sampler

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

_PATHS = {SPANS: "/v1/traces", METRICS: "/v1/metrics"}
_HIDDEN = "<not shown>"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")
_HEADERS = "a mapping of names to printable ASCII values, or 'name=value,name=value' with percent-encoded values"
_RATIO_NAMES = ("traceidratio", "parentbased_traceidratio")
_SDK_SAMPLERS = (*_RATIO_NAMES, *("always_on", "always_off", "parentbased_always_on", "parentbased_always_off"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say, checked. None: it was not given, and the variables say it."""

    endpoint: str | None
    headers: dict[str, str] | None = field(repr=False)
    service_name: str | None
    sampler: Sampler | None
    export_interval_s: float | None

    def options_for(self, name: str, group: str, parameters: set[str]) -> dict[str, Any]:
        """
        Give what one exporter gets.

        Args:
            name: The exporter's name.
            group: Group of the signal.
            parameters: What it takes.

        Returns:
            Dict: parameter -> value; empty for what is not OTLP, whose endpoint would be another server.

        Raises:
            ConfigurationError: The endpoint does not suit it.
        """
        options: dict[str, Any] = {}
        if not name.startswith("otlp"):
            return options
        if self.endpoint is not None and "endpoint" in parameters:
            options["endpoint"] = _endpoint_for(self.endpoint, name, group)
        if self.headers is not None and "headers" in parameters:
            options["headers"] = self.headers
        return options

    def all_are_taken(self, taken: set[str]) -> None:
        """
        Check that what was given has an exporter.

        Raises:
            ConfigurationError: No exporter takes the endpoint, or the headers.
        """
        wanted = "an OTLP exporter by name among the exporters, or None"
        if self.endpoint is not None and "endpoint" not in taken:
            raise ConfigurationError("endpoint", _shown(self.endpoint), wanted)
        if self.headers is not None and "headers" not in taken:
            raise ConfigurationError("headers", _HIDDEN, wanted)


def check_settings(
    endpoint: object, headers: object, service_name: object, sampler: object, export_interval_s: object
) -> Settings:
    """
    Check the options that `build_providers` describes.

    Raises:
        ConfigurationError: One of them is not allowed.
    """
    return Settings(
        _endpoint(endpoint),
        _headers(headers),
        _service_name(service_name),
        _sampler(sampler),
        _interval(export_interval_s),
    )


def _endpoint(endpoint: object) -> str | None:
    if endpoint is None:
        return None
    if not isinstance(endpoint, str) or not endpoint or not endpoint.isprintable() or " " in endpoint:
        raise ConfigurationError("endpoint", _HIDDEN, "a URL such as 'http://localhost:4318', or host:port for gRPC")
    if urlsplit(endpoint).path.rstrip("/").endswith(tuple(_PATHS.values())):
        raise ConfigurationError("endpoint", _shown(endpoint), f"the base, without {' or '.join(_PATHS.values())}")
    return endpoint


def _endpoint_for(endpoint: str, name: str, group: str) -> str:
    if not name.endswith("http"):
        return endpoint
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("endpoint", _shown(endpoint), f"http:// or https:// and a host, for {name}")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + _PATHS[group]))


def _headers(headers: object) -> dict[str, str] | None:
    if headers is None:
        return None
    pairs: list[tuple[object, object]]
    if isinstance(headers, str):
        pairs = []
        for part in filter(None, map(str.strip, headers.split(","))):
            name, equals, text = part.partition("=")
            pairs.append((unquote(name).strip(), unquote(text).strip() if equals else None))
    elif isinstance(headers, Mapping):
        pairs = list(headers.items())
    else:
        raise ConfigurationError("headers", _HIDDEN, _HEADERS)
    checked = {}
    for one, value in pairs:
        is_text = isinstance(one, str) and isinstance(value, str)
        if not is_text or not _HEADER_NAME.fullmatch(str(one)) or not _HEADER_VALUE.fullmatch(str(value)):
            raise ConfigurationError("headers", _HIDDEN, _HEADERS)
        checked[str(one).lower()] = str(value)
    return checked


def _sampler(sampler: object) -> Sampler | None:
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler

    if isinstance(sampler, Sampler):
        return sampler
    if isinstance(sampler, int | float) and not isinstance(sampler, bool) and 0 <= sampler <= 1:
        return ParentBasedTraceIdRatio(float(sampler))
    if sampler is None:
        named = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
        if not named or named in _SDK_SAMPLERS:
            return None
        try:
            return _sampler_named(named)
        except ConfigurationError:
            return None  # the SDK says what it does not know, and takes its default
    if isinstance(sampler, str):
        return _sampler_named(sampler)
    raise ConfigurationError("sampler", sampler, "a name, a ratio from 0 to 1, or a Sampler")


def _interval(export_interval_s: object) -> float | None:
    value = export_interval_s
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError("export_interval_s", value, "a number of seconds, more than 0, or None")
    return float(value)


def _service_name(service_name: object) -> str | None:
    if service_name is not None and (not isinstance(service_name, str) or not service_name.strip()):
        raise ConfigurationError("service_name", service_name, "a text that is not empty, or None")
    return service_name


def _sampler_named(name: str) -> Sampler:
    from opentelemetry.sdk.trace.sampling import Sampler

    argument: str | float | None = os.environ.get("OTEL_TRACES_SAMPLER_ARG")
    if name in _RATIO_NAMES:
        try:
            argument = 1.0 if argument is None else float(argument)
        except ValueError:
            argument = math.nan
        if not 0 <= argument <= 1:
            raise ConfigurationError("OTEL_TRACES_SAMPLER_ARG", os.environ["OTEL_TRACES_SAMPLER_ARG"], "0 to 1")
    made = find_sampler(name)(argument)
    if not isinstance(made, Sampler):
        raise ConfigurationError("sampler", name, "the name of something that makes a Sampler")
    return made


def _shown(endpoint: str) -> str:
    """Leave out of an endpoint where passwords and keys are kept: before the host, and after the path."""
    return re.sub(r"[^/]*@", "", endpoint.partition("?")[0].partition("#")[0])
