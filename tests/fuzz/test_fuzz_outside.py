"""What the command line and the variables read: texts of people, and answers of services that may lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ws_guard._environment import VARIABLES, VariableError, check_texts, read_options, variable_of
from asgi_ws_guard._target import TargetError, is_target, load_application, load_target
from asgi_ws_guard.cli._address import Address, VerifyError, find_address
from asgi_ws_guard.cli._health_reader import HealthReader, Reading
from asgi_ws_guard.cli._opening import PeerError
from asgi_ws_guard.cli._peer import Peer

from .values import OCTETS, TEXT, near, some

SHORT = TEXT.filter(lambda text: "\0" not in text and "\ud800" not in text)
TEXTS = st.one_of(
    SHORT,
    st.sampled_from(["nan", "inf", "-0", "1e400", "9" * 5000, "1_000", "none", "NONE", "true", "1000", "drop", "auto"]),
    st.from_regex(r"[-+]?[0-9_]{1,6}(\.[0-9]{1,3})?(e[0-9]{1,3})?", fullmatch=True),
)
PLAIN = tuple(name for name, variable in VARIABLES.items() if not variable.names_objects)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def _no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let numeric addresses alone be found: no name of a stranger leaves this machine."""
    real = socket.getaddrinfo

    def numeric(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if not str(host).startswith("127.0.0."):
            named["flags"] = socket.AI_NUMERICHOST
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", numeric)


@some(300)
@given(st.dictionaries(st.sampled_from([variable_of(name) for name in PLAIN]), TEXTS, max_size=4))
def test_any_variables_are_read_or_named(environment: dict[str, str]) -> None:
    """A text is a value, or the one error that names its variable; a guard takes what was read, or says the same."""
    with contextlib.suppress(VariableError):
        read_options(environment)
    told: list[str] = []
    try:
        check_texts(environment)
    except VariableError as error:
        told.append(error.option)
    assert set(told) <= set(environment)


@some(300)
@given(
    st.one_of(
        SHORT,
        st.from_regex(r"(asgi_ws_guard\._close|no_such_module)(\.[a-z_]{1,5})?:[A-Za-z_]{1,9}(\(\))?", fullmatch=True),
        st.sampled_from(
            ["may_send()", "legal_code()", "CloseCode.GOING_AWAY.name()", "_Word.mro()", "may_send.__call__"]
        ).map("asgi_ws_guard._close:".__add__),
    )
)
def test_any_target_is_found_or_not(target: str) -> None:
    """A name leads to an object, or the one error says why not; what has another form imports nothing."""
    if not is_target(target):
        with pytest.raises(TargetError):
            load_target(target)
        return
    if not target.startswith(("asgi_ws_guard._close", "no_such_module")):
        return
    with contextlib.suppress(TargetError):
        load_application(target)


@some(300)
@given(
    st.one_of(
        SHORT,
        st.builds("ws://127.0.0.1:{}/{}".format, st.sampled_from(["1", "0", "", "99999", "x"]), SHORT),
        st.builds("{}://{}/".format, st.sampled_from(["ws", "wss", "http", "WS"]), TEXT),
    ),
    st.one_of(st.none(), TEXT),
    st.lists(st.one_of(TEXT, st.builds("{}: {}".format, TEXT, TEXT)), max_size=2),
)
def test_any_address_is_taken_apart_or_refused(url: str, origin: str | None, headers: list[str]) -> None:
    """An address leads to a place, or the one error says why not, in one line."""
    try:
        find_address(url, timeout_s=0.2, origin=origin, headers=headers)
    except VerifyError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


class Liar:
    """A service that answers every connection with the same octets, and ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answer = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2.0)
                connection.recv(65536)
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    """Give a service that lies."""
    service = Liar()
    yield service
    service.close()


HEALTH = near(
    status=TEXT,
    connections=near(**dict.fromkeys(("connecting", "open", "lingering", "zombies", "opened"), JSON)),
    reasons=st.lists(near(level=st.just("failing"), reason=JSON), max_size=2),
    messages=near(dropped=st.dictionaries(st.text(max_size=5), JSON, max_size=2)),
    ends_by_status=JSON,
)
COUNT = {"connecting": 0, "open": 1, "lingering": 0, "zombies": 0, "opened": 2}
BODY = st.one_of(
    OCTETS,
    st.one_of(HEALTH, st.fixed_dictionaries({"status": TEXT, "connections": st.just(COUNT), "reasons": JSON})).map(
        lambda page: json.dumps(page, default=str).encode("utf-8", "replace")
    ),
    st.sampled_from([b"[" * 40_000, b"1" * 10_000, b"NaN", b"\xff\xfe{}"]),
    st.sampled_from(["Infinity", "NaN", "1e999", "-1", '"7"', "null", "{}", "9" * 5000]).map(
        lambda number: json.dumps({"status": "ok", "connections": COUNT, "reasons": []}).replace("2", number).encode()
    ),
)


@some(150)
@given(
    st.one_of(
        st.builds(lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), BODY),
        st.builds(lambda head, body: b"HTTP/1.1 " + head + b"\r\n\r\n" + body, OCTETS, OCTETS),
        OCTETS,
        st.just(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\nx"),
    )
)
def test_any_health_page_is_read_or_none(liar: Liar, answer: bytes) -> None:
    """A page is health, or nothing; nothing is raised."""
    liar.answer = answer
    reading = HealthReader(f"http://127.0.0.1:{liar.port}/health", 2.0).read()
    assert reading is None or isinstance(reading, Reading)


@some(300)
@given(st.one_of(TEXT, st.builds("{}://{}/{}".format, st.sampled_from(["http", "https"]), TEXT, TEXT)))
def test_any_health_address_is_taken_or_refused(url: str) -> None:
    """An address of health is one, or the one error says what it should be."""
    with contextlib.suppress(VerifyError):
        HealthReader(url, 0.2)


FRAMES = st.one_of(
    OCTETS,
    st.builds(
        lambda opcode, length, payload: bytes([opcode, length]) + payload,
        st.integers(0, 255),
        st.integers(0, 255),
        OCTETS,
    ),
    st.builds(
        lambda code, reason: b"\x88" + bytes([2 + len(reason)]) + code + reason,
        st.binary(min_size=2, max_size=2),
        st.binary(max_size=100),
    ),
)


@some(100)
@given(st.one_of(OCTETS, st.builds(b"HTTP/1.1 101 x\r\n".__add__, OCTETS)))
def test_any_answer_to_a_handshake_is_refused(liar: Liar, answer: bytes) -> None:
    """An answer that opens nothing is the one error, in time."""
    liar.answer = answer

    async def main() -> None:
        address = find_address(f"ws://127.0.0.1:{liar.port}/", timeout_s=2.0)
        with pytest.raises(PeerError) as told:
            async with await Peer.open(address, within_s=5.0):
                pass
        assert len(str(told.value).splitlines()) == 1

    asyncio.run(main())


@some(100)
@given(st.lists(FRAMES, max_size=4))
def test_any_frames_are_read_in_time(frames: list[bytes]) -> None:
    """Frames of a stranger, whole or broken, raise nothing, and the end of the transport is noticed."""

    async def main() -> None:
        server = await asyncio.start_server(_opens_and_writes(b"".join(frames)), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            address = await asyncio.to_thread(_find, port)
            async with await Peer.open(address, within_s=5.0) as peer:
                await peer.message(0.05)
                await peer.send("x", 1.0)
                await asyncio.wait_for(peer.watch(2.0), 3.0)
                await peer.close(1000, 0.05)
                assert peer.is_over
                assert peer.close_code is None or isinstance(peer.close_code, int)

    asyncio.run(main())


def _find(port: int) -> Address:
    return find_address(f"ws://127.0.0.1:{port}/", timeout_s=2.0)


def _opens_and_writes(octets: bytes) -> Any:
    from websockets.server import ServerProtocol

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
            for request in protocol.events_received():
                protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
            writer.write(b"".join(protocol.data_to_send()) + octets)
            await writer.drain()
            writer.write_eof()
            await reader.read()
        writer.close()

    return serve
