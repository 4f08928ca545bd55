"""The table of what servers raise: each row matches what was seen, and nothing that only looks like it (G2)."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from asgi_ws_guard import ConnectionClosed, Initiator
from asgi_ws_guard._servers import (
    GONE,
    cancel_loses_messages,
    peer_lost,
    private_code,
    refuses_code,
    server_says_gone,
)


def error_of(name: str, text: str = "", base: type[BaseException] = Exception) -> BaseException:
    """Make an error whose class has the whole *name*, as that of a server that need not be installed."""
    module, _, plain = name.rpartition(".")
    kind = type(plain, (base,), {"__module__": module, "__qualname__": plain})
    error = kind(text) if text else kind()
    assert isinstance(error, BaseException)
    return error


UVICORN_SEND = (
    "Unexpected ASGI message 'websocket.send', after sending 'websocket.close' or response already completed."
)
UVICORN_CLOSE = "Unexpected ASGI message 'websocket.close', after sending 'websocket.close'."
UVICORN_ACCEPT = (
    "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
    "but got 'websocket.send'."
)
UVICORN_DENIAL = "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.http.response.start'."
HYPERCORN = "Unexpected message type, websocket.send given the state ASGIWebsocketState."

SEEN: dict[str, list[BaseException]] = {
    "any server of ASGI 2.4": [
        OSError(),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(),
        error_of("uvicorn.protocols.utils.ClientDisconnected", base=OSError),
        ConnectionClosed(1001, "", Initiator.CLIENT),
    ],
    "uvicorn websockets, sansio and wsproto": [RuntimeError(UVICORN_SEND), RuntimeError(UVICORN_CLOSE)],
    "uvicorn websockets-sansio, behind the accept": [RuntimeError(UVICORN_ACCEPT)],
    "uvicorn websockets, close": [RuntimeError("Cannot call write() after write_eof()")],
    "uvicorn websockets, close behind the accept": [
        AttributeError("'WebSocketProtocol' object has no attribute 'transfer_data_task'")
    ],
    "uvicorn wsproto, denial": [RuntimeError(UVICORN_DENIAL)],
    "hypercorn": [
        error_of("hypercorn.utils.UnexpectedMessageError", f"{HYPERCORN}CLOSED"),
        error_of("hypercorn.utils.UnexpectedMessageError", f"{HYPERCORN}HTTPCLOSED"),
    ],
    "granian, denial": [RuntimeError("ASGI flow error: Connection already upgraded")],
    "daphne": [
        error_of("autobahn.exception.Disconnected", "Attempt to send on a closed protocol", RuntimeError),
        error_of("autobahn.exception.Disconnected", base=RuntimeError),
    ],
    "granian": [RuntimeError("ASGI flow error: Transport not initialized or closed")],
}

NEAR_MISSES: list[BaseException] = [
    # the right class, another text
    RuntimeError(),
    RuntimeError("x"),
    RuntimeError("Event loop is closed"),
    RuntimeError("Unexpected ASGI message 'websocket.accept', after sending 'websocket.close'."),
    RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.accept'."),
    RuntimeError("Unexpected ASGI message 'http.response.start', after sending 'websocket.close'."),
    RuntimeError("Expected ASGI message 'websocket.accept', but got 'websocket.send'."),
    RuntimeError(UVICORN_DENIAL.replace("websocket.http.response.start", "websocket.accept")),
    RuntimeError(f"logged: {UVICORN_SEND}"),
    RuntimeError(UVICORN_SEND.replace("websocket.send", "websocketXsend")),
    RuntimeError("ASGI flow error"),  # of granian 2.8: misuse, of any sort
    RuntimeError("ASGI flow error: Transport not initialized"),
    RuntimeError('Cannot call "send" once a close message has been sent.'),
    error_of("hypercorn.utils.UnexpectedMessageError", f"{HYPERCORN}HANDSHAKE"),
    error_of("hypercorn.utils.UnexpectedMessageError", f"{HYPERCORN}CONNECTED"),
    error_of("hypercorn.utils.UnexpectedMessageError", f"{HYPERCORN}RESPONSE"),
    RuntimeError("Cannot call write() after close()"),
    AttributeError("'WebSocketProtocol' object has no attribute 'transfer_data'"),
    AttributeError("'NoneType' object has no attribute 'transfer_data_task'"),
    # the right text or name, another class
    ValueError(UVICORN_SEND),
    error_of("hypercorn.UnexpectedMessageError", f"{HYPERCORN}CLOSED"),
    error_of("my.application.UnexpectedMessageError", f"{HYPERCORN}CLOSED"),
    error_of("my.autobahn.exception.Disconnected", base=RuntimeError),
    error_of("autobahn.exception.TransportLost"),
    error_of("autobahn.exception.Disconnected.Inner"),
    error_of("my.OSError"),
    # what is never a word of a server about its peer
    ValueError("invalid close code"),
    KeyError("websocket.send"),
    TypeError(),
    KeyboardInterrupt(),
]

ROWS = [(row.server, error) for row in GONE for error in SEEN[row.server]]


def test_every_row_is_seen_here() -> None:
    """A row without an error below is a guess, and none is twice."""
    assert [row.server for row in GONE] == list(SEEN)
    assert all(row.versions for row in GONE)


@pytest.mark.parametrize(("server", "error"), ROWS, ids=lambda one: repr(one)[:60])
def test_a_row_matches_what_was_seen(server: str, error: BaseException) -> None:
    """Each error that the servers of FIELD.md were seen to raise says that the peer is gone."""
    assert peer_lost(error), server


@pytest.mark.parametrize(("server", "error"), ROWS, ids=lambda one: repr(one)[:60])
def test_a_row_is_needed(server: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is known by its own row: without it, it is a real error."""
    rest = tuple(row for row in GONE if row.server != server)
    monkeypatch.setattr("asgi_ws_guard._servers.GONE", rest)
    assert not peer_lost(error)


