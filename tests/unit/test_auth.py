"""The policy Auth: where a token is found, what an authenticator may answer, and that nobody gets in by accident."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
from typing import Any

import pytest
from handshakes import handshake
from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard import Allow, Close, CloseStatus, ConfigurationError, Deny, Drop, Handshake, Identity
from asgi_ws_guard.plugins.auth import (
    REASONS,
    Auth,
    Found,
    Source,
    Tickets,
    bearer_header,
    cookie,
    jwt,
    query,
    subprotocol,
    tokens,
)

TOKEN = "s3cr3t-token"
ANN = tokens({TOKEN: "ann"})
BEARER = (b"authorization", f"Bearer {TOKEN}".encode())


def ask(policy: Auth, asked: Handshake) -> Allow | Deny:
    """Ask a policy, and check what holds for every answer."""
    answer = asyncio.run(policy.admit(asked))
    assert isinstance(answer, Allow | Deny)
    assert TOKEN not in repr(answer)
    return answer


def verdict(policy: Auth, asked: Handshake) -> object:
    """Give the subject, or the reason of the denial."""
    answer = ask(policy, asked)
    if isinstance(answer, Deny):
        return answer.reason
    return None if answer.identity is None else answer.identity.subject


# --- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (bearer_header(), handshake(BEARER)),
        (bearer_header(), handshake((b"authorization", b"bearer   s3cr3t-token "))),
        (cookie("session"), handshake((b"cookie", b"a=b; session=s3cr3t-token; xsession=no"))),
        (cookie("session"), handshake((b"cookie", b"a=b"), (b"cookie", b'session="s3cr3t-token"'))),
        (cookie("session"), handshake((b"cookie", b"session=s3cr3t-token;session=s3cr3t-token"))),
        (query("ticket"), handshake(query=b"a=b&ticket=s3cr3t-token&xticket=no")),
        (query("ticket"), handshake(query=b"ticket=s3cr3t%2dtoken")),
        (subprotocol(), handshake(subprotocols=("chat", "bearer", TOKEN))),
        (subprotocol("access.token"), handshake(subprotocols=("access.token", TOKEN, "chat"))),
        ((bearer_header(), query("ticket")), handshake(query=b"ticket=s3cr3t-token")),
        ([query("ticket"), bearer_header()], handshake(BEARER, query=b"ticket=s3cr3t-token")),
        (lambda asked: Found(asked.path[1:]), handshake(path=f"/{TOKEN}")),
    ],
)
def test_a_token_is_found(source: Any, asked: Handshake) -> None:
    """Where it is looked for, and nowhere else."""
    assert verdict(Auth(ANN, source=source), asked) == "ann"


SOURCES = [bearer_header(), cookie("session"), query("ticket"), subprotocol()]


@pytest.mark.parametrize(
    "asked",
    [
        handshake(),
        handshake((b"authorization", b"Basic YTpi"), (b"cookie", b"other=1"), query=b"other=1", subprotocols=("chat",)),
        handshake((b"authorization", b"Bearer"), (b"cookie", b"session="), query=b"ticket=&ticket"),
        handshake((b"authorization", b"Bearer "), (b"cookie", b";=;;session"), query=b"&&=&", subprotocols=("bearer",)),
        handshake((b"authorization", b""), subprotocols=("bearer", "")),
    ],
)
def test_who_shows_nothing_is_told_how(asked: Handshake) -> None:
    """401 with a challenge and without an error (RFC 6750, section 3.1), by every source."""
    everywhere: list[Any] = [*SOURCES, SOURCES]
    for source in everywhere:
        answer = ask(Auth(ANN, source=source), asked)
        assert isinstance(answer, Deny)
        assert (answer.status, answer.reason, answer.end) == (401, "no_token", CloseStatus.UNAUTHORIZED)
        assert dict(answer.headers)[b"www-authenticate"] == b"Bearer"


@pytest.mark.parametrize(
    ("source", "asked", "reason"),
    [
        (bearer_header(), handshake(BEARER, BEARER), "several_tokens"),
        (bearer_header(), handshake((b"authorization", b"Bearer \xff\xfe")), "malformed"),
        (cookie("session"), handshake((b"cookie", b"session=s3cr3t-token; session=other")), "several_tokens"),
        (cookie("session"), handshake((b"cookie", b"session=\xc3\xa4")), "malformed"),
        (query("ticket"), handshake(query=b"ticket=s3cr3t-token&ticket=other"), "several_tokens"),
        (query("ticket"), handshake(query=b"ticket=%ff"), "malformed"),
        (subprotocol(), handshake(subprotocols=("bearer", TOKEN, "bearer", "other")), "several_tokens"),
        (subprotocol(), handshake(subprotocols=("bearer", TOKEN, "bearer")), "malformed"),
        (subprotocol(), handshake(subprotocols=("bearer", "s3cr3t-tokén")), "malformed"),
        (subprotocol(), handshake(subprotocols=("bearer", "\ud800")), "malformed"),
        (lambda asked: Found("tökén"), handshake(), "malformed"),
    ],
)
def test_what_is_not_clear_is_a_bad_request(source: Source, asked: Handshake, reason: str) -> None:
    """Several different tokens, or bytes that are none: 400 and ``invalid_request``."""
    answer = ask(Auth(ANN, source=source), asked)
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (400, reason)
    assert dict(answer.headers)[b"www-authenticate"] == b'Bearer error="invalid_request"'


def test_a_wrong_token_is_an_invalid_token() -> None:
    """401 with the error of RFC 6750, and nothing of the token."""
    answer = ask(Auth(ANN, source=bearer_header()), handshake((b"authorization", b"Bearer s3cr3t-tokex")))
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason, answer.end) == (401, "rejected", CloseStatus.UNAUTHORIZED)
    assert dict(answer.headers)[b"www-authenticate"] == b'Bearer error="invalid_token"'


def test_the_token_among_the_subprotocols_is_hidden_and_not_echoed() -> None:
    """The client is answered with the prefix; the token is for the policy alone."""
    answer = ask(Auth(ANN, source=subprotocol()), handshake(subprotocols=("bearer", TOKEN, "chat")))
    assert isinstance(answer, Allow)
    assert answer.subprotocol == "bearer"
    assert answer.hidden_subprotocols == (TOKEN,)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (bearer_header(), handshake((b"authorization", b"Bearer " + b"x" * 1_000_000))),
        (cookie("session"), handshake((b"cookie", b"session=" + b"x" * 1_000_000))),
        (query("ticket"), handshake(query=b"ticket=" + b"%41" * 350_000)),
        (subprotocol(), handshake(subprotocols=("bearer", "x" * 1_000_000))),
        (bearer_header(), handshake((b"authorization", b"Bearer " + b"x" * 8193))),
    ],
)
def test_a_token_of_a_megabyte_is_refused_unseen(source: Source, asked: Handshake) -> None:
    """Before any authenticator sees it; one of exactly `max_token_bytes` is seen."""
    seen: list[str] = []
    assert verdict(Auth(seen.append, source=source), asked) == "too_long"
    assert not seen
    at_most = handshake((b"authorization", b"Bearer " + b"x" * 8192))
    assert verdict(Auth(seen.append, source=bearer_header()), at_most) == "rejected"
    assert len(seen) == 1


# --- answers ---------------------------------------------------------------------------------------


class Unhashable:
    """Raises where it is hashed."""

    def __hash__(self) -> int:
        raise ValueError(TOKEN)


SOON = time.time() + 600
OWN = Deny(status=402, reason="unpaid")
ANSWERS: list[tuple[Any, object]] = [
    ("ann", "ann"),
    (7, 7),
    (0, 0),
    (("tenant", 7), ("tenant", 7)),
    (Identity("ann"), "ann"),
    (Identity("ann", SOON), "ann"),
    (Allow(identity=Identity("ann")), "ann"),
    (Allow(), None),
    (None, "rejected"),
    (False, "rejected"),
    ("", "rejected"),
    (b"", "rejected"),
    (OWN, "unpaid"),
    (True, "not_an_identity"),
    (Close(), "not_an_identity"),
    (Drop(), "not_an_identity"),
    (Identity(None), "not_an_identity"),
    (Identity(True), "not_an_identity"),
    (Identity(Identity("ann")), "not_an_identity"),
    (handshake(), "not_an_identity"),
    ([], "unhashable"),
    ({"sub": "ann"}, "unhashable"),
    (Unhashable(), "unhashable"),
    (Identity(["ann"]), "unhashable"),  # type: ignore[arg-type]
    (Allow(identity=Identity({"a"})), "unhashable"),  # type: ignore[arg-type]
    (("ann", []), "unhashable"),
    (Identity("ann", time.time() - 1), "expired"),
    (Identity("ann", float("nan")), "not_an_identity"),
    (Identity("ann", float("inf")), "not_an_identity"),
    (Identity("ann", "tomorrow"), "not_an_identity"),  # type: ignore[arg-type]
    (Identity("ann", True), "not_an_identity"),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_is_an_identity_or_a_denial(answer: Any, expected: object, is_async: bool) -> None:
    """A hashable subject comes in; what is none, or stands for nobody in particular, does not; sync or async."""

    async def later(_: object) -> Any:
        await asyncio.sleep(0)
        return answer

    policy = Auth(later if is_async else lambda _: answer)
    assert verdict(policy, handshake()) == expected
    found = ask(policy, handshake())
    if isinstance(found, Deny) and found is not OWN:
        assert found.status == (500 if expected in ("unhashable", "not_an_identity") else 401)


def test_the_callable_is_given_the_handshake_without_a_source_and_the_token_with_one() -> None:
    """One argument, either way."""
    seen: list[object] = []
    asked = handshake(BEARER)
    ask(Auth(seen.append), asked)
    ask(Auth(seen.append, source=bearer_header()), asked)
    assert seen == [asked, TOKEN]


def test_what_an_allow_of_the_users_lays_down_is_kept() -> None:
    """Subprotocol and hidden offers of both are there."""
    own = Allow(identity=Identity("ann"), subprotocol="chat", hidden_subprotocols=("x",))
    answer = ask(Auth(lambda _: own, source=subprotocol()), handshake(subprotocols=("bearer", TOKEN)))
    assert isinstance(answer, Allow)
    assert (answer.subprotocol, answer.hidden_subprotocols) == ("chat", ("x", TOKEN))


@pytest.mark.parametrize("where", ["authenticate", "async", "source", "hash", "label", "found"])
def test_whatever_raises_denies_and_its_text_is_not_told(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """A `KeyError` has the token for its text: the type and the place are logged, and nothing else."""

    def fails(token: object) -> Any:
        raise KeyError(TOKEN, token)

    async def fails_later(token: object) -> Any:
        raise KeyError(TOKEN, token)

    policy = {
        "authenticate": Auth(fails, source=bearer_header()),
        "async": Auth(fails_later, source=bearer_header()),
        "source": Auth(ANN, source=fails),
        "hash": Auth(lambda _: "ann", label=fails),
        "label": Auth(lambda _: Identity("ann"), label=fails),
        "found": Auth(ANN, source=lambda _: TOKEN),  # type: ignore[arg-type,return-value]
    }[where]
    with caplog.at_level(logging.DEBUG):
        answer = ask(policy, handshake(BEARER))
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (500, "failed")
    assert TOKEN not in caplog.text
    assert ("KeyError at" in caplog.text and "test_auth.py:" in caplog.text) == (where != "found")


def test_an_authenticator_that_takes_too_long_denies() -> None:
    """503, for who would know does not answer; its task is cancelled."""
    ended: list[str] = []

    async def slow(_: object) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")
        return "ann"

    answer = ask(Auth(slow, timeout_s=0.01), handshake())
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (503, "timeout")
    assert ended == ["cancelled"]


def test_an_authenticator_that_fails_as_its_handshake_is_cancelled_is_retrieved() -> None:
    """Nobody is left to hear of it; asyncio would tell of an exception that was never retrieved."""
    told: list[str] = []

    async def cancelled() -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(Auth(lambda _: answer).admit(handshake(BEARER)))
        await asyncio.sleep(0)
        answer.set_exception(ValueError("no database"))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        await cancelled()
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert not told


def test_under_trio_there_is_no_timer_and_everything_else() -> None:
    """The plugin uses no primitive of asyncio where asyncio does not run (G14)."""
    trio = pytest.importorskip("trio")

    async def later(token: str) -> Any:
        await trio.sleep(0)
        return ANN(token)

    answer = trio.run(Auth(later, source=bearer_header()).admit, handshake(BEARER))
    assert answer.identity.subject == "ann"


# --- labels ----------------------------------------------------------------------------------------


def _label(policy: Auth) -> str:
    answer = ask(policy, handshake())
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    return answer.identity.label


def test_a_label_is_a_keyed_hash() -> None:
    """The same for a subject, another for another and under another key; never the subject, and no plain hash of it."""
    key, other = b"k" * 16, b"o" * 16
    labels = [_label(Auth(lambda _: "ann", label_key=key)), _label(Auth(lambda _: "bob", label_key=key))]
    labels += [_label(Auth(lambda _: "ann", label_key=other)), _label(Auth(lambda _: "ann")), _label(Auth(lambda _: 7))]
    assert len(set(labels)) == 5
    assert all(len(label) == 16 and int(label, 16) >= 0 for label in labels)
    assert _label(Auth(lambda _: "ann")) == labels[3]
    # HMAC-SHA256 of "ann" under 16 times "k", computed with openssl
    assert labels[0] == "9373b107e96a8d98"


def test_a_label_may_be_plain_and_one_that_is_there_is_kept() -> None:
    """``label=str`` shows the subject."""
    assert _label(Auth(lambda _: "ann", label=str)) == "ann"
    assert _label(Auth(lambda _: Identity("ann", label="A."))) == "A."


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Auth({"t": "ann"}), "authenticate"),  # type: ignore[arg-type]
        (lambda: Auth(Tickets("k" * 16)), "source"),
        (lambda: Auth(ANN, source="query"), "source"),  # type: ignore[arg-type]
        (lambda: Auth(ANN, source=()), "source"),
        (lambda: Auth(ANN, timeout_s=0), "timeout_s"),
        (lambda: Auth(ANN, timeout_s=True), "timeout_s"),
        (lambda: Auth(ANN, timeout_s=float("nan")), "timeout_s"),
        (lambda: Auth(ANN, max_token_bytes=1.5), "max_token_bytes"),  # type: ignore[arg-type]
        (lambda: Auth(ANN, label="plain"), "label"),  # type: ignore[arg-type]
        (lambda: Auth(ANN, label_key=b"short"), "label_key"),
        (lambda: Auth(ANN, label_key=TOKEN * 2), "label_key"),  # type: ignore[arg-type]
        (lambda: cookie("a b"), "name"),
        (lambda: query(""), "name"),
        (lambda: subprotocol("a,b"), "prefix"),
        (lambda: tokens({}), "subjects"),
        (lambda: tokens({"": "ann"}), "subjects"),
        (lambda: tokens(TOKEN), "subjects"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_option_is_named(make: Any, name: str) -> None:
    """The option, what is allowed, and never a secret."""
    with pytest.raises(ConfigurationError, match=f"^{name}=") as caught:
        make()
    assert TOKEN not in str(caught.value)


def test_tokens_keep_nothing_that_could_be_shown() -> None:
    """Known tokens are hashes; identities may stand for them."""
    known = tokens({TOKEN: Identity("ann", label="A."), "other": 7})
    assert known(TOKEN) == Identity("ann", label="A.")
    assert known("other") == 7
    assert TOKEN not in repr([cell.cell_contents for cell in known.__closure__ or ()])


@pytest.mark.parametrize(
    ("package", "make", "extra"),
    [
        ("itsdangerous", "Tickets('k' * 16)", "auth"),
        ("joserfc", "jwt(b'k' * 32, algorithms=['HS256'], issuer=None, audience=None)", "auth"),
        ("redis", "RedisNonces('redis://127.0.0.1')", "redis"),
    ],
)
def test_a_missing_extra_is_one_sentence(package: str, make: str, extra: str) -> None:
    """It says what to install; importing the plugin needs none of them."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from asgi_ws_guard.plugins.auth import Auth, RedisNonces, Tickets, jwt\n"
        f"try:\n    {make}\nexcept ValueError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert f'pip install "asgi-ws-guard[{extra}]"' in said
    assert said.count("\n") == 1


