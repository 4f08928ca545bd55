"""The origin policy: only what is listed, or the page's own host; whatever is not clear is denied."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard import Allow, ConfigurationError, Deny, Handshake
from asgi_ws_guard.plugins.origin import REASONS, Origin


def knock(
    origin: bytes | None = None,
    *,
    host: bytes | None = b"example.org",
    cookie: bool = True,
    scheme: str = "ws",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> Handshake:
    """Make a handshake with these headers."""
    headers = [*more]
    headers += [] if origin is None else [(b"origin", origin)]
    headers += [] if host is None else [(b"host", host)]
    headers += [(b"cookie", b"session=1")] if cookie else []
    return Handshake("/", b"", tuple(headers), ("127.0.0.1", 1), None, scheme, "1.1", (), True)


def verdict(policy: Origin, handshake: Handshake) -> str:
    """Give the reason of a denial, or ``"in"``."""
    answer = policy.admit(handshake)
    if isinstance(answer, Allow):
        return "in"
    assert answer.status == 403
    assert answer.reason in REASONS
    return answer.reason


LISTED = ("https://example.org", "https://*.shop.example", "http://localhost:3000", "https://[2001:db8::1]:8443")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (b"https://example.org", "in"),
        (b"https://example.org:443", "in"),
        (b"HTTPS://EXAMPLE.ORG", "in"),
        (b"https://example.org.", "in"),
        (b"http://localhost:3000", "in"),
        (b"https://[2001:db8:0:0:0:0:0:1]:8443", "in"),
        (b"https://[2001:DB8::1]:8443", "in"),
        (b"https://a.shop.example", "in"),
        (b"https://b.a.shop.example:443", "in"),
        (b"http://example.org", "not_listed"),
        (b"http://example.org:443", "not_listed"),
        (b"https://example.org:8443", "not_listed"),
        (b"https://www.example.org", "not_listed"),
        (b"https://shop.example", "not_listed"),
        (b"https://evilshop.example", "not_listed"),
        (b"https://a.shop.example.evil.example", "not_listed"),
        (b"http://a.shop.example", "not_listed"),
        (b"http://a.shop.example:443", "not_listed"),
        (b"https://a.shop.example:8443", "not_listed"),
        (b"http://localhost", "not_listed"),
        (b"http://127.0.0.1:3000", "not_listed"),
        (b"https://[2001:db8::2]:8443", "not_listed"),
        (b"chrome-extension://abcdefgh", "not_listed"),
        (b"null", "not_listed"),
    ],
)
def test_a_list_is_compared_by_scheme_host_and_port(origin: bytes, expected: str) -> None:
    """Default ports, upper case, a trailing dot, long IPv6 are the same; sub-domains only by a wildcard, on a dot."""
    assert verdict(Origin(LISTED), knock(origin)) == expected
    assert verdict(Origin(LISTED), knock(origin, cookie=False)) == expected


def test_with_a_list_the_own_host_does_not_count() -> None:
    """That stops DNS rebinding: the name of the attacker points to this server, and is its host."""
    assert verdict(Origin(LISTED), knock(b"http://evil.example", host=b"evil.example")) == "not_listed"
    assert verdict(Origin(LISTED), knock(b"https://example.org", host=None)) == "in"


MALFORMED = [
    *(
        b"",
        b"NULL",
        b" https://example.org",
        b"https://example.org ",
        b"https://example.org/",
        b"https://example.org/a",
    ),
    *(
        b"https://user@example.org",
        b"https://example.org@evil.example",
        b"https://example.org?q",
        b"https://example.org#f",
    ),
    *(b"https://example.org https://evil.example", b"https://example.org, https://evil.example", b"//example.org"),
    *(
        b"example.org",
        b"https:example.org",
        b"https://",
        b"https://:443",
        b"https://example.org:",
        b"https://a..example",
    ),
    *(b"https://example.org:99999", b"https://example.org:-1", b"https://example.org:4 43", b"https://.example.org"),
    *(b"https://[::1", b"https://::1", b"https://[::1%eth0]", b"https://[zz::]", b"https://[1.2.3.4]"),
    *(b"https://127.1", b"https://0x7f.0.0.1", b"https://2130706433", b"https://999.1.1.1", b"https://-a.example"),
    *(
        "https://bücher.example".encode(),
        b"https://b\xfccher.example",
        b"https://example.org\x00",
        b"https://exa\tmple.org",
    ),
    *(b"https://example.org\r\n", b"https://example.org\n", b"https://*.shop.example", b"https://\xe2\x80\xa8.example"),
    *(b"https://example.org\\@evil.example", b"https://example%2eorg", b"https://" + b"a" * 64 + b".example"),
]


@pytest.mark.parametrize("origin", MALFORMED)
@pytest.mark.parametrize("policy", [Origin(LISTED), Origin(), Origin(without_list="same_origin_with_cookie")])
def test_a_malformed_origin_is_denied(origin: bytes, policy: Origin) -> None:
    """With path, user, query, several values, control characters or non-ASCII bytes: 403, and the reason says so."""
    assert verdict(policy, knock(origin)) == "malformed_origin"
    assert verdict(policy, knock(origin, cookie=False)) == "malformed_origin"


def test_a_huge_origin_is_denied_unread() -> None:
    """One of 1 MB, or of a byte more than allowed; a host of the same size too."""
    for size in (1_000_000, 513):
        huge = b"https://" + b"a" * (size - 8)
        assert verdict(Origin(LISTED), knock(huge)) == "too_long"
        assert verdict(Origin(), knock(b"https://example.org", host=huge)) == "too_long"


def test_several_headers_are_denied() -> None:
    """Two origins, also equal ones, and two hosts: nobody knows which one others go by."""
    good = (b"origin", b"https://example.org")
    assert verdict(Origin(LISTED), knock(good[1], more=(good,))) == "several_origins"
    assert verdict(Origin(LISTED), knock(good[1], more=((b"origin", b"https://evil.example"),))) == "several_origins"
    for policy in (Origin(LISTED), Origin()):
        assert verdict(policy, knock(good[1], more=((b"host", b"example.org"),))) == "several_hosts"


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "expected"),
    [
        (b"http://example.org", b"example.org", "ws", "in"),
        (b"http://example.org", b"example.org:80", "ws", "in"),
        (b"http://example.org:80", b"EXAMPLE.org.", "ws", "in"),
        (b"https://example.org", b"example.org", "wss", "in"),
        # behind a proxy that ends TLS
        (b"https://example.org", b"example.org", "ws", "in"),
        (b"https://example.org", b"example.org:443", "ws", "in"),
        (b"http://localhost:8000", b"localhost:8000", "ws", "in"),
        (b"http://[::1]:8000", b"[0:0:0:0:0:0:0:1]:8000", "ws", "in"),
        (b"https://xn--bcher-kva.example", b"XN--BCHER-KVA.example", "ws", "in"),
        # a page of plain http may be anybody's where there is TLS
        (b"http://example.org", b"example.org", "wss", "not_same_origin"),
        (b"http://example.org:443", b"example.org:443", "wss", "not_same_origin"),
        (b"https://example.org", b"example.org:80", "ws", "not_same_origin"),
        (b"https://example.org:8443", b"example.org", "ws", "not_same_origin"),
        (b"http://localhost:3000", b"localhost:8000", "ws", "not_same_origin"),
        (b"http://localhost:8000", b"127.0.0.1:8000", "ws", "not_same_origin"),
        (b"https://www.example.org", b"example.org", "ws", "not_same_origin"),
        (b"https://evil.example", b"example.org", "ws", "not_same_origin"),
        (b"chrome-extension://example.org", b"example.org", "ws", "not_same_origin"),
        (b"ftp://example.org:80", b"example.org:80", "ws", "not_same_origin"),
        (b"null", b"null", "ws", "not_same_origin"),
        (b"https://example.org", None, "ws", "no_host"),
        (b"https://example.org", b"", "ws", "no_host"),
        (b"https://example.org", b"example.org:", "ws", "malformed_host"),
        (b"https://example.org", b"example.org/", "ws", "malformed_host"),
        (b"https://example.org", b"user@example.org", "ws", "malformed_host"),
        (b"https://example.org", b"ex\xe4mple.org", "ws", "malformed_host"),
        (b"https://example.org", b"example.org:70000", "ws", "malformed_host"),
        (b"https://example.org", b"example.org, evil.example", "ws", "malformed_host"),
    ],
)
def test_without_a_list_the_page_is_to_come_from_the_same_host(
    origin: bytes, host: bytes | None, scheme: str, expected: str
) -> None:
    """Host and port are compared, by default for every handshake that names an origin."""
    assert verdict(Origin(), knock(origin, host=host, scheme=scheme)) == expected
    assert verdict(Origin(), knock(origin, host=host, scheme=scheme, cookie=False)) == expected


def test_the_cookie_may_be_what_counts() -> None:
    """Then another site's page comes in without one, and only without."""
    policy = Origin(without_list="same_origin_with_cookie")
    assert verdict(policy, knock(b"https://evil.example", cookie=False)) == "in"
    assert verdict(policy, knock(b"https://evil.example")) == "not_same_origin"
    assert verdict(policy, knock(b"https://example.org")) == "in"


