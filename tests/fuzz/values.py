"""What strangers may send: values of any kind, near misses of what is expected, and text that forges lines."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Examples of each property; 0: as many as a property asks for in `make test`."""

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("a\r\n\0\x1b[31m\u2028\u2029\x85\ud800é\U0001f600"), max_size=300),
    st.sampled_from(["", "\r\nforged level=info", "x" * 5000, "\ud800", "\x1b[2J", "%s%n{}", "../..", "¹", "\u0661"]),
)
OCTETS = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\xff\xfe", b"\r\nx: y", b"x" * 5000]))
NUMBERS = st.one_of(st.integers(), st.integers(-2, 70000), st.floats(), st.booleans(), st.just(10**400))
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), TEXT, OCTETS, NUMBERS, st.just(object()), st.builds(bytearray, OCTETS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(TEXT, inner, max_size=3),
        st.builds(iter, st.lists(inner, max_size=2)),
    ),
    max_leaves=6,
)
"""A value of any kind."""


def some(examples: int) -> settings:
    """
    Bound a property.

    Args:
        examples: How many in `make test`.
    """
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


def near(**usual: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Make dicts in which each key has its usual value, any value, or is missing."""
    return st.fixed_dictionaries({}, optional={key: st.one_of(one, one, ANYTHING) for key, one in usual.items()})
