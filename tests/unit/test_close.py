"""Close codes, reasons and the classes of an end (G12)."""

from __future__ import annotations

import enum

import pytest

from asgi_ws_guard import CloseCode, CloseStatus, Initiator, may_send
from asgi_ws_guard._close import MAX_REASON_BYTES, legal_code, legal_reason, peer_status, tells_cause

SENDABLE = {
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
    *range(3000, 5000),
}


def test_exactly_the_sendable_codes_may_be_sent() -> None:
    """Of all 65536 codes, those that RFC 6455 lets an endpoint send may be sent, and no other."""
    assert {code for code in range(65536) if may_send(code)} == SENDABLE


@pytest.mark.parametrize("code", [-1, -1000, 65536, 10**30])
def test_no_code_out_of_range_may_be_sent(code: int) -> None:
    """A number that is no close code at all may not be sent."""
    assert not may_send(code)


@pytest.mark.parametrize(
    ("asked", "legal"),
    [
        (1000, 1000),
        (1001, 1001),
        (1014, 1014),
        (3000, 3000),
        (4999, 4999),
        (1005, 1000),
        (1004, 1011),
        (1006, 1011),
        (1015, 1011),
        (1016, 1011),
        (999, 1011),
        (2999, 1011),
        (5000, 1011),
        (0, 1011),
        (-1, 1011),
        (10**30, 1011),
    ],
)
def test_a_code_that_may_not_be_sent_is_replaced(asked: int, legal: int) -> None:
    """1005 means "no code" and becomes 1000, every other illegal code 1011, a legal one stays."""
    assert legal_code(asked) == legal


class Foreign(enum.IntEnum):
    """Close codes of somebody else."""

    MINE = 4321


def test_a_foreign_enum_becomes_a_plain_integer() -> None:
    """A code of a foreign `IntEnum` leaves as `int`, so that no foreign text reaches a log or a label."""
    assert type(legal_code(Foreign.MINE)) is int
    assert legal_code(Foreign.MINE) == 4321


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("", ""),
        ("bye", "bye"),
        ("a" * 123, "a" * 123),
        ("a" * 124, "a" * 123),
        ("é" * 61, "é" * 61),
        ("é" * 62, "é" * 61),
        ("a" + "é" * 61, "a" + "é" * 61),
        ("€" * 41, "€" * 41),
        ("a" + "€" * 41, "a" + "€" * 40),
        ("aa" + "€" * 41, "aa" + "€" * 40),
        ("😀" * 31, "😀" * 30),
        ("\ud800", "?"),
        ("a\udfffb", "a?b"),
        ("\ud83d" * 200, "?" * 123),
    ],
)
def test_a_reason_is_cut_between_characters(reason: str, cut: str) -> None:
    """The longest beginning that fits into 123 bytes of UTF-8 stays; a lone surrogate becomes a question mark."""
    assert legal_reason(reason) == cut
    assert len(legal_reason(reason).encode("utf-8")) <= MAX_REASON_BYTES == 123


STATUS = {
    1000: CloseStatus.NORMAL_CLOSURE,
    1001: CloseStatus.GOING_AWAY,
    1002: CloseStatus.PROTOCOL_ERROR,
    1003: CloseStatus.PROTOCOL_ERROR,
    1004: CloseStatus.NORMAL_CLOSURE,
    1005: CloseStatus.GOING_AWAY,
    1006: CloseStatus.GOING_AWAY,
    1007: CloseStatus.PROTOCOL_ERROR,
    1008: CloseStatus.PROTOCOL_ERROR,
    1009: CloseStatus.PROTOCOL_ERROR,
    1010: CloseStatus.PROTOCOL_ERROR,
    1011: CloseStatus.NORMAL_CLOSURE,
    1012: CloseStatus.SHUTDOWN,
    1013: CloseStatus.NORMAL_CLOSURE,
    3000: CloseStatus.NORMAL_CLOSURE,
    4321: CloseStatus.NORMAL_CLOSURE,
}


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_a_disconnect_is_classified(code: int, status: CloseStatus) -> None:
    """What accuses is a protocol error; 1001, 1005 and 1006 say that the peer went; 1012 is the server's restart."""
    assert peer_status(code) is status


def test_only_1005_and_1006_tell_no_cause() -> None:
    """1005 and 1006 are the server's taste; every other code came from a peer."""
    assert [code for code in range(65536) if not tells_cause(code)] == [1005, 1006]


@pytest.mark.parametrize("word", [*Initiator, *CloseStatus])
def test_words_are_their_values(word: Initiator | CloseStatus) -> None:
    """A word prints as its value on every Python, in a log line and as a metric attribute."""
    assert str(word) == word.value == word == f"{word}"
    assert word.value == word.name.lower()


def test_the_vocabulary_is_that_of_the_design() -> None:
    """The finite sets are those that the telemetry model promises."""
    assert [str(one) for one in Initiator] == ["client", "application", "guard", "transport"]
    assert {str(one) for one in CloseStatus} == {
        *("normal_closure", "going_away", "app_close", "app_error", "denied", "timeout", "slow_consumer"),
        *("rate_limited", "unauthorized", "transport_error", "protocol_error", "shutdown"),
    }
    assert {code.value for code in CloseCode} == {*range(1000, 1016), 4401} - {1004}
