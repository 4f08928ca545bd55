"""What stands in for what no seed replays: sets in the order of addresses, the time of day, chance, and the log."""

from __future__ import annotations

import logging
import random
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from asgi_ws_guard import _drain, _sending, _timing, _watch, _wheel

MISSING = object()


class InOrder(dict[Any, None]):
    """A set that is iterated in the order of insertion: by address, as the built-in one, no seed replays."""

    def __init__(self, things: Iterable[Any] = ()) -> None:
        super().__init__((one, None) for one in things)

    def add(self, one: Any) -> None:
        """Add one."""
        self[one] = None

    def discard(self, one: Any) -> None:
        """Remove one."""
        self.pop(one, None)

    def difference(self, others: Iterable[Any]) -> InOrder:
        """Give those that are not among the others."""
        without = tuple(others)
        return InOrder(one for one in self if one not in without)


class Stage:
    """The guard's modules for the time of a story."""

    def __init__(self, now: Callable[[], float], seed: int, *, is_lossy: bool) -> None:
        """
        Put everything in place.

        Args:
            now: The clock of the story, also of the day.
            seed: Of all chance.
            is_lossy: Whether the server is like granian.
        """
        self._granian = sys.modules.pop("granian._granian", None)
        if is_lossy:
            sys.modules["granian._granian"] = types.ModuleType("granian._granian")
        clock, chance = types.SimpleNamespace(time=now), random.Random(seed)
        self._replaced: list[tuple[Any, str, Any]] = []
        for module, name, thing in (
            (_sending, "set", InOrder),
            (_watch, "set", InOrder),
            (_wheel, "set", InOrder),
            (_drain, "set", InOrder),
            (_timing, "time", clock),
            (_drain, "random", chance),
        ):
            self._replaced.append((module, name, vars(module).get(name, MISSING)))
            vars(module)[name] = thing
        self._log = logging.getLogger("asgi_ws_guard")
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL + 1)

    def clear(self) -> None:
        """Put everything back."""
        self._log.setLevel(self._level)
        for module, name, thing in self._replaced:
            if thing is MISSING:
                del vars(module)[name]
            else:
                vars(module)[name] = thing
        sys.modules.pop("granian._granian", None)
        if self._granian is not None:
            sys.modules["granian._granian"] = self._granian
