"""The policy `Limits`: live connections and attempts, by whom, and what is said to one too many."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from newcomers import Clock, handshake

from asgi_ws_guard import Allow, ConfigurationError, Deny, Handshake
from asgi_ws_guard.plugins.limits import ClientAddress, Limits, Rate
from asgi_ws_guard.plugins.limits._buckets import Buckets


def admit(limits: Limits, shake: Handshake) -> Allow | Deny:
    """Ask a policy that has no storage."""
    answer = limits.admit(shake)
    assert isinstance(answer, Allow | Deny)
    return answer


def denied(limits: Limits, shake: Handshake) -> tuple[int, str]:
    """Ask, expect a denial, and give status and reason."""
    answer = admit(limits, shake)
    assert isinstance(answer, Deny)
    return answer.status, answer.reason


def retry_after(answer: Allow | Deny) -> int:
    """Give what Retry-After says."""
    assert isinstance(answer, Deny)
    return int(dict(answer.headers)[b"retry-after"])


# --- live connections ----------------------------------------------------------------------------


def test_total() -> None:
    """One more than the limit is denied with 503, whoever it is, until one has left."""
    limits = Limits(connections=2, retry_after_s=7)
    assert admit(limits, handshake("a")) == Allow()
    assert admit(limits, handshake("b", client=("192.0.2.2", 1))) == Allow()
    assert denied(limits, handshake("c", client=("192.0.2.3", 1))) == (503, "connections")
    assert retry_after(admit(limits, handshake("c"))) == 7
    limits.release("a")
    assert admit(limits, handshake("c")) == Allow()


def test_one_too_many_counts_for_nobody() -> None:
    """A denied connection is not counted, not for the limits it kept either; releasing it changes nothing."""
    limits = Limits(connections=3, per_address=1)
    admit(limits, handshake("a"))
    assert denied(limits, handshake("b")) == (429, "connections_per_address")
    limits.release("b")
    assert (limits.live, limits.keys) == (1, 2)


def test_per_address() -> None:
    """One address is limited, another is not."""
    limits = Limits(per_address=1)
    admit(limits, handshake("a"))
    assert denied(limits, handshake("b")) == (429, "connections_per_address")
    assert admit(limits, handshake("c", client=("192.0.2.2", 1))) == Allow()


def test_per_identity() -> None:
    """One identity is limited over all its addresses; who is nobody is not."""
    limits = Limits(per_identity=1)
    admit(limits, handshake("a", subject="ada"))
    assert denied(limits, handshake("b", subject="ada", client=("192.0.2.9", 1))) == (429, "connections_per_identity")
    assert admit(limits, handshake("c", subject="bob")) == Allow()
    assert admit(limits, handshake("d")) == Allow()
    assert admit(limits, handshake("e")) == Allow()


class Unhashable:
    """Equal to nothing, with a hash that fails in its own way."""

    def __hash__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize("subject", [["ada"], {"sub": "ada"}, (1, [2]), Unhashable()])
@pytest.mark.parametrize("options", [{"per_identity": 1}, {"connections": 9}, {"attempts_per_identity": "1/second"}])
def test_an_identity_that_cannot_be_hashed_is_denied(subject: Any, options: dict[str, Any]) -> None:
    """It is neither an exception nor a pass."""
    answer = admit(Limits(**options), handshake(subject=subject))
    assert isinstance(answer, Deny)
    assert (answer.status, answer.reason) == (500, "identity_not_hashable")


def test_per_route() -> None:
    """All rooms of a template count together, and the first template that matches counts."""
    limits = Limits(per_route={"/rooms/lobby": 2, "/rooms/{room}": 1, "/files/{name:path}": 1})
    assert admit(limits, handshake("a", path="/rooms/1")) == Allow()
    assert denied(limits, handshake("b", path="/rooms/2")) == (429, "connections_per_route")
    assert admit(limits, handshake("c", path="/rooms/lobby")) == Allow()
    assert admit(limits, handshake("d", path="/rooms/lobby")) == Allow()
    assert denied(limits, handshake("e", path="/rooms/lobby")) == (429, "connections_per_route")
    assert admit(limits, handshake("f", path="/files/a/b\nc")) == Allow()
    assert denied(limits, handshake("g", path="/files/d")) == (429, "connections_per_route")


@pytest.mark.parametrize("path", ["/rooms/1/2", "/rooms/", "/rooms", "/xrooms/1", "/rooms/1/", "/Rooms/1"])
def test_other_routes_are_free(path: str) -> None:
    """What no template matches as a whole is not limited by route."""
    limits = Limits(per_route={"/rooms/{room}": 1})
    assert admit(limits, handshake("a", path=path)) == Allow()
    assert admit(limits, handshake("b", path=path)) == Allow()


def test_a_template_is_no_pattern() -> None:
    """Signs that mean something to a regular expression mean themselves."""
    limits = Limits(per_route={"/a.b+/{x}": 1})
    admit(limits, handshake("a", path="/a.b+/1"))
    assert denied(limits, handshake("b", path="/a.b+/1")) == (429, "connections_per_route")
    assert admit(limits, handshake("c", path="/axbb/1")) == Allow()


def test_a_function_names_the_route() -> None:
    """What it names is looked up among the limits; None and unknown names are free."""
    limits = Limits(per_route={"chat": 1}, route=lambda shake: {"/1": "chat", "/2": "other"}.get(shake.path))
    admit(limits, handshake("a", path="/1"))
    assert denied(limits, handshake("b", path="/1")) == (429, "connections_per_route")
    for connection_id, path in enumerate(["/2", "/2", "/3", "/3"]):
        assert admit(limits, handshake(str(connection_id), path=path)) == Allow()


def test_a_function_names_the_address() -> None:
    """Any key will do."""
    limits = Limits(per_address=1, address=lambda shake: shake.path)
    admit(limits, handshake("a", path="/1"))
    assert denied(limits, handshake("b", path="/1")) == (429, "connections_per_address")
    assert admit(limits, handshake("c", path="/2")) == Allow()


def test_nothing_leaks() -> None:
    """10,000 connections that leave in any order, some told twice, leave empty tables."""
    limits = Limits(connections=10_000, per_address=5_000, per_identity=5_000, per_route={"/{room}": 10_000})
    ids = [str(number) for number in range(10_000)]
    for number, connection_id in enumerate(ids):
        client, path, subject = (f"192.0.2.{number % 200}", 1), f"/{number % 7}", number % 100
        assert admit(limits, handshake(connection_id, client=client, path=path, subject=subject)) == Allow()
    assert (limits.live, limits.keys) == (10_000, 1 + 200 + 1 + 100)
    assert denied(limits, handshake("one more")) == (503, "connections")
    random.Random(1).shuffle(ids)
    for connection_id in ids:
        limits.release(connection_id)
        limits.release(ids[0])
    assert (limits.live, limits.keys) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=60))
def test_counts_are_those_of_a_model(steps: list[tuple[int, int]]) -> None:
    """Whoever comes and goes, an address has a place exactly as long as fewer than its limit are live."""
    limits, live = Limits(connections=5, per_address=2), dict[str, int]()
    for number, address in steps:
        connection_id = str(number)
        if connection_id in live:
            limits.release(connection_id)
            del live[connection_id]
            continue
        has_room = len(live) < 5 and list(live.values()).count(address) < 2
        answer = admit(limits, handshake(connection_id, client=(f"192.0.2.{address}", 1)))
        assert isinstance(answer, Allow) == has_room
        if has_room:
            live[connection_id] = address
        assert limits.live == len(live)


# --- attempts ------------------------------------------------------------------------------------


def test_attempts_by_address() -> None:
    """A burst passes, then as many as the rate; Retry-After is the time until the next, rounded up."""
    clock = Clock()
    limits = Limits(attempts_per_address=Rate(1, per_s=10, burst=3), clock=clock)
    assert [type(admit(limits, handshake(str(n)))) for n in range(4)] == [Allow, Allow, Allow, Deny]
    assert denied(limits, handshake()) == (429, "attempts_per_address")
    assert retry_after(admit(limits, handshake())) == 10
    assert admit(limits, handshake(client=("192.0.2.2", 1))) == Allow()
    clock.now_s += 4.5
    assert retry_after(admit(limits, handshake())) == 6
    clock.now_s += 5.5
    assert admit(limits, handshake()) == Allow()
    assert denied(limits, handshake()) == (429, "attempts_per_address")


def test_attempts_in_total_and_by_identity() -> None:
    """In total it is 503; who is stopped by their own limit takes nothing from the others' total."""
    limits = Limits(attempts="2/minute", attempts_per_identity="1/minute", clock=Clock())
    assert admit(limits, handshake(subject="ada")) == Allow()
    for _ in range(5):
        assert denied(limits, handshake(subject="ada")) == (429, "attempts_per_identity")
    assert admit(limits, handshake()) == Allow()
    assert denied(limits, handshake(subject="bob")) == (503, "attempts")
    assert retry_after(admit(limits, handshake())) == 30


