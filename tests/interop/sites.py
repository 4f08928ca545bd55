"""
The probe application on a running server, and one connection to it.

Joins the server, the client and the records, so that a test reads as: visit, do, compare with the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest
from websockets.sync.client import ClientConnection

from .clients import RawPeer, Seen, library_client, new_tag, watch
from .probe import RECORDS_VARIABLE
from .records import Record, Records
from .servers import Running, Server, start

PACKAGE = __name__.rpartition(".")[0]  # "interop", or "tests.interop" when tests is a package
IMPORT_ROOT = Path(__file__).resolve().parents[PACKAGE.count(".") + 1]


@dataclass(frozen=True)
class Site:
    """
    The probe application on a running server.

    Args:
        name: The server's name in the tables of expectations.
        port: Its port on 127.0.0.1.
        records: What the probe saw.
        running: The process.
    """

    name: str
    port: int
    records: Records
    running: Running

    @contextmanager
    def visit(self, scenario: str, **options: object) -> Iterator[Visit]:
        """
        Connect to a scenario with the library client, and disconnect at the end of the block.

        Args:
            scenario: Path without the slash.
            options: For the query string.
        """
        visit = self._plan(scenario, options)
        with library_client(self.port, visit.path) as client:
            visit.library = client
            yield visit

    @contextmanager
    def raw_visit(
        self, scenario: str, *, receive_buffer_bytes: int | None = None, **options: object
    ) -> Iterator[Visit]:
        """
        Connect to a scenario with a bare socket; the handshake is sent, its answer not yet read.

        Args:
            scenario: Path without the slash.
            receive_buffer_bytes: Size of the kernel's receive buffer; None leaves the default.
            options: For the query string.
        """
        visit = self._plan(scenario, options)
        with RawPeer(self.port, visit.path, receive_buffer_bytes=receive_buffer_bytes) as peer:
            visit.raw = peer
            yield visit

    def _plan(self, scenario: str, options: dict[str, object]) -> Visit:
        tag = new_tag()
        return Visit(f"/{scenario}?{urlencode({'tag': tag, **options})}", tag, self.records)


@dataclass
class Visit:
    """
    One connection to one scenario.

    Args:
        path: Path and query.
        tag: Names the connection in the records.
        all_records: Of the site.
    """

    path: str
    tag: str
    all_records: Records
    library: ClientConnection | None = field(default=None, repr=False)
    raw: RawPeer | None = field(default=None, repr=False)

    @property
    def client(self) -> ClientConnection:
        """Return the library client."""
        assert self.library is not None
        return self.library

    @property
    def peer(self) -> RawPeer:
        """Return the bare socket."""
        assert self.raw is not None
        return self.raw

    def send_unread(self, count: int) -> None:
        """Send messages that the handler never reads, and wait until the server has surely read from its socket."""
        self.peer.accepted()
        for _ in range(count):
            self.peer.send_text("unread")
        self.peer.wait_for_traffic()

    def seen(self, timeout_s: float = 5.0) -> Seen:
        """Read until the end, as the client sees it."""
        return watch(self.client, timeout_s=timeout_s)

    def wait(self, event: str, timeout_s: float = 10.0, count: int = 1) -> list[Record]:
        """Wait for the records of an event."""
        return self.all_records.wait(self.tag, event, timeout_s=timeout_s, count=count)

    def nothing(self, event: str, window_s: float) -> bool:
        """Tell whether an event stays away for *window_s* seconds."""
        try:
            self.wait(event, window_s)
        except AssertionError:
            return True
        return False

    def ended(self, timeout_s: float = 10.0) -> Record:
        """Wait until the handler has ended, and return how."""
        return self.wait("ended", timeout_s)[0]

    def records(self, event: str) -> list[Record]:
        """Return the records of an event so far."""
        return self.all_records.of(self.tag, event)

    def sends(self) -> dict[str, str]:
        """Wait for the end; return the outcome of each send by its label."""
        self.ended()
        return {record["label"]: outcome(record) for record in self.records("send")}

    def receives(self) -> list[str]:
        """Wait for the end; return the outcome of each receive in order."""
        self.ended()
        return [outcome(record) for record in self.records("receive")]


def outcome(record: Record) -> str:
    """
    Put the outcome of a send or receive into one short line.

    Args:
        record: Of the event ``send`` or ``receive``.

    Returns:
        ``ok``, ``hangs``, ``<exception type>: <text>``, ``disconnect <code> [reason]``, or the payload: ``text 'x'``,
        ``bytes <length>``.
    """
    if record["outcome"] == "error":
        return error_line(record)
    if record["outcome"] != "message":
        return str(record["outcome"])
    message = record["message"]
    if message["type"] == "websocket.disconnect":
        words = ("disconnect", str(message.get("code")), message.get("reason") or "")
        return " ".join(words).strip()
    if message.get("text") is not None:
        return f"text {message['text']!r}"
    return f"bytes {message['bytes']}"


def error_line(record: Record) -> str:
    """Return the type and the text of a recorded exception, as in the last line of a traceback."""
    return f"{record['type']}: {record['text']}".removesuffix(": ")


@contextmanager
def serving(
    server: Server,
    app: str,
    folder: Path,
    *,
    options: dict[str, object] | None = None,
    arguments: tuple[str, ...] = (),
) -> Iterator[Site]:
    """
    Run the probe on *server* for the length of the block.

    Args:
        server: One of the table; the test is skipped, with the reason, when it is not installed.
        app: ``probe:app`` or ``probe_guarded:guarded``.
        folder: For the record file and the log.
        options: Of the guard.
        arguments: More command line options for the server.
    """
    if server.missing:
        pytest.skip(f"{server.name} needs {server.missing}, which is not installed")
    records = folder / f"{server.name}.jsonl"
    env = {RECORDS_VARIABLE: str(records), "PROBE_GUARD_OPTIONS": json.dumps(options or {})}
    with start(
        server,
        f"{PACKAGE}.{app}",
        folder,
        env=env,
        python_path=[IMPORT_ROOT],
        arguments=arguments,
    ) as running:
        yield Site(server.name, running.port, Records(records), running)
