"""
What the probe application saw, read back from its record file.

The file is polled up to a deadline: a test never waits longer than it has to, and never sleeps a fixed time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

POLL_S = 0.01


class Records:
    """
    The records of one server process, by tag.

    Args:
        path: The file that the probe appends JSON lines to; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._by_tag: dict[str, list[Record]] = {}

    def of(self, tag: str, event: str | None = None) -> list[Record]:
        """
        Return the records of one connection so far.

        Args:
            tag: The tag that the client chose.
            event: Only records of this event; None means all.

        Returns:
            list: records in the order in which they were written.
        """
        self._read()
        found = self._by_tag.get(tag, [])
        return [record for record in found if event is None or record["event"] == event]

    def wait(self, tag: str, event: str, *, count: int = 1, timeout_s: float = 8.0) -> list[Record]:
        """
        Wait until a connection has written *count* records of an event.

        Args:
            tag: The tag that the client chose.
            event: The event to wait for.
            count: How many, 1 or more.
            timeout_s: Deadline in seconds.

        Returns:
            list: the records of that event.

        Raises:
            AssertionError: The deadline passed; the text shows all that is there.
        """
        return self.until(tag, lambda found: sum(one["event"] == event for one in found) >= count, timeout_s, event)

    def until(self, tag: str, done: Callable[[list[Record]], bool], timeout_s: float, event: str) -> list[Record]:
        """
        Wait until *done* is true of the records of one connection.

        Args:
            tag: The tag that the client chose.
            done: Is asked with all records of the tag.
            timeout_s: Deadline in seconds.
            event: Which records to return.

        Returns:
            list: the records of *event*.

        Raises:
            AssertionError: The deadline passed; the text shows all that is there.
        """
        deadline = time.monotonic() + timeout_s
        while not done(found := self.of(tag)):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {event!r} within {timeout_s} s, only {found}")
            time.sleep(POLL_S)
        return self.of(tag, event)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as lines:
            lines.seek(self._read_bytes)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._read_bytes += len(line)
                record = json.loads(line)
                self._by_tag.setdefault(record["tag"], []).append(record)