@pytest.mark.parametrize(
    ("missing", "with_cookie", "without"),
    [
        ("allow_without_cookie", "missing_origin", "in"),
        ("allow", "in", "in"),
        ("deny", "missing_origin", "missing_origin"),
    ],
)
@pytest.mark.parametrize("allowed", [(), LISTED])
def test_a_missing_origin_is_a_choice(missing: Any, with_cookie: str, without: str, allowed: tuple[str, ...]) -> None:
    """By default who is no browser comes in without a cookie, and does not with one."""
    policy = Origin(allowed, missing=missing)
    assert verdict(policy, knock()) == with_cookie
    assert verdict(policy, knock(cookie=False)) == without
    assert verdict(Origin(allowed), knock()) == "missing_origin"
    assert verdict(Origin(allowed), knock(cookie=False)) == "in"


def test_null_matches_only_where_it_is_listed() -> None:
    """Any site can make a page whose origin is null."""
    assert verdict(Origin(["null"]), knock(b"null")) == "in"
    assert verdict(Origin(["null"]), knock(b"https://example.org")) == "not_listed"


def test_what_a_proxy_says_counts_only_when_configured() -> None:
    """The first value is what the browser asked for; several headers are denied."""
    proxied = ((b"x-forwarded-host", b"example.org, inner"), (b"x-forwarded-proto", b"https, http"))
    asked = knock(b"https://example.org", host=b"10.0.0.5:8000", more=proxied)
    assert verdict(Origin(), asked) == "not_same_origin"
    assert verdict(Origin(forwarded=True), asked) == "in"
    plain = knock(b"http://example.org", host=b"10.0.0.5:8000", more=proxied)
    assert verdict(Origin(forwarded=True), plain) == "not_same_origin"
    twice = knock(b"https://example.org", more=(*proxied, (b"x-forwarded-host", b"evil.example")))
    assert verdict(Origin(forwarded=True), twice) == "several_hosts"
    assert verdict(Origin(forwarded=True), knock(b"https://example.org")) == "in"
    assert verdict(Origin(forwarded=True), knock(b"https://x.org", more=((b"x-forwarded-proto", b"\xff"),))) != "in"


