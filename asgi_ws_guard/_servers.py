"""
What each server does that the specification does not say: one table, by exception type and version (G2).

Every row has an interop test of the same server (``tests/interop``). Exceptions are recognised by name, so that no
server is ever imported. Nothing here is a guess: an exception without a row is a real error and goes on unchanged.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gone:
    """
    One way in which a server says in `send` or `receive` that the connection is gone.

    Attributes:
        server: Name of the server and its implementation.
        versions: Versions in which it was seen.
        exception: Module and qualified name of the exception's class, or of a base of it.
        text: Pattern that its text must contain; None when the class alone says it.
    """

    server: str
    versions: str
    exception: str
    text: re.Pattern[str] | None = None


GONE: tuple[Gone, ...] = (
    # ASGI WebSocket 2.4: "an OSError subclass"; uvicorn's ClientDisconnected and asyncio's ConnectionError are such.
    Gone("any server of ASGI 2.4", "spec_version 2.4", "builtins.OSError"),
    Gone(
        "uvicorn websockets, sansio and wsproto",
        "0.30 to 0.54",
        "builtins.RuntimeError",
        re.compile(r"^Unexpected ASGI message 'websocket\.(send|close)', after sending 'websocket\.close'"),
    ),
    # the accept found the transport closing: the server says nothing, and goes on to wait for an accept
    Gone(
        "uvicorn websockets-sansio, behind the accept",
        "0.54",
        "builtins.RuntimeError",
        re.compile(r"^Expected ASGI message 'websocket\.accept', .* but got 'websocket\.send'\.$"),
    ),
    # the server has ended its own side, behind a client that left without a close, and has not said so yet
    Gone(
        "uvicorn websockets, close",
        "0.54",
        "builtins.RuntimeError",
        re.compile(r"^Cannot call write\(\) after write_eof\(\)$"),
    ),
    # the client has left between the accept and the start of the server's reader
    Gone(
        "uvicorn websockets, close behind the accept",
        "0.54",
        "builtins.AttributeError",
        re.compile(r"^'WebSocketProtocol' object has no attribute 'transfer_data_task'$"),
    ),
    # to a denial with a body, behind a client that left during the handshake
    Gone(
        "uvicorn wsproto, denial",
        "0.35",
        "builtins.RuntimeError",
        re.compile(r"^Expected ASGI message 'websocket\.send' or .* but got 'websocket\.http\.response\.start'\.$"),
    ),
    Gone(
        "hypercorn",
        "0.17 to 0.18",
        "hypercorn.utils.UnexpectedMessageError",
        re.compile(r"ASGIWebsocketState\.(CLOSED|HTTPCLOSED)"),
    ),
    # to a denial with a body, behind a client that left during the handshake; the guard itself allows one answer only
    Gone(
        "granian, denial",
        "2.8",
        "builtins.RuntimeError",
        re.compile(r"^ASGI flow error: Connection already upgraded$"),
    ),
    Gone("daphne", "4.1 to 4.2", "autobahn.exception.Disconnected"),
    # later ones are silent; "not initialized" cannot be: the guard lets no send pass before the accept
    Gone(
        "granian",
        "2.7.3 to 2.8.0",
        "builtins.RuntimeError",
        re.compile(r"^ASGI flow error: Transport not initialized or closed$"),
    ),
)


def peer_lost(error: BaseException) -> bool:
    """
    Tell whether a server raised *error* to say that the connection is gone.

    Args:
        error: What came out of the server's own `send` or `receive`.

    Returns:
        True when a row of `GONE` names its class and its text.
    """
    names = _names(type(error))
    return any(row.exception in names and (row.text is None or row.text.search(str(error))) for row in GONE)


def server_says_gone(error: BaseException) -> bool:
    """
    Tell whether *error*, met outside of a call to the server, can only be a server's word for a lost peer.

    A plain `OSError` is not: an application that ends may well fail to open a file.

    Args:
        error: What left the application's handler.

    Returns:
        True when a row with a class of the server's own names it, or uvicorn's `ClientDisconnected`.
    """
    names = _names(type(error))
    own = {row.exception for row in GONE if not row.exception.startswith("builtins.")}
    return "uvicorn.protocols.utils.ClientDisconnected" in names or (bool(own & names) and peer_lost(error))


def refuses_code(error: BaseException) -> bool:
    """
    Tell whether a server refused to send a close code that RFC 6455 allows.

    daphne 4.2 (autobahn) sends 1000 and 3000 to 4999 only, and raises before it does anything.

    Args:
        error: What came out of the server's own `send` of a close.
    """
    return type(error) is Exception and str(error).startswith("invalid close code")


def private_code(code: int) -> int:
    """
    Give the code that tells most to a client of a server that sends no registered code but 1000.

    Args:
        code: Registered close code, 1001 to 1014.

    Returns:
        The same number in the range for private use, 4001 to 4014: 1012 and 4012 both ask for another try, and
        1000 would tell the client that all is well.
    """
    return 3000 + code


def cancel_loses_messages() -> bool:
    """
    Tell whether this process runs on a server whose `receive` must not be cancelled.

    granian 2.8 loses messages when a `receive` is cancelled, and deadlocks when a close is sent while one is pending.
    The module is asked, not the callable, because other middleware may stand in between.
    """
    return "granian._granian" in sys.modules


def hypercorn_of(task: object | None) -> Hypercorn | None:
    """
    Give what hypercorn, of all servers, does not say of a connection, and keeps for itself.

    Args:
        task: The task that serves the connection. Whose code it runs is looked at, because Quart imports hypercorn on
            every server; and its own variables, because other middleware may stand in between.
    """
    coroutine = getattr(task, "get_coro", lambda: None)()
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None or not str(frame.f_globals.get("__name__")).startswith("hypercorn."):
        return None
    return Hypercorn(getattr(frame.f_locals.get("send"), "__self__", None))


class Hypercorn:
    """
    One connection of hypercorn 0.17 and 0.18, for as long as its application runs, and behind that.

    It holds ten messages that nobody reads, and then waits for room before it delivers more, or the disconnect. Until
    that has been read it keeps the connection, also when the handler is done.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        """
        Look at a connection.

        Args:
            stream: hypercorn's own object for it; None when there is none where it was looked for.
        """
        self._stream = stream

    @property
    def has_closed(self) -> bool:
        """
        Whether it takes no message any more, whatever it has delivered.

        It is so before it waits for room for the disconnect, in the `send` that found the transport closed. When that
        is cancelled nobody delivers the disconnect, and a `receive` waits for ever.
        """
        return bool(getattr(self._stream, "closed", False))

    @property
    def is_served(self) -> bool:
        """
        Whether it still reads from the client's only connection, so that it may deliver messages.

        An answer to a ping may be held up by a client that does not read, and what had arrived behind the ping is
        delivered only behind it, whenever that is. A connection of HTTP/2 has other streams, which go on.
        """
        if getattr(getattr(self._stream, "handshake", None), "http_version", None) != "1.1":
            return False
        group = getattr(getattr(self._stream, "task_group", None), "_task_group", None)
        task = getattr(group, "_parent_task", None)
        return task is not None and not task.done()


def _names(kind: type) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