def test_a_denied_connection_was_an_attempt() -> None:
    """Who is denied for live connections has used up an attempt."""
    limits = Limits(per_address=1, attempts_per_address="2/minute", clock=Clock())
    admit(limits, handshake("a"))
    assert denied(limits, handshake("b")) == (429, "connections_per_address")
    assert denied(limits, handshake("c")) == (429, "attempts_per_address")


@given(
    number=st.floats(0.1, 100),
    burst=st.floats(1, 50),
    pauses=st.lists(st.one_of(st.just(0.0), st.floats(0, 2)), max_size=200),
)
def test_a_bucket_passes_what_it_should(number: float, burst: float, pauses: list[float]) -> None:
    """Never more than burst + rate * T in any window, and never a refusal while a whole token is there."""
    clock, came_s, tokens = Clock(), list[float](), burst
    buckets = Buckets(Rate(number, burst=burst), 10, clock)
    for pause_s in pauses:
        clock.now_s += pause_s
        tokens = min(burst, tokens + pause_s * number)
        wait_s = buckets.wait_s("key")
        if wait_s:
            assert tokens < 1 + 1e-6
            assert wait_s == pytest.approx((1 - tokens) / number, abs=1e-6)
        else:
            tokens -= 1
            came_s.append(clock.now_s)
    for first, since_s in enumerate(came_s):
        for passed, until_s in enumerate(came_s[first:], 1):
            assert passed <= burst + number * (until_s - since_s) + 1e-6