# --- any input -------------------------------------------------------------------------------------

HEADERS = st.tuples(
    st.sampled_from([b"authorization", b"cookie", b"origin", b"x"]),
    st.binary(max_size=40)
    | st.binary(max_size=20).map(lambda rest: b"Bearer " + rest)
    | st.just(b"session=a;session=b"),
)
POLICIES = [
    Auth(tokens({TOKEN: "ann"}), source=SOURCES),
    *(Auth(Tickets(b"k" * 16), source=source) for source in SOURCES),
    Auth(jwt(b"k" * 32, algorithms=["HS256"], issuer=None, audience=None), source=SOURCES),
]


@given(
    st.lists(HEADERS, max_size=4),
    st.binary(max_size=30) | st.binary(max_size=20).map(lambda rest: b"ticket=" + rest),
    st.lists(st.sampled_from(["bearer", "chat"]) | st.text(max_size=10), max_size=4),
    st.sampled_from(POLICIES),
)
def test_whatever_comes_is_denied(
    headers: list[tuple[bytes, bytes]], query_string: bytes, offers: list[str], policy: Auth
) -> None:
    """No headers, queries or subprotocols make it raise, and none of a stranger's gets in."""
    answer = ask(policy, handshake(*headers, query=query_string, subprotocols=tuple(offers)))
    assert isinstance(answer, Deny)
    assert answer.reason in REASONS
    assert answer.status in (400, 401)