@pytest.mark.parametrize("error", NEAR_MISSES, ids=lambda error: repr(error)[:60])
def test_near_misses_are_real_errors(error: BaseException) -> None:
    """What only looks like a row goes on unchanged: over-swallowing hides real bugs."""
    assert not peer_lost(error)
    assert not server_says_gone(error)


@pytest.mark.parametrize(
    ("error", "says_gone"),
    [
        (error_of("uvicorn.protocols.utils.ClientDisconnected", base=OSError), True),
        (SEEN["daphne"][0], True),
        (SEEN["hypercorn"][0], True),
        (SEEN["hypercorn"][1], True),
        (OSError(), False),
        (ConnectionResetError("of a database"), False),
        (RuntimeError(UVICORN_SEND), False),
        (error_of("uvicorn.protocols.utils.Other", base=OSError), False),
        (error_of("my.protocols.utils.ClientDisconnected", base=OSError), False),
    ],
    ids=lambda one: repr(one)[:60],
)
def test_outside_of_a_send_only_own_classes_count(error: BaseException, *, says_gone: bool) -> None:
    """Away from the server, a built-in class may be anybody's: only classes that are a server's own are its word."""
    assert server_says_gone(error) is says_gone


def test_a_subclass_is_what_its_base_is() -> None:
    """A server that derives from its class in a later version is understood."""
    base = type(error_of("autobahn.exception.Disconnected"))
    child = type("Later", (base,), {"__module__": "autobahn.later"})()
    assert peer_lost(child)
    assert server_says_gone(child)


@pytest.mark.parametrize(
    ("error", "refuses"),
    [
        (Exception("invalid close code 1001 (must be 1000 or from [3000, 4999])"), True),
        (Exception("invalid close code"), True),
        (ValueError("invalid close code 1001"), False),
        (Exception("an invalid close code"), False),
        (Exception(), False),
    ],
)
def test_a_refused_close_code(error: Exception, *, refuses: bool) -> None:
    """The way of daphne 4.2 (autobahn) is a plain `Exception` with that text; nobody else's errors are it."""
    assert refuses_code(error) is refuses


@pytest.mark.parametrize(("code", "private"), [(1001, 4001), (1008, 4008), (1011, 4011), (1012, 4012), (1014, 4014)])
def test_a_private_code(code: int, private: int) -> None:
    """A registered code that a server cannot send becomes the same number in the range for private use."""
    assert private_code(code) == private


def test_granian_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that granian runs has its module; one that has only installed or imported the launcher has not."""
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "granian._granian", raising=False)
        patch.setitem(sys.modules, "granian", ModuleType("granian"))
        assert not cancel_loses_messages()
        patch.setitem(sys.modules, "granian._granian", ModuleType("granian._granian"))
        assert cancel_loses_messages()