def test_the_wait_is_exact() -> None:
    """Just before the time that was told it is refused again, then it passes."""
    clock = Clock(0.0)
    buckets = Buckets(Rate(4, burst=1), 10, clock)
    assert buckets.wait_s("key") == 0
    assert buckets.wait_s("key") == 0.25
    clock.now_s = 0.2499
    assert buckets.wait_s("key") == pytest.approx(0.0001)
    clock.now_s = 0.25
    assert buckets.wait_s("key") == 0


def test_buckets_are_forgotten_when_they_are_full_again() -> None:
    """A table holds the keys of the last moments and no more, without a key being let through for it."""
    clock = Clock()
    buckets = Buckets(Rate(1, burst=2), 10_000, clock)
    for number in range(5_000):
        buckets.wait_s(number)
        clock.now_s += 0.01
    assert len(buckets) <= 201
    buckets.wait_s("busy")
    for _ in range(300):
        clock.now_s += 0.01
        buckets.wait_s("busy")
    assert buckets.wait_s("busy") > 0
    assert len(buckets) == 1


def test_beyond_the_bound_the_oldest_is_forgotten() -> None:
    """A table never grows beyond its bound: the key used longest ago starts anew, others stay as they are."""
    buckets = Buckets(Rate(1, per_s=1000, burst=1), 3, Clock())
    for key in "abc":
        assert buckets.wait_s(key) == 0
    assert buckets.wait_s("a") > 0
    assert buckets.wait_s("d") == 0
    assert len(buckets) == 3
    assert buckets.wait_s("a") > 0
    assert buckets.wait_s("b") == 0


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_route": {}},
        {"connections": 0},
        {"connections": True},
        {"connections": 1.5},
        {"per_address": "5"},
        {"per_identity": -1},
        {"per_route": ["/a"]},
        {"per_route": {"/a": None}},
        {"per_route": {"/a": 0}},
        {"per_route": {1: 1}},
        {"per_route": {"a": 1}},
        {"per_route": {"/{}": 1}},
        {"per_route": {"/{a": 1}},
        {"per_route": {"/a}": 1}},
        {"attempts": "10"},
        {"attempts": "0/second"},
        {"attempts": "10/0 seconds"},
        {"attempts": "-1/second"},
        {"attempts": "10/fortnight"},
        {"attempts": 10},
        {"attempts": Rate(1, answer="drop")},
        {"attempts_per_address": Rate(1, answer="delay")},
        {"attempts_per_identity": Rate(1, answer="close")},
        {"messages": Rate(1, answer="deny")},
        {"bytes_received": "fast"},
        {"max_message_bytes": 0},
        {"max_message_bytes": 2000, "bytes_received": "1000/second"},
        {"connections": 1, "address": "x-real-ip"},
        {"connections": 1, "address": ClientAddress},
        {"connections": 1, "route": 5},
        {"connections": 1, "retry_after_s": 0},
        {"connections": 1, "retry_after_s": float("inf")},
        {"connections": 1, "max_keys": 0},
        {"connections": 1, "storage": "memory://"},
        {"attempts": "1/second", "storage": "mysql://secret"},
        {"attempts": "1/second", "storage": "secret"},
        {"attempts": "1/second", "storage": 5},
        {"attempts": "1/second", "storage": "redis://h:port/secret"},
        {"attempts": "1/second", "storage": "memory://", "storage_away": "open"},
        {"attempts": "1/second", "storage": "memory://", "storage_timeout_s": 0},
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """A wrong option is said when it is built, with what is allowed; a storage's address is not repeated."""
    with pytest.raises(ConfigurationError, match="is not allowed: expected ") as raised:
        Limits(**options)
    assert raised.value.option.partition("[")[0] in (*options, "connections")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("number", {"number": 0}),
        ("number", {"number": "5"}),
        ("number", {"number": float("nan")}),
        ("per_s", {"number": 1, "per_s": 0}),
        ("burst", {"number": 1, "burst": 0.5}),
        ("burst", {"number": 1, "burst": True}),
        ("answer", {"number": 1, "answer": "ignore"}),
        ("close_code", {"number": 1, "close_code": 1005}),
        ("close_code", {"number": 1, "close_code": True}),
        ("max_drops", {"number": 1, "max_drops": 0, "answer": "drop"}),
        ("max_drops", {"number": 1, "max_drops": 5}),
    ],
    ids=str,
)
def test_wrong_rates(option: str, values: dict[str, Any]) -> None:
    """A wrong rate is said when it is built."""
    with pytest.raises(ConfigurationError) as raised:
        Rate(**values)
    assert raised.value.option == option


