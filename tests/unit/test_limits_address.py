"""Whose address a client has: chains of proxies, forged and malformed ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from newcomers import handshake

from asgi_ws_guard import ConfigurationError
from asgi_ws_guard.plugins.limits import ClientAddress

PROXY = "10.0.0.1"


def key(address: ClientAddress, *lines: str, peer: str | None = PROXY, header: str = "x-forwarded-for") -> str:
    """Give the key of a client whose handshake has these header lines."""
    headers = tuple((header.encode(), line.encode("latin-1")) for line in lines)
    return address(handshake(client=None if peer is None else (peer, 50000), headers=headers))


BEHIND = ClientAddress(trusted_proxies=["10.0.0.0/8", "2001:db8:ffff::/48"])
RFC7239 = ClientAddress(trusted_proxies=["10.0.0.0/8", "2001:db8:ffff::/48"], header="forwarded")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "unknown"),
        ("/run/app.sock", "unknown"),
        ("192.0.2.256", "unknown"),
        ("192.0.2.01", "unknown"),
        ("1" * 5000, "unknown"),
    ],
)
def test_peers(peer: str | None, expected: str) -> None:
    """An IPv6 address counts by its /64, a mapped one as what it is; all that is none shares one key."""
    assert key(ClientAddress(), peer=peer) == expected


@pytest.mark.parametrize(("prefix", "expected"), [(48, "2001:db8:1::/48"), (128, "2001:db8:1:2::9"), (1, "::/1")])
def test_the_prefix_is_a_choice(prefix: int, expected: str) -> None:
    """So many bits of an IPv6 address count; an IPv4 address always counts as a whole."""
    address = ClientAddress(ipv6_prefix=prefix)
    assert key(address, peer="2001:db8:1:2::9") == expected
    assert key(address, peer="192.0.2.1") == "192.0.2.1"


def test_nobody_is_believed_unasked() -> None:
    """Without a proxy of ours, and from a peer that is none, no header says anything."""
    assert key(ClientAddress(), "6.6.6.6") == PROXY
    assert key(BEHIND, "6.6.6.6", peer="192.0.2.1") == "192.0.2.1"
    assert key(BEHIND, "for=6.6.6.6", header="forwarded") == PROXY
    assert key(RFC7239, "6.6.6.6") == PROXY
    assert key(BEHIND, "6.6.6.6", peer=None) == "unknown"
    assert key(BEHIND, "6.6.6.6", peer="testclient") == "unknown"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::/64"),
        (["[2001:db8::1]"], "2001:db8::/64"),
        (["[2001:db8::1]:4711"], "2001:db8::/64"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6,192.0.2.1 ,\t10.0.0.9"], "192.0.2.1"),
        (["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1", "10.0.0.9"], "192.0.2.1"),
        (["2001:db8:ffff::5, ::ffff:10.1.1.1"], "2001:db8:ffff::/64"),
        (["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ([], PROXY),
        ([""], PROXY),
        (["6.6.6.6, "], PROXY),
        (["6.6.6.6", ""], PROXY),
        (["6.6.6.6, unknown"], PROXY),
        (["6.6.6.6, _hidden"], PROXY),
        (["6.6.6.6, nonsense, 10.0.0.9"], "10.0.0.9"),
        (["6.6.6.6, 10.0.0.999"], PROXY),
        (["6.6.6.6, [10.0.0.9]"], PROXY),
        (["6.6.6.6, 10.0.0.9:"], PROXY),
        (["6.6.6.6, [::1"], PROXY),
        (["6.6.6.6, 10.0.0.9:port"], PROXY),
        (["6.6.6.6, 10.0.0.9 10.0.0.8"], PROXY),
        (["6.6.6.6, \u00b9\u00b2.0.0.1"], PROXY),
        (['6.6.6.6, "10.0.0.9"'], PROXY),
    ],
)
def test_x_forwarded_for(lines: list[str], expected: str) -> None:
    """From the right, the first that is no proxy of ours; where it stops making sense, the last that did."""
    assert key(BEHIND, *lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=192.0.2.1"], "192.0.2.1"),
        (["For=192.0.2.1;Proto=https;by=203.0.113.43"], "192.0.2.1"),
        (['for="192.0.2.1:4711"'], "192.0.2.1"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::/64"),
        (['FOR="[2001:db8::1]"'], "2001:db8::/64"),
        (['for="\\192.0.2.1"'], "192.0.2.1"),
        (["for=6.6.6.6, for=192.0.2.1", 'proto=http; for="10.0.0.9" ; by=x'], "192.0.2.1"),
        (['for=6.6.6.6, for=192.0.2.1;host="a, for=10.0.0.3"'], "192.0.2.1"),
        (['for=6.6.6.6, for=192.0.2.1;host="\\", for=10.0.0.3"'], "192.0.2.1"),
        (['for="', "for=192.0.2.1"], "192.0.2.1"),
        (['for=6.6.6.6;a=", for=192.0.2.1, for="10.0.0.9"'], "192.0.2.1"),
        (['for=6.6.6.6;a="\\', 'for="10.0.0.9"'], "10.0.0.9"),
        (["for=6.6.6.6, for=unknown"], PROXY),
        (["for=6.6.6.6, for=_gazonk"], PROXY),
        (['for=6.6.6.6, for="_gazonk:_port"'], PROXY),
        (["for=6.6.6.6, proto=https"], PROXY),
        (["for=6.6.6.6, for=10.0.0.2;for=10.0.0.3"], PROXY),
        (["for=6.6.6.6, for=2001:db8::1"], PROXY),
        (["for=6.6.6.6, for=10.0.0.9;"], PROXY),
        (["for=6.6.6.6, for=10.0.0.9;;proto=http"], PROXY),
        (["for=6.6.6.6, 10.0.0.9"], PROXY),
        (["for=6.6.6.6, for = 10.0.0.9"], PROXY),
        (['for=6.6.6.6, for="10.0.0.9'], PROXY),
        (['for=6.6.6.6, for="10.0.0.9" x'], PROXY),
        (["for=6.6.6.6, for="], PROXY),
        ([""], PROXY),
    ],
)
def test_forwarded(lines: list[str], expected: str) -> None:
    """The same of RFC 7239: quoted strings, brackets, ports, obfuscated names, and quotes that somebody left open."""
    assert key(RFC7239, *lines, header="forwarded") == expected


def test_a_number_of_proxies() -> None:
    """So many hops are believed whatever their addresses; a chain that is shorter gives its left end."""
    one, two = ClientAddress(trusted_proxies=1), ClientAddress(trusted_proxies=2)
    assert key(one, "6.6.6.6, 192.0.2.1", peer="203.0.113.1") == "192.0.2.1"
    assert key(two, "6.6.6.6, 192.0.2.1, 203.0.113.2", peer="203.0.113.1") == "192.0.2.1"
    assert key(two, "192.0.2.1", peer="203.0.113.1") == "192.0.2.1"
    assert key(two, "6.6.6.6, nonsense, 203.0.113.2", peer="203.0.113.1") == "203.0.113.2"
    assert key(one, peer="203.0.113.1") == "203.0.113.1"
    assert key(one, "192.0.2.1", peer=None) == "192.0.2.1"
    assert key(ClientAddress(trusted_proxies=0), "6.6.6.6") == PROXY


def test_a_proxy_on_a_unix_socket() -> None:
    """A peer without an address is believed when that is said, and only such a peer."""
    address = ClientAddress(trusted_proxies=["unix"])
    assert key(address, "6.6.6.6, 192.0.2.1", peer=None) == "192.0.2.1"
    assert key(address, peer=None) == "unknown"
    assert key(address, "6.6.6.6", peer="192.0.2.7") == "192.0.2.7"
    assert key(address, "6.6.6.6", peer="nonsense") == "unknown"


FOREIGN = st.ip_addresses().filter(lambda one: not str(one).startswith(("10.", "2001:db8:ffff:")))
JUNK = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40), st.sampled_from(["unknown", '"', "\\", ",", ";"])
)
FORGED = st.lists(st.one_of(JUNK, FOREIGN.map(str), st.just("10.0.0.66"), st.just('for="10.0.0.66";a="')), max_size=6)
OWN = st.lists(st.integers(2, 250), max_size=3)


@given(forged=FORGED, client=st.ip_addresses(v=4), own=OWN, one_line=st.booleans())
def test_whatever_is_forged_the_client_is_found(forged: list[str], client: Any, own: list[int], one_line: bool) -> None:
    """What a client sent stands to the left of what our first proxy wrote: it never changes the answer."""
    for address, form, header in ((BEHIND, "{}", "x-forwarded-for"), (RFC7239, 'for="{}"', "forwarded")):
        written = [form.format(one) for one in (client, *(f"10.0.0.{number}" for number in own))]
        lines = [", ".join([*forged, *written])] if one_line else [*forged, *written]
        expected = str(client) if str(client).split(".")[0] != "10" else None
        found = key(address, *lines, header=header)
        assert expected is None or found == expected


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=200), max_size=4), st.text(max_size=50))
def test_nothing_raises(lines: list[str], peer: str) -> None:
    """Whatever arrives gives a key."""
    for address in (BEHIND, RFC7239, ClientAddress(trusted_proxies=3, header="forwarded")):
        for header in ("x-forwarded-for", "forwarded"):
            assert key(address, *lines, header=header)
            assert key(address, *lines, header=header, peer=peer)


@pytest.mark.parametrize("sign", [",", '"', "\\", "a=b;", "10.0.0.2,", 'for=10.0.0.2;a="', "for=10.0.0.2,"])
def test_a_long_chain_costs_little(sign: str) -> None:
    """64 KiB of anything, as much as a server takes, are read in a bounded number of steps."""
    line = (sign * 65536)[:65536]
    for address, header in ((BEHIND, "x-forwarded-for"), (RFC7239, "forwarded")):
        assert key(address, line + ", 10.0.0.9", header=header) in (PROXY, "10.0.0.9", "10.0.0.2")


@pytest.mark.parametrize(
    "options",
    [
        {"trusted_proxies": "10.0.0.0/8"},
        {"trusted_proxies": ["10.0.0.1/8"]},
        {"trusted_proxies": ["proxy.example"]},
        {"trusted_proxies": [1]},
        {"trusted_proxies": -1},
        {"trusted_proxies": True},
        {"trusted_proxies": None},
        {"header": "x-real-ip"},
        {"ipv6_prefix": 0},
        {"ipv6_prefix": 129},
        {"ipv6_prefix": "64"},
        {"ipv6_prefix": True},
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """A wrong option is said when it is built."""
    with pytest.raises(ConfigurationError) as raised:
        ClientAddress(**options)
    assert raised.value.option in options
