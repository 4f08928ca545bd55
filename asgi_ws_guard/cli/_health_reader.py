"""
Reads the health endpoint of a running service, for `verify`: no proxy, no redirect, bounded in time and size.

It knows the JSON of `plugins.health` and judges nothing. Imported by the modules of `verify`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ._address import Address, VerifyError

DEFAULT_PATH = "/ws-health/health"
MAX_BODY_BYTES = 2**20
_COUNTS = ("connecting", "open", "lingering", "zombies", "opened")


@dataclass(frozen=True)
class Reading:
    """
    How the connections of a service are at one time.

    Attributes:
        status: ``ok``, ``degraded`` or ``failing``.
        failing: Why it is failing: machine words.
        live: Connections that are open or opening.
        lingering: Handlers that are running although their connection has ended.
        zombies: Those of them that have outlived it for long.
        opened: Opening handshakes in all.
        dropped: Late sends that were dropped, reason -> count; empty where there is no ``/stats``.
        ends: Ends by class -> count; the same.
    """

    status: str
    failing: tuple[str, ...]
    live: int
    lingering: int
    zombies: int
    opened: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)


class HealthReader:
    """Where the health of a service is read."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """
        Take an address.

        Raises:
            VerifyError: It is no ``http://`` or ``https://`` address.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable():
            raise VerifyError("--health takes an address such as http://host:port/ws-health/health")
        self._host, self._port = host, port
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._path = parts.path or "/"
        self._query = f"?{parts.query}" if parts.query else ""
        self._timeout_s = timeout_s
        self.shown = f"{parts.scheme}://{host}:{port}{self._path}" if port else f"{parts.scheme}://{host}{self._path}"

    def read(self) -> Reading | None:
        """Read; None when there is no answer, or what comes is no health."""
        body = self._get(self._path)
        if body is None:
            return None
        stats = self._get(f"{self._path.removesuffix('/health').rstrip('/')}/stats") or {}
        try:
            counts = {name: int(body["connections"][name]) for name in _COUNTS}
            reasons = tuple(str(one["reason"]) for one in body["reasons"] if one["level"] == "failing")
            return Reading(
                status=str(body["status"]),
                failing=reasons,
                live=counts["connecting"] + counts["open"],
                lingering=counts["lingering"],
                zombies=counts["zombies"],
                opened=counts["opened"],
                dropped=_numbers(stats.get("messages", {}).get("dropped", {})),
                ends=_numbers(stats.get("ends_by_status", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # JSON may say Infinity
            return None

    def _get(self, path: str) -> dict[str, Any] | None:
        connection = self._kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("GET", path + self._query, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = json.loads(answer.read(MAX_BODY_BYTES)) if answer.status in (200, 503) else None
        except (OSError, http.client.HTTPException, ValueError, RecursionError):  # the last by brackets in brackets
            return None
        finally:
            connection.close()
        return body if isinstance(body, dict) else None


def guess(address: Address, timeout_s: float) -> HealthReader:
    """Return where the guard's option ``health_path`` puts it usually: on the same host and port."""
    scheme = "https" if address.uri.secure else "http"
    return HealthReader(f"{scheme}://{address.netloc}{DEFAULT_PATH}", timeout_s)


def _numbers(counts: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in counts.items()}
