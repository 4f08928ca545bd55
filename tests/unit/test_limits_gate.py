"""The gate of a connection: what becomes of messages that are too many, too much or too large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from newcomers import Clock, handshake

from asgi_ws_guard import Allow, Close, Drop
from asgi_ws_guard._plugin import CreditingGate, Delay, Gate, gives_credit
from asgi_ws_guard.plugins.limits import Limits, Rate
from asgi_ws_guard.plugins.limits._gate import LEAST_BYTES, LEAST_CREDIT, MAX_CREDIT, PART


def gate_of(clock: Clock, **options: Any) -> Gate:
    """Make the gate that a client is given."""
    answer = Limits(clock=clock, **options).admit(handshake())
    assert isinstance(answer, Allow)
    assert answer.gate is not None
    return answer.gate


def test_no_gate_without_a_limit_on_messages() -> None:
    """Who only counts connections costs a message nothing."""
    assert Limits(connections=5).admit(handshake()) == Allow()


def test_each_connection_has_its_own() -> None:
    """One that used up its burst takes nothing from another of the same address."""
    limits = Limits(messages=Rate(1, answer="drop"), clock=Clock())
    first, second = (limits.admit(handshake(name)) for name in "ab")
    assert isinstance(first, Allow)
    assert isinstance(second, Allow)
    assert first.gate is not None
    assert second.gate is not None
    assert [first.gate(1), first.gate(1), second.gate(1)] == [Allow(), Drop("too_many_messages"), Allow()]


def test_delay_is_usual_and_exact() -> None:
    """Without an answer a message waits exactly until the bucket would have a token."""
    clock = Clock(0.0)
    gate = gate_of(clock, messages="4/second")
    assert [gate(1) for _ in range(4)] == [Allow()] * 4
    assert gate(1) == Delay(0.25, "too_many_messages")
    clock.now_s = 0.25
    assert gate(1) == Delay(0.25, "too_many_messages")
    clock.now_s = 1.0
    assert gate(1) == Allow()


def test_bytes() -> None:
    """Bytes have a bucket of their own; an empty message needs none."""
    clock = Clock(0.0)
    gate = gate_of(clock, bytes_received="100/second")
    assert gate(100) == Allow()
    assert gate(0) == Allow()
    assert gate(50) == Delay(0.5, "too_many_bytes")


def test_the_longer_wait_counts() -> None:
    """A message that exceeds both rates waits for the slower one, and says which."""
    clock = Clock(0.0)
    gate = gate_of(clock, messages="1/second", bytes_received="10/second")
    assert gate(10) == Allow()
    assert gate(5) == Delay(1.0, "too_many_messages")
    clock.now_s = 1.0
    assert gate(10) == Delay(1.0, "too_many_messages")
    slow = gate_of(clock, messages="10/second", bytes_received=Rate(1, burst=10))
    assert slow(10) == Allow()
    assert slow(8) == Delay(8.0, "too_many_bytes")


def test_a_message_that_waits_is_paid_for_when_it_arrives() -> None:
    """While it waits for one bucket the other does not fill up for a second message at the same moment."""
    clock = Clock(0.0)
    gate = gate_of(clock, messages=Rate(2, burst=1.5, answer="drop"), bytes_received=Rate(5, burst=45))
    assert gate(9) == Allow()
    clock.now_s = 0.5
    answer = gate(40)
    assert isinstance(answer, Delay)
    clock.now_s += answer.delay_s
    assert gate(0) == Drop("too_many_messages")


def test_drop_costs_nothing() -> None:
    """However much is dropped, the next passes as soon as there is a token."""
    clock = Clock(0.0)
    gate = gate_of(clock, messages=Rate(2, burst=1, answer="drop"))
    assert gate(1) == Allow()
    assert [gate(1) for _ in range(9)] == [Drop("too_many_messages")] * 9
    clock.now_s = 0.5
    assert gate(1) == Allow()


def test_close() -> None:
    """The code is a choice, the reason one word."""
    gate = gate_of(Clock(), messages=Rate(1, answer="close", close_code=1013))
    assert gate(1) == Allow()
    assert gate(1) == Close(1013, "too_many_messages")
    bytes_gate = gate_of(Clock(), bytes_received=Rate(1, burst=2, answer="close"))
    assert bytes_gate(2) == Allow()
    assert bytes_gate(1) == Close(1008, "too_many_bytes")


def test_close_after_drops() -> None:
    """Who does not stop is closed at the drop that is one too many."""
    gate = gate_of(Clock(), messages=Rate(1, answer="drop", max_drops=3))
    assert gate(1) == Allow()
    assert [type(gate(1)) for _ in range(3)] == [Drop, Drop, Close]


@pytest.mark.parametrize(
    ("messages", "volume", "expected"),
    [
        ("close", "drop", Close(1008, "too_many_messages")),
        ("drop", "close", Close(1008, "too_many_bytes")),
        ("delay", "drop", Drop("too_many_bytes")),
        ("drop", "delay", Drop("too_many_messages")),
        (None, None, Delay(1.0, "too_many_messages")),
    ],
)
def test_the_strictest_answer_counts(messages: Any, volume: Any, expected: object) -> None:
    """Of two exceeded rates the stricter one answers: close, drop, delay."""
    clock = Clock(0.0)
    gate = gate_of(clock, messages=Rate(1, answer=messages), bytes_received=Rate(10, answer=volume))
    assert gate(10) == Allow()
    assert gate(5) == expected


def test_size() -> None:
    """A larger message closes with 1009, one of that size passes; it costs no token of the rates."""
    gate = gate_of(Clock(), max_message_bytes=10, messages=Rate(1, answer="drop"))
    assert gate(11) == Close(1009, "message_too_big")
    assert gate(10) == Allow()
    assert gate(10) == Drop("too_many_messages")


def test_what_could_never_pass_closes() -> None:
    """A message larger than the burst of the bytes would wait for ever."""
    gate = gate_of(Clock(), bytes_received=Rate(10, burst=20))
    assert gate(21) == Close(1009, "message_too_big")
    assert gate(20) == Allow()


ANSWERS = st.sampled_from(["drop", "delay"])
STEPS = st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0, 1)), st.integers(0, 40)), max_size=150)


@given(
    number=st.floats(0.5, 50),
    burst=st.floats(1, 20),
    volume=st.floats(5, 500),
    answers=st.tuples(ANSWERS, ANSWERS),
    steps=STEPS,
)
@example(number=1.0, burst=1.0, volume=5.0, answers=("delay", "delay"), steps=[(0.0, 11), (0.0, 40), (0.0, 0)])
@example(number=1.0, burst=1.0, volume=5.0, answers=("delay", "delay"), steps=[(0.0, 0), (0.0, 11), (0.0, 40)])
def test_a_gate_passes_what_it_should(
    number: float, burst: float, volume: float, answers: tuple[Any, Any], steps: list[tuple[float, int]]
) -> None:
    """In any window at most burst + rate * T messages and bytes arrive, and none is held back that need not be."""
    clock = Clock()
    rates = Rate(number, burst=burst, answer=answers[0]), Rate(volume, burst=40 + volume, answer=answers[1])
    gate = gate_of(clock, messages=rates[0], bytes_received=rates[1])
    came: list[tuple[float, int]] = []
    left = [burst, 40 + volume]
    for pause_s, size in steps:
        clock.now_s += pause_s
        left = [min(rate.size, have + pause_s * rate.per_second) for rate, have in zip(rates, left, strict=True)]
        answer = gate(size)
        if isinstance(answer, Allow):
            left = [left[0] - 1, left[1] - size]
        elif isinstance(answer, Delay):
            assert answer.delay_s == pytest.approx(max((1 - left[0]) / number, (size - left[1]) / volume), abs=1e-6)
            clock.now_s += answer.delay_s  # nothing is read meanwhile
            left = [
                min(rate.size, have + answer.delay_s * rate.per_second) - cost
                for rate, have, cost in zip(rates, left, (1, size), strict=True)
            ]
        else:
            assert left[0] < 1 + 1e-6 or left[1] < size + 1e-6
            continue
        came.append((clock.now_s, size))
    for first, (since_s, _) in enumerate(came):
        total = 0
        for passed, (until_s, size) in enumerate(came[first:], 1):
            total += size
            assert passed <= burst + number * (until_s - since_s) + 1e-6
            assert total <= 40 + volume + volume * (until_s - since_s) + 1e-4


def crediting(clock: Clock, **options: Any) -> CreditingGate:
    """Make the gate that a client is given, which gives credit."""
    gate = gate_of(clock, **options)
    assert gives_credit(gate)
    return gate


def test_a_size_has_credit_without_end() -> None:
    """Nobody is asked about a message that is small enough."""
    gate = crediting(Clock(), max_message_bytes=10)
    assert (gate.credit_bytes, gate.credit() > 2**60) == (10, True)


@pytest.mark.parametrize(
    ("options", "credit", "credit_bytes"),
    [
        ({"messages": Rate(1, burst=PART * 5)}, 5, None),
        ({"messages": Rate(1, burst=PART * 5), "max_message_bytes": 100}, 5, 100),
        ({"messages": Rate(1e6), "bytes_received": Rate(1e6)}, 244, 256),
        ({"messages": Rate(1e9), "bytes_received": Rate(1e9)}, MAX_CREDIT, 61_035),
        ({"messages": Rate(1, burst=PART * 5), "bytes_received": Rate(PART * 5000)}, 5, 1000),
    ],
    ids=repr,
)
def test_the_credit_is_one_part_of_the_burst(options: dict[str, Any], credit: int, credit_bytes: int | None) -> None:
    """Of messages and of bytes, and not more than makes asking cheap."""
    gate = crediting(Clock(), **options)
    assert gate.credit() == credit
    assert gate.credit_bytes == credit_bytes if credit_bytes else gate.credit_bytes > 2**60


@pytest.mark.parametrize(
    "options",
    [
        {"messages": Rate(1000, burst=PART * LEAST_CREDIT - 1)},
        {"messages": Rate(1e9), "bytes_received": Rate(PART * LEAST_CREDIT * LEAST_BYTES - 1)},
    ],
    ids=repr,
)
def test_a_small_burst_is_kept_exactly(options: dict[str, Any]) -> None:
    """Each message is asked about where there is little to give."""
    assert not gives_credit(gate_of(Clock(), **options))


def test_there_is_no_credit_in_a_bucket_that_is_low() -> None:
    """Of either kind, whatever the size of what would pass."""
    clock = Clock(0.0)
    gate = crediting(clock, messages=Rate(1, burst=80))
    gate.settle(75, 0)
    assert gate.credit() == 5
    gate.settle(1, 0)
    assert gate.credit() == 0
    clock.now_s = 1.0
    assert gate.credit() == 0  # it looks at no clock: it is called behind an answer
    gate.settle(0, 0)
    assert gate.credit() == 5
    octets = crediting(clock, bytes_received=Rate(PART * 1024, burst=PART * 1024))
    octets.settle(1, (PART - 1) * 1024 + 1)
    assert octets.credit() == 0


@given(
    number=st.floats(1, 400),
    burst=st.floats(PART * LEAST_CREDIT, 300),
    volume=st.floats(PART * LEAST_CREDIT * LEAST_BYTES, 40_000),
    answers=st.tuples(ANSWERS, ANSWERS),
    steps=st.lists(
        st.tuples(st.one_of(st.just(0.0), st.floats(0, 1)), st.integers(0, 1500), st.integers(1, 40)), max_size=25
    ),
)
def test_credit_passes_no_more_than_it_should(
    number: float, burst: float, volume: float, answers: tuple[Any, Any], steps: list[tuple[float, int, int]]
) -> None:
    """In any window at most burst + rate * T messages and bytes arrive, and what is held back lacks a part at most."""
    clock = Clock()
    rates = Rate(number, burst=burst, answer=answers[0]), Rate(volume, answer=answers[1])
    gate = crediting(clock, messages=rates[0], bytes_received=rates[1])
    exact, credit, used = [burst, volume], 0, [0, 0]

    def pass_time(seconds: float) -> None:
        clock.now_s += seconds
        exact[:] = [min(one.size, have + seconds * one.per_second) for one, have in zip(rates, exact, strict=True)]

    def asked(size: int) -> bool:
        """Ask as the lane does; tell whether the message arrives."""
        nonlocal credit
        if size <= gate.credit_bytes and used[0] < credit:
            used[:] = [used[0] + 1, used[1] + size]
            return True
        if used[0]:
            gate.settle(*used)
        credit, used[:] = 0, [0, 0]
        answer = gate(size)
        if isinstance(answer, Allow):
            credit = gate.credit()
        elif isinstance(answer, Delay):
            assert exact[0] < 1 + burst / PART + 1e-6 or exact[1] < size + volume / PART + 1e-4
            pass_time(answer.delay_s)
        else:
            assert exact[0] < 1 + burst / PART + 1e-6 or exact[1] < size + volume / PART + 1e-4
            return False
        return True

    for pause_s, size, many in steps:
        pass_time(pause_s)
        for _ in range(many):
            if asked(size):
                exact[:] = [exact[0] - 1, exact[1] - size]
                assert exact[0] > -1e-6  # a bucket that is kept exactly has never given more than it had:
                assert exact[1] > -1e-4  # that is burst + rate * T in any window
