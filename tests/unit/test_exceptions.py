"""The exceptions: what they are, what they say and what they carry."""

from __future__ import annotations

import pickle

import pytest

from asgi_ws_guard import ConfigurationError, ConnectionClosed, GuardError, Initiator, ProtocolError


@pytest.mark.parametrize(
    ("kind", "also"),
    [(ConfigurationError, ValueError), (ProtocolError, RuntimeError), (ConnectionClosed, OSError)],
)
def test_the_hierarchy(kind: type[Exception], also: type[Exception]) -> None:
    """Each is a `GuardError` and the built-in that a caller would expect, and not one of the others."""
    assert issubclass(kind, GuardError)
    assert issubclass(kind, also)
    others = {ValueError, RuntimeError, OSError} - {also}
    assert not issubclass(kind, tuple(others))
    assert issubclass(GuardError, Exception)


def test_a_wrong_option_is_named() -> None:
    """The text names option, value and what is allowed; so do the attributes."""
    error = ConfigurationError("linger_s", -1, "a number of seconds")
    assert str(error) == "linger_s=-1 is not allowed: expected a number of seconds"
    assert (error.option, error.value, error.allowed) == ("linger_s", -1, "a number of seconds")


@pytest.mark.parametrize(
    ("allowed", "now"),
    [
        (("websocket.accept", "websocket.close"), "websocket.accept, websocket.close"),
        (("websocket.send",), "websocket.send"),
        ((), "nothing"),
    ],
)
def test_misuse_is_named(allowed: tuple[str, ...], now: str) -> None:
    """The text says what was done, in which state, and what is allowed now (G7)."""
    error = ProtocolError("the application sent 'x'", state="OPEN", message_type="x", allowed=allowed)
    assert str(error) == f"the application sent 'x' (state OPEN; allowed now: {now})"
    assert (error.state, error.message_type, error.allowed) == ("OPEN", "x", allowed)


@pytest.mark.parametrize(("code", "reason"), [(1001, "away"), (None, "")])
def test_a_closed_connection_carries_its_end(code: int | None, reason: str) -> None:
    """It tells code, reason and initiator; the text leaves out the reason, which is foreign."""
    error = ConnectionClosed(code, reason, Initiator.CLIENT)
    assert (error.close_code, error.close_reason, error.initiator) == (code, reason, Initiator.CLIENT)
    assert str(error) == f"the WebSocket connection was ended by the client (close code {code})"


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("watch", 5, "True or False"),
        ProtocolError("the application sent 'x'", "OPEN", "x", ("websocket.close", "websocket.send")),
        ConnectionClosed(1001, "bye", Initiator.CLIENT),
    ],
)
def test_an_error_survives_a_process_boundary(error: Exception) -> None:
    """Each can be pickled and copied, with its text and its attributes."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
