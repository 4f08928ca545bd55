"""The outer edge: which exceptions end at the guard, alone and in groups (G8)."""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import starlette.websockets

from asgi_ws_guard import ConfigurationError, ConnectionClosed, Initiator, ProtocolError
from asgi_ws_guard._edge import _PEER_LEFT, _REFUSED, is_disconnect, without_disconnects

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

OWN = ConnectionClosed(1001, "away", Initiator.CLIENT)
FRAMEWORK = starlette.websockets.WebSocketDisconnect(1001)


def class_of(module: str, name: str, base: type[Exception] = Exception) -> type[Exception]:
    """Make a class that calls itself as a server's or framework's does."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


UVICORN = class_of("uvicorn.protocols.utils", "ClientDisconnected", OSError)()
DAPHNE = class_of("autobahn.exception", "Disconnected", RuntimeError)("Attempt to send on a closed protocol")
HYPERCORN = class_of("hypercorn.utils", "UnexpectedMessageError")(
    "Unexpected message type, websocket.send given the state ASGIWebsocketState.CLOSED"
)

DISCONNECTS = [OWN, FRAMEWORK, UVICORN, DAPHNE, HYPERCORN]
REAL = [
    ValueError("x"),
    OSError("disk"),
    ConnectionResetError("database"),
    BrokenPipeError(),
    TimeoutError(),
    FileNotFoundError("x"),
    RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'."),
    ProtocolError("x", state="OPEN", message_type=None, allowed=()),
    ConfigurationError("x", 1, "y"),
    class_of("hypercorn.utils", "UnexpectedMessageError")("given the state ASGIWebsocketState.HANDSHAKE"),
    class_of("my.application", "WebSocketDisconnect")(),
    class_of("my.application", "ClientDisconnected", OSError)(),
]
NEVER = [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]


@pytest.mark.parametrize("error", DISCONNECTS, ids=lambda error: type(error).__name__)
def test_a_disconnect_error(error: Exception) -> None:
    """What says nothing but that the connection is gone ends at the guard; a subclass of it too."""
    assert is_disconnect(error)
    for peer_left in (True, False):
        assert is_disconnect(error, peer_left=peer_left)
        assert without_disconnects(error, peer_left=peer_left) is None
    child = type("Child", (type(error),), {"__init__": lambda self, *text: None, "__str__": lambda self: str(error)})()
    assert is_disconnect(child)


@pytest.mark.parametrize("error", REAL, ids=lambda error: type(error).__name__)
def test_a_real_error(error: Exception) -> None:
    """Anything else stays, the same object: also a plain `OSError`, and what only a call to the server explains."""
    assert not is_disconnect(error)
    assert without_disconnects(error, peer_left=True) is error


@pytest.mark.parametrize("error", NEVER, ids=lambda error: type(error).__name__)
def test_cancellation_always_propagates(error: BaseException) -> None:
    """A cancellation, and every other `BaseException`, goes on."""
    assert not is_disconnect(error)
    assert without_disconnects(error, peer_left=True) is error


def test_nothing_is_no_disconnect() -> None:
    """None, as a task gives when nothing left it, is no error at all."""
    assert not is_disconnect(None)


# --- frameworks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("peer_left", [True, False])
def test_a_refusal_of_starlette(*, peer_left: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What Starlette raises when its own object is closed says that the peer left, if the peer did.

    After the application's own close the same error is a mistake in the application, and stays loud (starlette 1.10).
    """
    module = starlette.websockets
    if not hasattr(module, "WebSocketDisconnected"):  # an older one
        refusal = class_of(module.__name__, "WebSocketDisconnected", RuntimeError)
        monkeypatch.setattr(module, "WebSocketDisconnected", refusal, raising=False)
    error = module.WebSocketDisconnected("x")
    assert is_disconnect(error), "a task's error is judged as if the peer had left"
    group = ExceptionGroup("a", [OWN, error])
    assert is_disconnect(error, peer_left=peer_left) is peer_left
    assert is_disconnect(group, peer_left=peer_left) is peer_left
    if peer_left:
        assert without_disconnects(error, peer_left=True) is None
        assert without_disconnects(group, peer_left=True) is None
        return
    assert without_disconnects(error, peer_left=False) is error
    left = without_disconnects(group, peer_left=False)
    assert isinstance(left, ExceptionGroup)
    assert left.exceptions == (error,)


