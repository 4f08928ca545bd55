"""One-time tickets: good once, for seconds, where they belong; every other one is denied with its reason."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from handshakes import handshake
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer
from itsdangerous.encoding import base64_encode

from asgi_ws_guard import Allow, ConfigurationError, Deny, Handshake, Identity
from asgi_ws_guard.plugins.auth import REASONS, Auth, MemoryNonces, RedisNonces, Tickets, query
from asgi_ws_guard.plugins.auth import _nonces as nonces
from asgi_ws_guard.plugins.auth import _tickets as module

SECRET = "s3cr3t-0123456789"


def take(tickets: Tickets, ticket: str, asked: Handshake | None = None) -> Identity | str:
    """Give the identity, or the reason of the denial."""
    answer = asyncio.run(tickets.authenticate(ticket, handshake() if asked is None else asked))
    if isinstance(answer, Identity):
        return answer
    assert answer.reason in REASONS
    assert len(ticket) < 40 or ticket not in repr(answer)
    return answer.reason


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the wall clock and the monotonic one be an item that a test sets."""
    now = [1_800_000_000.0]

    class Clock:
        time = monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(nonces, "time", Clock)
    return now


def test_a_ticket_opens_one_connection() -> None:
    """Its subject and its end come out; the second time it is a replay."""
    tickets = Tickets(SECRET)
    ticket = tickets.mint("ann", expires_unix_s=1.9e9)
    assert take(tickets, ticket) == Identity("ann", 1.9e9)
    assert take(tickets, ticket) == "replayed"
    assert take(tickets, tickets.mint("ann")) == Identity("ann", None)
    assert take(tickets, tickets.mint(7)) == Identity(7, None)


def test_a_ticket_goes_through_the_policy_as_a_parameter() -> None:
    """Nothing of it has to be escaped in a query, and it is short."""
    tickets = Tickets(SECRET)
    policy = Auth(tickets, source=query("ticket"))
    ticket = tickets.mint("ann ä\U0001f600 & co", path="/room")
    assert set(ticket) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert len(ticket) < 250
    answer = asyncio.run(policy.admit(handshake(query=f"a=1&ticket={ticket}".encode())))
    assert isinstance(answer, Allow)
    assert answer.identity is not None
    assert answer.identity.subject == "ann ä\U0001f600 & co"


def test_a_ticket_lives_for_its_seconds(clock: list[float]) -> None:
    """At the last one it is expired."""
    tickets = Tickets(SECRET, lifetime_s=30)
    first, second = tickets.mint("ann"), tickets.mint("ann")
    clock[0] += 29.99
    assert take(tickets, first) == Identity("ann", None)
    clock[0] += 0.01
    assert take(tickets, second) == "expired"
    assert take(tickets, first) == "expired"


def test_a_used_ticket_is_remembered_longer_than_any_clock_is_wrong(clock: list[float]) -> None:
    """Another host's clock may be behind: the nonce outlives the ticket by `SKEW_S`, and no longer."""
    store = MemoryNonces()
    tickets = Tickets(SECRET, lifetime_s=30, store=store)
    ticket = tickets.mint("ann")
    take(tickets, ticket)
    monotonic = clock[0]
    clock[0] = monotonic + 30 + module.SKEW_S - 0.01
    assert store.use("another", 1) is True
    assert len(store) == 2
    clock[0] += 0.02
    assert store.use("a third", 1) is True
    assert len(store) == 2


def test_every_truncated_or_changed_ticket_is_denied() -> None:
    """At whatever letter; a cut signature is told from a wrong one."""
    tickets = Tickets(SECRET)
    ticket = tickets.mint("ann")
    assert {take(tickets, ticket[:length]) for length in range(len(ticket))} == {"truncated"}
    for index in range(0, len(ticket) - 1, 7):
        changed = ticket[:index] + ("A" if ticket[index] != "A" else "B") + ticket[index + 1 :]
        assert take(tickets, changed) in ("bad_signature", "truncated")
    assert take(tickets, ticket + "A") == "bad_signature"
    assert take(tickets, ticket) == Identity("ann", None)


def test_another_secret_audience_or_signer_is_a_bad_signature() -> None:
    """What is signed for something else is nothing here."""
    tickets = Tickets(SECRET)
    assert take(tickets, Tickets("another-0123456789").mint("ann")) == "bad_signature"
    assert take(tickets, Tickets(SECRET, audience="admin").mint("ann")) == "bad_signature"
    assert take(Tickets(SECRET, audience="admin"), tickets.mint("ann")) == "bad_signature"
    other = Signer(SECRET).sign(base64_encode(b'["ann","n",1e12,null,null,null,null]')).decode() + "A" * 20
    assert take(tickets, other) == "bad_signature"


def test_secrets_may_change() -> None:
    """The last one signs, all of them are taken."""
    old, new = Tickets("old-0123456789abc"), Tickets(["old-0123456789abc", b"new-0123456789abc"])
    assert take(new, old.mint("ann")) == Identity("ann", None)
    assert take(Tickets(b"new-0123456789abc"), new.mint("ann")) == Identity("ann", None)
    assert take(old, new.mint("ann")) == "bad_signature"


ORIGIN = (b"origin", b"https://example.org")


