"""
Who may open a WebSocket from a page of which site: the policy against cross-site hijacking.

A browser sends cookies with the handshake of any page, asks no permission first (no CORS for WebSockets) and names the
page in the header ``Origin`` (RFC 6454; RFC 6455, section 10.2). This policy compares that header; a client that is no
browser may send whatever it likes, so that it proves nothing about who the client is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .._events import Handshake
from .._exceptions import ConfigurationError
from .._plugin import ALLOW, Allow, Deny

Missing = Literal["allow_without_cookie", "allow", "deny"]
WithoutList = Literal["same_origin", "same_origin_with_cookie"]

MAX_ORIGIN_BYTES = 512
"""A host name has at most 253 characters (RFC 1035, section 2.3.4); scheme and port are short."""
REASONS = (
    *("several_origins", "several_hosts", "too_long", "malformed_origin", "malformed_host", "missing_origin"),
    *("no_host", "not_listed", "not_same_origin"),
)
"""Every reason that a denial can have."""

_ENTRY = "origins such as 'https://example.org', 'https://*.example.org', 'http://localhost:3000' or 'null'"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.I)
_HOST = re.compile(r"()(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.I)
_LISTED = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?(\[[0-9a-f:.]+\]|[^\s/?#@:*\\\[\]]+)(?::([0-9]{1,5}))?", re.I)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class _Refused(Exception):
    """A handshake is refused, for the reason that is its text."""


@dataclass(frozen=True, slots=True)
class _Site:
    scheme: str
    host: str
    port: int | None

    def port_or(self, scheme: str) -> int | None:
        return _DEFAULT_PORTS.get(scheme) if self.port is None else self.port


class Origin:
    """
    Admit browsers from known sites alone.

    Without a list a page may connect to the host that it came from. That stops other sites, but not DNS rebinding, by
    which another site's name points to this server: only a list does. With a list nothing else counts, not even the own
    host.

    Args:
        allowed: Origins such as ``"https://example.org"``, ``"https://*.example.org"`` (one or more labels in front,
            never the name itself) or ``"http://localhost:3000"``; ``"null"`` for pages without one (sandboxed frames,
            files: any site can make such a page). Names may hold non-ASCII letters. Empty: `without_list` decides.
        without_list: ``"same_origin"``: host and port as in ``Host``; or ``"same_origin_with_cookie"``: only when the
            handshake carries a cookie, anybody without one.
        missing: Clients that name no origin, which are no browsers: ``"allow_without_cookie"``, ``"allow"`` or
            ``"deny"``.
        forwarded: Whether a proxy in front sets ``X-Forwarded-Host`` and ``X-Forwarded-Proto`` and lets no client do
            so; they then stand for ``Host`` and the scheme.

    Raises:
        ConfigurationError: An option is not allowed.
    """

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        without_list: WithoutList = "same_origin",
        missing: Missing = "allow_without_cookie",
        forwarded: bool = False,
    ) -> None:
        if isinstance(allowed, str | bytes) or not isinstance(allowed, Sequence):
            raise ConfigurationError("allowed", allowed, f"a sequence of {_ENTRY}")
        if without_list not in ("same_origin", "same_origin_with_cookie"):
            raise ConfigurationError("without_list", without_list, "'same_origin' or 'same_origin_with_cookie'")
        if missing not in ("allow_without_cookie", "allow", "deny"):
            raise ConfigurationError("missing", missing, "'allow_without_cookie', 'allow' or 'deny'")
        if not isinstance(forwarded, bool):
            raise ConfigurationError("forwarded", forwarded, "True or False")
        self._allows_null = "null" in allowed
        listed = [_entry(one) for one in allowed if one != "null"]
        self._exact = frozenset(site for is_wild, site in listed if not is_wild)
        self._wild = tuple(site for is_wild, site in listed if is_wild)
        self._has_list = bool(allowed)
        self._without_list, self._missing, self._forwarded = without_list, missing, forwarded

    def admit(self, handshake: Handshake) -> Allow | Deny:
        """Answer an opening handshake by its origin."""
        try:
            self._check(handshake)
        except _Refused as refused:
            return Deny(status=403, reason=str(refused))
        return ALLOW

    def _check(self, handshake: Handshake) -> None:
        origin = _only(handshake, b"origin", "several_origins")
        host = _only(handshake, b"host", "several_hosts")
        has_cookie = any(name == b"cookie" for name, _ in handshake.headers)
        if origin is None:
            if self._missing == "deny" or (self._missing == "allow_without_cookie" and has_cookie):
                raise _Refused("missing_origin")
            return
        if origin == b"null":
            if not self._allows_null:
                raise _Refused("not_listed" if self._has_list else "not_same_origin")
            return
        site = _parsed(_ORIGIN, origin, "malformed_origin")
        if self._has_list:
            if not self._is_listed(site):
                raise _Refused("not_listed")
        elif has_cookie or self._without_list == "same_origin":
            self._check_same(site, host, handshake)

    def _is_listed(self, site: _Site) -> bool:
        if site in self._exact:
            return True
        near = (one for one in self._wild if (one.scheme, one.port) == (site.scheme, site.port))
        return any(site.host.endswith(f".{one.host}") for one in near)

    def _check_same(self, site: _Site, host: bytes | None, handshake: Handshake) -> None:
        """
        Compare an origin with the host that was asked for.

        A proxy that ends TLS hands on a ``ws`` handshake of an ``https`` page, so that ``ws`` says nothing about the
        page, and a ``Host`` without a port is taken by the page's scheme; over ``wss`` a page of plain ``http``, which
        anybody on the way may have written, is foreign.
        """
        scheme = handshake.scheme
        if self._forwarded:
            host = _first(_only(handshake, b"x-forwarded-host", "several_hosts")) or host
            proto = _first(_only(handshake, b"x-forwarded-proto", "several_hosts"))
            scheme = proto.decode("latin-1") if proto else scheme
        if not host:
            raise _Refused("no_host")
        asked = _parsed(_HOST, host, "malformed_host")
        is_page = site.scheme == "https" or (site.scheme == "http" and scheme.lower() not in ("wss", "https"))
        if not is_page or asked.host != site.host or asked.port_or(site.scheme) != site.port:
            raise _Refused("not_same_origin")


def _only(handshake: Handshake, name: bytes, several: str) -> bytes | None:
    found = [value for key, value in handshake.headers if key == name]
    if len(found) > 1:
        raise _Refused(several)
    return found[0] if found else None


def _first(values: bytes | None) -> bytes | None:
    """Give the first of a list: what the proxy next to the browser wrote."""
    return None if values is None else values.partition(b",")[0].strip()


def _parsed(pattern: re.Pattern[str], value: bytes, malformed: str) -> _Site:
    if len(value) > MAX_ORIGIN_BYTES:
        raise _Refused("too_long")
    try:
        match = pattern.fullmatch(value.decode("ascii"))
        if match is None:
            raise _Refused(malformed)
        return _site(*match.groups())
    except ValueError:
        raise _Refused(malformed) from None


def _site(scheme: str, host: str, port: str | None) -> _Site:
    scheme, number = scheme.lower(), None if port is None else int(port)
    if number is not None and number > 65535:
        raise ValueError("no port")
    return _Site(scheme, _canonical(host), _DEFAULT_PORTS.get(scheme) if number is None else number)


def _canonical(host: str) -> str:
    """Give the one spelling of a host: lower case, no trailing dot, addresses as the standard library writes them."""
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("no host name")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):  # an IPv4 address (WHATWG URL, "ends in a number")
        return str(ipaddress.IPv4Address(name))
    return name


def _entry(entry: object) -> tuple[bool, _Site]:
    match = _LISTED.fullmatch(entry) if isinstance(entry, str) else None
    if match is None:
        raise ConfigurationError("allowed", entry, f"{_ENTRY}, without a path")
    scheme, star, host, port = match.groups()
    if scheme.lower() in ("ws", "wss"):
        raise ConfigurationError("allowed", entry, f"the origin of the page, not of the socket: {_ENTRY}")
    try:
        site = _site(scheme, host if host.isascii() else ".".join(map(_a_label, host.split("."))), port)
    except ValueError as error:
        raise ConfigurationError("allowed", entry, f"{_ENTRY} ({error})") from None
    if star and (site.host.startswith("[") or site.host.rpartition(".")[2].isdigit()):
        raise ConfigurationError("allowed", entry, "a wildcard before a name, an address has no sub-domains")
    return bool(star), site


def _a_label(label: str) -> str:
    """
    Give the form of a label that browsers send.

    The standard library has IDNA 2003, browsers have UTS 46, non-transitional: where the two differ (``ß`` is ``ss`` in
    the one, a letter in the other) the name could be somebody else's, and the entry has to be written as ``xn--``.
    """
    coded = label.encode("idna").decode("ascii")
    if coded.encode("ascii").decode("idna") != label.lower():
        raise ValueError(f"write the label {label!r} in its form 'xn--...', IDNA 2003 and 2008 differ about it")
    return coded
