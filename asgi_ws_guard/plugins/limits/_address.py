"""
Whose address a client has: the peer's, or what proxies of your own say of it.

It believes nobody who is not configured, and never raises for what a client sends. A chain is read from its right end,
where the nearest proxy wrote, only as far as it is trusted: what a client invented stands to the left of that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from ..._events import Handshake
from ..._exceptions import ConfigurationError

UNKNOWN = "unknown"
"""Stands for all peers without an IP address: a unix socket, a test client."""

MAX_HOP_CHARS = 1024
"""An element of a chain that is longer is malformed; no proxy writes one."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, section 5.6.2
_PAIR = rf"({_TOKEN})=({_TOKEN}|\"(?:[^\"\\]|\\.)*\")"
_ELEMENT = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*", re.ASCII)
_PAIRS = re.compile(_PAIR, re.ASCII)
_QUOTED = re.compile(r"\\(.)")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)", re.ASCII)


class ClientAddress:
    """
    Give the key under which a client's address is counted.

    uvicorn may have put a proxy's word into the scope before (``--proxy-headers`` is on for 127.0.0.1 unless
    ``--forwarded-allow-ips`` says otherwise): then the peer is already the client, and no proxy is to be named here.

    Args:
        trusted_proxies: Networks of your own proxies, such as ``["10.0.0.0/8", "::1"]``, and ``"unix"`` for a peer
            without an address; the first address from the right that is none of them is the client's. Or their number,
            when nobody can reach the server around so many proxies. Empty: the peer's address counts.
        header: The one header that they write; the other is never read, for a proxy passes on what it does not know.
        ipv6_prefix: Bits of an IPv6 address that count, 1 to 128: one household or one machine has a /64 to itself.

    Raises:
        ConfigurationError: An option is not allowed.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str] | int = (),
        header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for",
        ipv6_prefix: int = 64,
    ) -> None:
        if header not in ("x-forwarded-for", "forwarded"):
            raise ConfigurationError("header", header, "'x-forwarded-for' or 'forwarded'")
        if isinstance(ipv6_prefix, bool) or not isinstance(ipv6_prefix, int) or not 1 <= ipv6_prefix <= 128:
            raise ConfigurationError("ipv6_prefix", ipv6_prefix, "a whole number, 1 to 128")
        self._header = header.encode("ascii")
        self._nodes = _forwarded if header == "forwarded" else _x_forwarded_for
        self._prefix = ipv6_prefix
        self._hops: int | None = None
        self._networks: tuple[_Network, ...] = ()
        self._trusts_unix = False
        self._read(trusted_proxies)

    def __call__(self, handshake: Handshake) -> str:
        """
        Give the key of a client.

        Args:
            handshake: What the client asked for.

        Returns:
            ``"192.0.2.1"``, ``"2001:db8::/64"`` or ``"unknown"``.
        """
        peer = "" if handshake.client is None else str(handshake.client[0])
        address, hop = _parse(peer), 0
        if self._trusts(address, hop) and (address is not None or not peer):
            for node in self._nodes(_joined(handshake, self._header)):
                found = _parse(node)
                if found is None:
                    break
                address, hop = found, hop + 1
                if not self._trusts(address, hop):
                    break
        return self._key(address)

    def _read(self, trusted: object) -> None:
        allowed = "networks such as '10.0.0.0/8', 'unix', or the number of proxies"
        if isinstance(trusted, int) and not isinstance(trusted, bool) and trusted >= 0:
            self._hops = trusted
            return
        if not isinstance(trusted, Iterable) or isinstance(trusted, str | bytes):
            raise ConfigurationError("trusted_proxies", trusted, allowed)
        networks = tuple(trusted)
        self._trusts_unix = "unix" in networks
        try:
            self._networks = tuple(ipaddress.ip_network(_text(one)) for one in networks if one != "unix")
        except ValueError as error:
            raise ConfigurationError("trusted_proxies", trusted, f"{allowed} ({error})") from error

    def _trusts(self, address: _Address | None, hop: int) -> bool:
        """Tell whether what stands at an address, so many hops away, is a proxy of ours."""
        if self._hops is not None:
            return hop < self._hops
        if address is None:
            return self._trusts_unix
        return any(address in network for network in self._networks)

    def _key(self, address: _Address | None) -> str:
        if address is None:
            return UNKNOWN
        if address.version == 4 or self._prefix == 128:
            return str(address)
        return str(ipaddress.ip_network((int(address), self._prefix), strict=False))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _joined(handshake: Handshake, name: bytes) -> str:
    """Join the lines of a header in their order, as RFC 9110, section 5.3, says they are to be read."""
    return ", ".join(value.decode("latin-1") for key, value in handshake.headers if key == name)


def _parse(node: str) -> _Address | None:
    """
    Read an address, with or without brackets and port; an IPv4 address in an IPv6 one is the IPv4 address.

    Returns:
        The address; None for ``unknown``, ``_obfuscated`` names (RFC 7239, section 6) and everything else.
    """
    match = _NODE.fullmatch(node.partition("%")[0] if node.count(":") > 1 and "]" not in node else node)
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    if match[1] and address.version == 4:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _x_forwarded_for(chain: str) -> Iterator[str]:
    """Give the nodes of ``X-Forwarded-For``, from the right."""
    end = len(chain)
    while end > 0:
        start = chain.rfind(",", 0, end) + 1
        yield chain[start:end][:MAX_HOP_CHARS].strip(" \t")
        end = start - 1


def _forwarded(chain: str) -> Iterator[str]:
    """Give the nodes of ``Forwarded``, from the right; empty for an element that RFC 7239, section 4, does not know."""
    end = len(chain)
    while end > 0:
        start = _element_start(chain, end)
        element = chain[start:end].strip(" \t")
        end = start - 1
        matches = _ELEMENT.fullmatch(element)
        values = [value for name, value in _PAIRS.findall(element) if name.lower() == "for"] if matches else []
        node = values[0] if len(values) == 1 else ""
        yield _QUOTED.sub(r"\1", node[1:-1]) if node.startswith('"') else node


def _element_start(chain: str, end: int) -> int:
    """
    Find the begin of an element: after the first comma to the left that is not within quotes.

    A quote that somebody left open further to the left must not reach here, so it is read from the right.

    Returns:
        Its index; what is longer than `MAX_HOP_CHARS` is cut there, and matches nothing.
    """
    first = max(0, end - MAX_HOP_CHARS)
    is_quoted = False
    for at in range(end - 1, first - 1, -1):
        if chain[at] == '"':
            before = chain[first:at]
            is_quoted ^= (len(before) - len(before.rstrip("\\"))) % 2 == 0
        elif chain[at] == "," and not is_quoted:
            return at + 1
    return first