@contextmanager
def framework(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Exception]]:
    """Give the real class of an installed framework, else a stand-in in a module of that name."""
    if importlib.util.find_spec(module.partition(".")[0]) is not None:
        kind = getattr(importlib.import_module(module), name, None)
    else:
        kind = None
    if kind is not None:
        assert issubclass(kind, Exception)
        yield kind
        return
    with monkeypatch.context() as patch:
        stand_in = ModuleType(module)
        kind = class_of(module, name)
        setattr(stand_in, name, kind)
        patch.setitem(sys.modules, module, stand_in)
        yield kind


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("starlette.websockets", "WebSocketDisconnect"),
        ("litestar.exceptions", "WebSocketDisconnect"),
        ("falcon", "WebSocketDisconnected"),
        ("blacksheep.server.websocket", "WebSocketDisconnectError"),
        ("quart.wrappers.base", "ClientDisconnectedError"),
    ],
)
def test_the_types_of_the_frameworks(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The type by which a framework says that the connection is gone ends at the guard.

    starlette 1.10, litestar 2.25, falcon 4.4, blacksheep 2.6, quart 0.23: their own class where it is installed.
    """
    with framework(module, name, monkeypatch) as kind:
        error = kind.__new__(kind)
        assert is_disconnect(error)
        assert without_disconnects(error, peer_left=True) is None


@pytest.mark.parametrize(("module", "name"), [*_PEER_LEFT, *_REFUSED])
def test_a_framework_is_looked_up_and_never_imported(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework that nobody imported is not imported to ask; one that has no such type is passed over."""
    missing = class_of(module, name)()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)
        assert not is_disconnect(missing)
        assert module not in sys.modules
        for stand_in in (None, "no class", object, int):
            fake = ModuleType(module)
            if stand_in is not None:
                setattr(fake, name, stand_in)
            patch.setitem(sys.modules, module, fake)
            assert not is_disconnect(missing)
            assert not is_disconnect(ValueError())


# --- groups --------------------------------------------------------------------------------------


def test_a_group_of_disconnects() -> None:
    """A group that holds nothing else, at any depth, says no more than its members."""
    group = ExceptionGroup("a", [OWN, ExceptionGroup("b", [FRAMEWORK, ExceptionGroup("c", [UVICORN])])])
    assert is_disconnect(group)
    assert without_disconnects(group, peer_left=True) is None
    assert is_disconnect(BaseExceptionGroup("a", [OWN]))


def test_a_group_of_real_errors() -> None:
    """A group without any disconnect goes on as the same object."""
    group = ExceptionGroup("a", [ValueError(), ExceptionGroup("b", [OSError("disk")])])
    assert not is_disconnect(group)
    assert without_disconnects(group, peer_left=True) is group


def test_a_group_with_a_real_error() -> None:
    """It goes on with the real errors alone, nested as they were, with its text, traceback, cause and notes."""
    real, deep, cause = ValueError("real"), OSError("disk"), KeyError("cause")
    group = ExceptionGroup("a", [OWN, real, ExceptionGroup("b", [FRAMEWORK, deep]), ExceptionGroup("c", [DAPHNE])])
    group.add_note("a note")
    with pytest.raises(ExceptionGroup) as caught:
        raise group from cause
    left = without_disconnects(caught.value, peer_left=True)
    assert isinstance(left, ExceptionGroup)
    assert left is not group
    assert left.message == "a"
    assert len(left.exceptions) == 2
    assert left.exceptions[0] is real
    nested = left.exceptions[1]
    assert isinstance(nested, ExceptionGroup)
    assert (nested.message, nested.exceptions) == ("b", (deep,))
    assert left.__cause__ is cause
    assert left.__traceback__ is not None
    assert left.__notes__ == ["a note"]
    assert not is_disconnect(group)


@pytest.mark.parametrize("error", NEVER, ids=lambda error: type(error).__name__)
def test_a_group_with_a_cancellation(error: BaseException) -> None:
    """A cancellation inside a group is never lost with the disconnects."""
    left = without_disconnects(BaseExceptionGroup("a", [OWN, BaseExceptionGroup("b", [error])]), peer_left=True)
    assert isinstance(left, BaseExceptionGroup)
    (nested,) = left.exceptions
    assert isinstance(nested, BaseExceptionGroup)
    assert nested.exceptions == (error,)


def test_python_3_10_without_exception_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without built-in groups, and with nobody who imported the package, what looks like a group is a real error."""
    group = ExceptionGroup("a", [OWN])
    with monkeypatch.context() as patch:
        patch.delattr(builtins, "BaseExceptionGroup", raising=False)
        patch.delitem(sys.modules, "exceptiongroup", raising=False)
        found, left, alone = (
            is_disconnect(group),
            without_disconnects(group, peer_left=True),
            without_disconnects(OWN, peer_left=True),
        )
        is_imported = "exceptiongroup" in sys.modules
    assert not found
    assert left is group
    assert alone is None
    assert not is_imported


def test_python_3_10_with_exception_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without built-in groups, those of the package from PyPI count, once anybody has imported it."""
    real = ValueError()
    group, mixed = ExceptionGroup("a", [OWN]), ExceptionGroup("b", [OWN, real])
    package = ModuleType("exceptiongroup")
    package.BaseExceptionGroup = BaseExceptionGroup  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.delattr(builtins, "BaseExceptionGroup", raising=False)
        patch.setitem(sys.modules, "exceptiongroup", package)
        found, left = is_disconnect(group), without_disconnects(mixed, peer_left=True)
    assert found
    assert isinstance(left, ExceptionGroup)
    assert left.exceptions == (real,)
