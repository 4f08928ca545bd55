"""Authentication by the first message: the handshake is open, the message decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from handshakes import handshake
from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard import Allow, Close, CloseStatus, ConfigurationError, Deny, FirstMessage, Identity
from asgi_ws_guard.plugins.auth import FirstMessageAuth, Tickets, json_field, tokens

TOKEN = "s3cr3t-token"
ANN = tokens({TOKEN: "ann"})


def first(policy: FirstMessageAuth, **asked: Any) -> FirstMessage:
    """Come in, and give what judges the first message."""
    answer = policy.admit(handshake(**asked))
    assert answer.identity is None
    assert answer.first_message is not None
    return answer.first_message


def say(policy: FirstMessageAuth, message: str | bytes, **asked: Any) -> Allow | Close:
    """Send a first message."""

    async def main() -> Allow | Close:
        answer = first(policy, **asked)(message)
        return await answer if isinstance(answer, Awaitable) else answer

    answer = asyncio.run(main())
    assert isinstance(answer, Allow | Close)
    assert TOKEN not in repr(answer)
    return answer


def test_the_first_message_tells_who_it_is() -> None:
    """Plain, or a field of JSON in text or bytes; the identity has a label."""
    plain, fields = FirstMessageAuth(ANN), FirstMessageAuth(ANN, extract=json_field("token"))
    for answer in (
        say(plain, TOKEN),
        say(fields, f'{{"type": "auth", "token": "{TOKEN}"}}'),
        say(fields, f'{{"token": "{TOKEN}"}}'.encode()),
    ):
        assert isinstance(answer, Allow)
        assert answer.identity is not None
        assert answer.identity.subject == "ann"
        assert len(answer.identity.label) == 16


def test_the_deadline_is_the_sessions_to_keep() -> None:
    """It is told how long to wait."""
    assert first(FirstMessageAuth(ANN)).timeout_s == 5.0
    assert first(FirstMessageAuth(ANN, timeout_s=0.5)).timeout_s == 0.5


def test_a_ticket_may_be_the_first_message() -> None:
    """Bound to what the handshake was, and good once."""
    tickets = Tickets(TOKEN * 2)
    policy = FirstMessageAuth(tickets)
    assert say(policy, tickets.mint("ann", path="/other")) == Close(4401, "misplaced", CloseStatus.UNAUTHORIZED)
    ticket = tickets.mint("ann", path="/room")
    assert isinstance(say(policy, ticket), Allow)
    assert say(policy, ticket) == Close(4401, "replayed", CloseStatus.UNAUTHORIZED)


@pytest.mark.parametrize(
    ("policy", "message", "code", "reason"),
    [
        (FirstMessageAuth(ANN), "wrong", 4401, "rejected"),
        (FirstMessageAuth(ANN), "", 4401, "no_token"),
        (FirstMessageAuth(ANN), TOKEN.encode(), 4401, "malformed"),
        (FirstMessageAuth(ANN), "x" * 1_000_000, 1009, "too_long"),
        (FirstMessageAuth(ANN), b"x" * 1_000_000, 1009, "too_long"),
        (FirstMessageAuth(ANN, max_bytes=10), "ä" * 6, 1009, "too_long"),
        (FirstMessageAuth(ANN, extract=json_field("token")), TOKEN, 4401, "malformed"),
        (FirstMessageAuth(ANN, extract=json_field("token")), '{"token": 7}', 4401, "malformed"),
        (FirstMessageAuth(ANN, extract=json_field("token")), "[]", 4401, "malformed"),
        (FirstMessageAuth(ANN, extract=json_field("token")), b"\xff\xfe", 4401, "malformed"),
        (FirstMessageAuth(ANN, extract=json_field("token")), "[" * 8000, 4401, "malformed"),
        (FirstMessageAuth(lambda _: None), "x", 4401, "rejected"),
        (FirstMessageAuth(lambda _: ("ann", [])), "x", 1011, "unhashable"),
        (FirstMessageAuth(lambda _: Identity("ann", 1.0)), "x", 4401, "expired"),
        (FirstMessageAuth(lambda _: Deny(status=402, reason="unpaid")), "x", 4401, "unpaid"),
        (FirstMessageAuth(lambda _: Deny(status=503, reason="away")), "x", 1013, "away"),
        (FirstMessageAuth(lambda _: asyncio.sleep(60), timeout_s=0.01), "x", 1013, "timeout"),
    ],
)
def test_a_bad_first_message_closes(policy: FirstMessageAuth, message: str | bytes, code: int, reason: str) -> None:
    """4401 for the client's fault, 1009 for its size, 1013 and 1011 for the server's."""
    answer = say(policy, message)
    assert isinstance(answer, Close)
    assert (answer.code, answer.reason) == (code, reason)


def test_whatever_raises_closes_and_its_text_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """In `extract` as in `authenticate`."""

    def fails(message: object) -> Any:
        raise KeyError(message)

    with caplog.at_level(logging.DEBUG):
        answers = [say(FirstMessageAuth(fails), TOKEN), say(FirstMessageAuth(ANN, extract=fails), TOKEN)]
    assert answers == [Close(1011, "failed", CloseStatus.DENIED)] * 2
    assert caplog.text.count("KeyError at") == 2
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FirstMessageAuth(7), "authenticate"),  # type: ignore[arg-type]
        (lambda: FirstMessageAuth(ANN, timeout_s=None), "timeout_s"),  # type: ignore[arg-type]
        (lambda: FirstMessageAuth(ANN, timeout_s=0), "timeout_s"),
        (lambda: FirstMessageAuth(ANN, max_bytes=0), "max_bytes"),
        (lambda: FirstMessageAuth(ANN, extract="token"), "extract"),  # type: ignore[arg-type]
        (lambda: FirstMessageAuth(ANN, label_key=b"x"), "label_key"),
        (lambda: json_field(""), "name"),
    ],
)
def test_a_wrong_option_is_named(make: Any, name: str) -> None:
    """The option, the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        make()


@given(
    st.text() | st.binary() | st.just('{"token": "x"}'),
    st.sampled_from([FirstMessageAuth(ANN), FirstMessageAuth(ANN, extract=json_field("token"))]),
)
def test_whatever_comes_first_closes(message: str | bytes, policy: FirstMessageAuth) -> None:
    """No message of a stranger's raises or passes."""
    assert isinstance(say(policy, message), Close)