@pytest.mark.parametrize(
    ("text", "per_second", "size"),
    [
        ("20/second", 20, 20),
        (" 600 / minute ", 10, 600),
        ("1_000/hour", 1000 / 3600, 1000),
        ("100/10 seconds", 10, 100),
        ("1/day", 1 / 86400, 1),
    ],
)
def test_rates_as_texts(text: str, per_second: float, size: float) -> None:
    """A text says a number and a time; its burst is the number."""
    clock = Clock()
    limits = Limits(attempts=text, clock=clock)
    answers = [type(admit(limits, handshake(str(n)))) for n in range(int(size) + 1)]
    assert answers == [Allow] * int(size) + [Deny]
    clock.now_s += 1 / per_second + 1e-6
    assert admit(limits, handshake()) == Allow()


@pytest.mark.parametrize(
    ("rate", "window"),
    [
        (Rate(10), (10, 1)),
        (Rate(600, per_s=60), (600, 60)),
        (Rate(11, per_s=60), (11, 60)),
        (Rate(10, burst=50), (50, 5)),
        (Rate(3, burst=1), (3, 1)),
        (Rate(1, per_s=100), (1, 100)),
        (Rate(10, burst=15), (20, 2)),
        (Rate(0.1), (1, 10)),
        (Rate(1, per_s=3), (1, 3)),
    ],
)
def test_rates_as_windows(rate: Rate, window: tuple[int, int]) -> None:
    """A storage counts in whole seconds: as many as come in the long run, never none."""
    assert rate.window == window


def test_a_storage_that_is_awaited_counts_after_it_has_answered() -> None:
    """A handshake that is given up while the storage is asked leaves nothing behind."""
    limits = Limits(per_address=1, attempts="9/second", storage="memory://")

    async def main() -> None:
        waiting: Any = limits.admit(handshake("a"))
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (limits.live, limits.keys) == (0, 1)
        later: Any = limits.admit(handshake("b"))
        assert await later == Allow()
        assert limits.live == 1

    asyncio.run(main())
