"""To whom a message is addressed, by names that are checked here and nowhere else."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .._exceptions import ConfigurationError

MAX_NAME_BYTES = 256
"""Bytes of UTF-8 in the name of a room or a user: a name is part of a key in a backend."""
_SHOWN = 40


class Target(NamedTuple):
    """
    A room, a user, or all.

    Attributes:
        kind: ``"room"``, ``"user"`` or ``"all"``.
        name: Its name; empty for all.
    """

    kind: Literal["room", "user", "all"]
    name: str = ""

    @property
    def room(self) -> str | None:
        """Name of the room, None for a user or all."""
        return self.name if self.kind == "room" else None


def check_name(kind: str, name: object) -> str:
    """
    Check the name of a room or a user.

    Args:
        kind: ``"room"`` or ``"user"``, for the text of the error.
        name: The name.

    Returns:
        The name.

    Raises:
        ConfigurationError: It is no `str`, empty, too long, or has no UTF-8 form.
    """
    if isinstance(name, str) and name:
        try:
            if len(name) <= MAX_NAME_BYTES and len(name.encode("utf-8")) <= MAX_NAME_BYTES:
                return name
        except UnicodeEncodeError:
            pass
        shown: object = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    else:
        shown = name if name == "" else type(name)
    raise ConfigurationError(kind, shown, f"a str of 1 to {MAX_NAME_BYTES} bytes of UTF-8")
