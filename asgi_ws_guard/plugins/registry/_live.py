"""
What a registry keeps of one live connection: little, and nothing that has no bound.

Times are seconds of the registry's clock. It takes no lock; the registry does.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ..._close import CloseStatus, Initiator
from ..._events import Handshake

MAX_TEXT = 200
"""Characters of a path, a route or an address that are kept."""


class End(NamedTuple):
    """
    How a connection ended, without the close reason: that is foreign text.

    Attributes:
        at_s: When.
        status: The class of the end.
        initiator: Who ended it.
        code: Close code, None when there was none.
    """

    at_s: float
    status: CloseStatus
    initiator: Initiator
    code: int | None


class Live:
    """
    One connection whose handler is running.

    Attributes:
        number: Its place in the order of opening.
        end: How it ended, None while it has not.
        identity: The label of who is behind it, None when nobody knows.
        is_zombie: Whether its handler was said to outlive it.
    """

    __slots__ = (
        "_accepted_at_s",
        "_client",
        "_connection_id",
        "_opened_at_s",
        "_path",
        "_route",
        "_scheme",
        "end",
        "identity",
        "is_zombie",
        "number",
    )

    def __init__(self, number: int, connection_id: str, handshake: Handshake, at_s: float) -> None:
        self.number = number
        self.end: End | None = None
        self.identity: str | None = None
        self.is_zombie = False
        self._connection_id = connection_id
        self._path = handshake.path[:MAX_TEXT]
        self._route: str | None = None
        self._scheme = "wss" if handshake.scheme == "wss" else "ws"
        self._client = _address(handshake.client)
        self._opened_at_s = at_s
        self._accepted_at_s: float | None = None

    def accept(self, route: str | None, at_s: float) -> None:
        """
        Take note of the accept.

        Args:
            route: Route template, None when none is known.
            at_s: Now.
        """
        self._route = None if route is None else route[:MAX_TEXT]
        self._accepted_at_s = at_s

    @property
    def is_accepted(self) -> bool:
        """Whether the application accepted the handshake."""
        return self._accepted_at_s is not None

    @property
    def state(self) -> Literal["connecting", "open", "ended"]:
        """One word for where it is."""
        if self.end is not None:
            return "ended"
        return "open" if self.is_accepted else "connecting"

    def duration_s(self, now_s: float) -> float:
        """
        Give the seconds from the accept to the end or to now; 0 when it was not accepted.

        Args:
            now_s: Now.
        """
        until_s = now_s if self.end is None else self.end.at_s
        return 0.0 if self._accepted_at_s is None else until_s - self._accepted_at_s

    def record(self, now_s: float) -> dict[str, Any]:
        """
        Give all values of a `ConnectionRecord` but its books.

        Args:
            now_s: Now.
        """
        end = self.end
        return {
            "number": self.number,
            "connection_id": self._connection_id,
            "path": self._path,
            "route": self._route,
            "scheme": self._scheme,
            "client": self._client,
            "identity": self.identity,
            "state": self.state,
            "is_accepted": self.is_accepted,
            "is_zombie": self.is_zombie,
            "opened_s": now_s - self._opened_at_s,
            "duration_s": self.duration_s(now_s),
            "lingered_s": 0.0 if end is None else now_s - end.at_s,
            "code": None if end is None else end.code,
            "initiator": None if end is None else str(end.initiator),
            "status": None if end is None else str(end.status),
        }


def _address(client: tuple[object, object] | None) -> tuple[str, int | None] | None:
    if client is None:
        return None
    host, port = client
    return str(host)[:MAX_TEXT], port if isinstance(port, int) else None