@pytest.mark.parametrize(
    ("bound", "asked", "fits"),
    [
        ({"path": "/room"}, handshake(path="/room"), True),
        ({"path": "/room"}, handshake(path="/room/"), False),
        ({"origin": "https://example.org"}, handshake(ORIGIN), True),
        ({"origin": "https://example.org"}, handshake(), False),
        ({"origin": "https://example.org"}, handshake(ORIGIN, ORIGIN), False),
        ({"origin": "https://example.org"}, handshake((b"origin", b"https://evil.example")), False),
        ({"address": "127.0.0.1"}, handshake(), True),
        ({"address": "127.0.0.2"}, handshake(), False),
        ({"address": "127.0.0.1"}, handshake(client=None), False),
    ],
)
def test_a_ticket_may_be_bound(bound: dict[str, Any], asked: Handshake, fits: bool) -> None:
    """To a path, an origin, an address; where it does not belong it is denied, and not used up."""
    tickets = Tickets(SECRET)
    ticket = tickets.mint("ann", **bound)
    assert take(tickets, ticket, asked) == (Identity("ann", None) if fits else "misplaced")
    if not fits:
        there = handshake(ORIGIN, client=(bound.get("address", "127.0.0.1"), 1))
        assert take(tickets, ticket, there) == Identity("ann", None)


def test_a_ticket_used_by_many_tasks_at_once_is_good_once() -> None:
    """On one event loop."""
    tickets = Tickets(SECRET)
    ticket = tickets.mint("ann")

    async def main() -> list[Identity | Deny]:
        return list(await asyncio.gather(*(tickets.authenticate(ticket, handshake()) for _ in range(50))))

    assert sum(isinstance(one, Identity) for one in asyncio.run(main())) == 1


def test_a_ticket_used_by_many_threads_at_once_is_good_once() -> None:
    """Each with its own event loop, as several guards in a process have."""
    tickets = Tickets(SECRET)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            ticket = tickets.mint("ann")
            answers = list(pool.map(lambda one: take(tickets, one), [ticket] * 8))
            assert sorted(map(str, answers)) == sorted([str(Identity("ann", None)), *["replayed"] * 7])


def test_the_memory_is_bounded_and_denies_when_it_is_full(caplog: pytest.LogCaptureFixture) -> None:
    """It forgets no used ticket to make room for another."""
    tickets = Tickets(SECRET, store=MemoryNonces(max_nonces=2))
    used = [tickets.mint("ann") for _ in range(3)]
    assert [take(tickets, one) for one in used[:2]] == [Identity("ann", None)] * 2
    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(tickets.authenticate(used[2], handshake()))
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (503, "storage_failed")
    assert "OverflowError" in caplog.text
    assert used[2] not in caplog.text
    assert take(tickets, used[0]) == "replayed"


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", [], False])
def test_only_true_is_a_first_time(answer: Any) -> None:
    """A storage that answers anything else denies."""

    class Odd:
        def use(self, nonce: str, remember_s: float, /) -> Any:
            return answer

    tickets = Tickets(SECRET, store=Odd())
    assert take(tickets, tickets.mint("ann")) == "replayed"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Tickets("short-s3cr3t"), "secret"),
        (lambda: Tickets([]), "secret"),
        (lambda: Tickets([SECRET, "short-s3cr3t"]), "secret"),
        (lambda: Tickets(None), "secret"),  # type: ignore[arg-type]
        (lambda: Tickets(SECRET, lifetime_s=0), "lifetime_s"),
        (lambda: Tickets(SECRET, lifetime_s=float("inf")), "lifetime_s"),
        (lambda: Tickets(SECRET, store=object()), "store"),  # type: ignore[arg-type]
        (lambda: Tickets(SECRET, audience=None), "audience"),  # type: ignore[arg-type]
        (lambda: Tickets(SECRET).mint(("ann", 7)), "subject"),  # type: ignore[arg-type]
        (lambda: Tickets(SECRET).mint(""), "subject"),
        (lambda: Tickets(SECRET).mint(True), "subject"),
        (lambda: Tickets(SECRET).mint("ann", expires_unix_s=-1), "expires_unix_s"),
        (lambda: Tickets(SECRET).mint("ann", path=7), "path"),  # type: ignore[arg-type]
        (lambda: MemoryNonces(max_nonces=0), "max_nonces"),
        (lambda: RedisNonces("http://u:s3cr3t@x"), "url"),
        (lambda: RedisNonces(None), "url"),  # type: ignore[arg-type]
        (lambda: RedisNonces("redis://x", timeout_s=0), "timeout_s"),
        (lambda: RedisNonces("redis://x", max_connections=0), "max_connections"),
        (lambda: RedisNonces("redis://x", prefix=b""), "prefix"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_option_is_named(make: Any, name: str) -> None:
    """What is allowed, and no secret."""
    with pytest.raises(ConfigurationError, match=f"^{name}=") as caught:
        make()
    assert "s3cr3t" not in str(caught.value)


TAKER = Tickets(SECRET)
PIECES = st.lists(st.sampled_from([".", "A", "=", "%", TAKER.mint("ann")[:40], "é"]) | st.text(max_size=50), max_size=6)


@given(PIECES.map("".join))
def test_no_forged_ticket_is_taken(forged: str) -> None:
    """Whatever it is made of, without an exception."""
    assert take(TAKER, forged) in ("truncated", "bad_signature")