@pytest.mark.parametrize("entry", ["https://bücher.example", "https://BÜCHER.example", "https://xn--bcher-kva.example"])
def test_both_forms_of_a_name_are_the_same(entry: str) -> None:
    """Browsers send the A-label; the list may hold the U-label, also behind a wildcard."""
    assert verdict(Origin([entry]), knock(b"https://xn--bcher-kva.example")) == "in"
    assert verdict(Origin([entry.replace("://", "://*.")]), knock(b"https://a.xn--bcher-kva.example")) == "in"
    assert verdict(Origin([entry]), knock(b"https://bucher.example")) == "not_listed"


def test_a_name_on_which_the_standards_differ_has_to_be_written_out() -> None:
    """IDNA 2003 makes ``ss`` of ``ß``: a name that somebody else may own."""
    for entry in (
        "https://straße.example",
        "https://\uff45xample.org",
        "https://βόλος.example",
        "https://a\u200db.example",
    ):
        with pytest.raises(ConfigurationError, match="xn--"):
            Origin([entry])


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "",
            "*",
            "https://*",
            "example.org",
            "https://example.org/",
            "https://a@example.org",
            "https://example.org:x",
        ),
        *("https://*.127.0.0.1", "https://*.[::1]", "https://a.*.example", "https://*example.org", "wss://example.org"),
        *("https://example.org:99999", "https://a..b", "NULL", "https://[::1", "https://exa mple.org", "https://127.1"),
        *(b"https://example.org", None, 7, "https://\ud800.example", "https://" + "a" * 64 + ".example"),
    ],
)
def test_a_wrong_entry_says_what_is_allowed(entry: Any) -> None:
    """When it is built, and with an example."""
    with pytest.raises(ConfigurationError, match=r"allowed=.*(https://example\.org|a wildcard before a name)"):
        Origin([entry])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"allowed": "https://example.org"}, "allowed"),
        ({"allowed": None}, "allowed"),
        ({"without_list": "deny"}, "without_list"),
        ({"missing": True}, "missing"),
        ({"forwarded": 1}, "forwarded"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], name: str) -> None:
    """The option, the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        Origin(**options)


NAMES = st.sampled_from([b"origin", b"host", b"cookie", b"x-forwarded-host", b"x-forwarded-proto", b"x"])
VALUES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: f"https://{text}".encode("utf-8", "replace")),
    st.sampled_from([b"https://example.org", b"null", b"example.org:443", b"https://a.shop.example"]),
    st.from_regex(rb"https?://[a-z0-9.:\[\]-]{1,30}(:[0-9]{1,6})?", fullmatch=True),
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.sampled_from([Origin(LISTED), Origin(), Origin(forwarded=True), Origin(without_list="same_origin_with_cookie")]),
    st.sampled_from(["ws", "wss", ""]),
)
def test_whatever_the_headers_are_there_is_an_answer(
    headers: list[tuple[bytes, bytes]], policy: Origin, scheme: str
) -> None:
    """Never an exception, and no reason beyond the finite set."""
    handshake = Handshake("/", b"", tuple(headers), None, None, scheme, "1.1", (), False)
    answer = policy.admit(handshake)
    assert isinstance(answer, Allow | Deny)
    if isinstance(answer, Deny):
        assert answer.reason in REASONS
