"""The wheel gives what is due, never early, each once, in any order of work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard._wheel import WIDTH_S, Wheel

_times = st.floats(min_value=0, max_value=100)


@given(dues=st.lists(_times), looks=st.lists(_times), taken=st.sets(st.integers(0, 10)))
def test_nothing_is_early_or_late(dues: list[float], looks: list[float], taken: set[int]) -> None:
    """Each is given by the first look after it was due, one width late at most, unless it was taken out."""
    wheel: Wheel[int] = Wheel()
    slots = [wheel.put(index, due_s) for index, due_s in enumerate(dues)]
    for index in taken & set(range(len(slots))):
        wheel.take_out(index, slots[index])
        wheel.take_out(index, slots[index])
    left = {index: due_s for index, due_s in enumerate(dues) if index not in taken}
    for now_s in [*sorted(looks), 200.0]:
        given_now = wheel.due(now_s)
        assert len(set(given_now)) == len(given_now)
        assert all(left[index] <= now_s for index in given_now)
        for index in given_now:
            del left[index]
        assert all(due_s > now_s - WIDTH_S for due_s in left.values())
    assert not left
    assert len(wheel) == 0


@given(before_s=_times, after_s=_times)
def test_what_was_due_is_due_at_the_next_look(before_s: float, after_s: float) -> None:
    """Also when the wheel has turned past it."""
    wheel: Wheel[str] = Wheel()
    assert wheel.due(before_s) == []
    wheel.put("late", min(before_s, after_s))
    assert wheel.due(before_s + 2 * WIDTH_S) == ["late"]
    assert wheel.due(before_s + 3 * WIDTH_S) == []


def test_the_order_is_that_of_time() -> None:
    """Whether slots are counted or looked up."""
    for dues in ([3.0, 1.0, 2.0], [0.05, 0.0, 0.025]):
        wheel: Wheel[float] = Wheel()
        for due_s in dues:
            wheel.put(due_s, due_s)
        assert wheel.due(10.0) == sorted(dues)
