"""The gate of a connection: what becomes of messages that are too many, too much or too large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from newcomers import Clock, handshake

from asgi_ws_guard import Allow, Close, Drop
from asgi_ws_guard._plugin import Delay, Gate
from asgi_ws_guard.plugins.limits import Limits, Rate


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
