"""
What the bare servers do: one test per row of the server table, on each server, without the guard.

The guard relies on these rows. A failure here means that a server release has changed its behaviour: look at the
guard's code that names the row, then correct the table. Measured with uvicorn 0.54.0, hypercorn 0.18.0,
granian 2.8.7 and daphne 4.2.3, on websockets 17.4, wsproto 1.3.2 and autobahn 26.10.2.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from .clients import Answer, RawPeer, Seen, watch
from .servers import DAPHNE, GRANIAN, HYPERCORN, SERVERS, UVICORN_SANSIO, UVICORN_WSPROTO, Server
from .sites import Site, Visit, error_line, serving

T = TypeVar("T")

SANSIO, WSPROTO, LEGACY = "uvicorn-sansio", "uvicorn-wsproto", "uvicorn-legacy"
UVICORN = (SANSIO, WSPROTO, LEGACY)
PUSH_S = 0.4  # a push-only handler that was not told within this time is not told

# what the servers raise
GONE = "uvicorn.protocols.utils.ClientDisconnected"
UNEXPECTED = "hypercorn.utils.UnexpectedMessageError: Unexpected message type, "
AUTOBAHN = "autobahn.exception.Disconnected: Attempt to send on a closed protocol"


def after_close(kind: str, *, legacy: bool = False) -> str:
    """Return uvicorn's error for a message after the end."""
    rest = " or response already completed" if legacy else ""
    return f"RuntimeError: Unexpected ASGI message '{kind}', after sending 'websocket.close'{rest}."


def per_server(
    uvicorn: T,
    hypercorn: T,
    granian: T,
    daphne: T,
    *,
    legacy: T | None = None,
) -> dict[str, T]:
    """
    Lay out one row of the table.

    Args:
        uvicorn: Expected with websockets-sansio and wsproto.
        hypercorn: Expected with hypercorn.
        granian: Expected with granian.
        daphne: Expected with daphne.
        legacy: Expected with uvicorn's deprecated websockets implementation; None means as uvicorn.

    Returns:
        dict: server name -> expectation.
    """
    return {
        SANSIO: uvicorn,
        WSPROTO: uvicorn,
        LEGACY: uvicorn if legacy is None else legacy,
        "hypercorn": hypercorn,
        "granian": granian,
        "daphne": daphne,
    }


def say_goodbye(visit: Visit) -> None:
    """Close from the client's side with a code and a reason of its own."""
    visit.client.close(4321, "cya")


def reset(visit: Visit) -> None:
    """Finish the handshake, then reset the transport."""
    visit.peer.accepted()
    visit.peer.reset()


def leave(visit: Visit) -> None:
    """Finish the handshake, then end the transport without a close frame."""
    visit.peer.accepted()
    visit.peer.leave()


def test_scope(bare: Site) -> None:
    """Only uvicorn announces 2.4 (OSError from send); daphne has no version, no denial extension and no scheme."""
    expected = per_server(("2.4", True, "ws"), ("2.3", True, "ws"), ("2.3", True, "ws"), (None, False, None))
    with bare.visit("scope") as visit:
        record = visit.wait("scope")[0]
    assert (record["spec_version"], record["denial"], record["scheme"]) == expected[bare.name]


def test_client_closes(bare: Site) -> None:
    """4321 "cya" arrives whole on uvicorn, without the reason on granian and daphne, as 1006 on hypercorn."""
    expected = per_server("disconnect 4321 cya", "disconnect 1006", "disconnect 4321", "disconnect 4321")
    with bare.visit("receive-until-disconnect") as visit:
        say_goodbye(visit)
    assert visit.receives() == [expected[bare.name]]


@pytest.mark.parametrize("act", [reset, leave])
def test_transport_lost(bare: Site, act: Callable[[Visit], None]) -> None:
    """A lost transport is 1005 on one server and 1006 on another, whether by reset or by FIN."""
    expected = per_server(
        "disconnect 1005",
        "disconnect 1006",
        "disconnect 1005",
        "disconnect 1006",
        legacy="disconnect 1006",
    )
    with bare.raw_visit("receive-until-disconnect") as visit:
        act(visit)
    assert visit.receives() == [expected[bare.name]]


def push_error(visit: Visit) -> str:
    """Wait until the push-only handler has ended; return what its sends raised, ``silent``, or ``blocks``."""
    if visit.nothing("ended", 3 * PUSH_S):
        return "blocks"
    errors = visit.records("send-error")
    return error_line(errors[0]) if errors else "silent"


SILENT_PUSH = per_server(GONE, "silent", "silent", "silent")


def test_push_only_client_closed(bare: Site) -> None:
    """A handler that only sends is told by an OSError on uvicorn, and never on the others."""
    with bare.visit("push-only", seconds=PUSH_S) as visit:
        say_goodbye(visit)
    assert push_error(visit) == SILENT_PUSH[bare.name]


def test_push_only_transport_reset(bare: Site) -> None:
    """A TCP reset tells a handler that only sends no more than a close does."""
    with bare.raw_visit("push-only", seconds=PUSH_S) as visit:
        reset(visit)
    assert push_error(visit) == SILENT_PUSH[bare.name]


def close_only(visit: Visit) -> None:
    """Send a close frame, and keep the transport open."""
    visit.peer.send_close(4321, "cya")


@pytest.mark.parametrize("unread", [1, 40])
def test_push_only_behind_unread_messages_closed(bare: Site, unread: int) -> None:
    """
    A Close frame behind unread messages tells a handler that only sends nothing, on any server.

    uvicorn stops reading its socket at the first unread message; the legacy one at the 33rd, and before that it reads
    the Close frame, and the send blocks until the transport is gone too.
    """
    legacy = "blocks" if unread < 33 else "silent"
    expected = per_server("silent", "silent", "silent", "silent", legacy=legacy)
    with bare.raw_visit("push-only", seconds=PUSH_S) as visit:
        visit.send_unread(unread)
        close_only(visit)
        assert push_error(visit) == expected[bare.name]


@pytest.mark.parametrize("unread", [1, 40])
def test_push_only_behind_unread_messages_reset(bare: Site, unread: int) -> None:
    """A reset behind unread messages is an OSError on uvicorn; behind 11 or more hypercorn's send blocks for ever."""
    expected = per_server(GONE, "silent" if unread < 11 else "blocks", "silent", "silent")
    with bare.raw_visit("push-only", seconds=PUSH_S) as visit:
        visit.send_unread(unread)
        visit.peer.reset()
    assert push_error(visit) == expected[bare.name]


def test_a_cancelled_send_takes_the_disconnect_with_it_on_hypercorn(tmp_path: Path) -> None:
    """It waits for room for the disconnect in a send, and nobody else delivers it: `receive` then waits for ever."""
    with serving(HYPERCORN, "probe:app", tmp_path) as site, site.raw_visit("give-up", receives=1) as visit:
        visit.send_unread(40)
        visit.peer.reset()
        assert visit.receives()[-2:] == ["text 'unread'", "hangs"]


def test_messages_behind_a_ping_hold_a_connection_of_hypercorn(tmp_path: Path) -> None:
    """What it delivers behind a late answer to a ping, to a handler that is done, keeps the connection for ever."""
    with (
        serving(HYPERCORN, "probe:app", tmp_path) as site,
        site.raw_visit("give-up", chunks=1, limit=1.0, receive_buffer_bytes=65536) as visit,
    ):
        visit.peer.accepted()
        time.sleep(0.3)  # the buffers are full then
        visit.peer.send_behind_ping(["unread"] * 40)
        visit.ended()
        assert not visit.peer.ends(2.0)


def test_parked_handler_is_not_told(bare: Site) -> None:
    """A handler that neither sends nor receives is not told and not cancelled, on any server."""
    with bare.visit("parked", seconds=PUSH_S) as visit:
        say_goodbye(visit)
    assert visit.ended()["how"] == "returned"
    assert visit.records("unparked")


def test_send_after_the_disconnect_was_read(bare: Site) -> None:
    """A send or close after the disconnect: OSError, a RuntimeError on legacy uvicorn, silence on the others."""
    text, close = "websocket.send", "websocket.close"
    expected = per_server(
        dict.fromkeys(("late-1", "late-2", "late-close", "late-close-2"), GONE),
        *[dict.fromkeys(("late-1", "late-2", "late-close", "late-close-2"), "ok")] * 3,
        legacy={
            "late-1": after_close(text, legacy=True),
            "late-2": after_close(text, legacy=True),
            "late-close": after_close(close, legacy=True),
            "late-close-2": after_close(close, legacy=True),
        },
    )
    with bare.visit("send-after-disconnect") as visit:
        say_goodbye(visit)
    assert visit.sends() == expected[bare.name]


def test_receive_after_the_disconnect(bare: Site) -> None:
    """The second disconnect is 1005 for ever, or 1005 once and then nothing, or nothing at all."""
    expected = per_server(
        ["disconnect 4321 cya", "disconnect 1005", "hangs"],
        ["disconnect 1006", "hangs"],
        ["disconnect 4321", *["disconnect 1005"] * 3],
        ["disconnect 4321", "hangs"],
        legacy=["disconnect 4321 cya", *["disconnect 1005"] * 3],
    )
    with bare.visit("receive-after-disconnect") as visit:
        say_goodbye(visit)
    assert visit.receives() == expected[bare.name]


def test_receive_after_a_reset(bare: Site) -> None:
    """After a reset uvicorn does not even give the second 1005, but hangs at once."""
    expected = per_server(
        ["disconnect 1005", "hangs"],
        ["disconnect 1006", "hangs"],
        ["disconnect 1005"] * 4,
        ["disconnect 1006", "hangs"],
        legacy=["disconnect 1006", *["disconnect 1005"] * 3],
    )
    with bare.raw_visit("receive-after-disconnect") as visit:
        reset(visit)
    assert visit.receives() == expected[bare.name]


def test_receive_after_own_close(bare: Site) -> None:
    """After close(4001, "bye") receive gives 4001 on three implementations only, then goes on, repeats or hangs."""
    expected = per_server(
        ["disconnect 4001 bye", "disconnect 1005", "hangs"],
        ["disconnect 1000", "hangs"],
        ["disconnect 1005"] * 3,
        ["disconnect 4001", "hangs"],
        legacy=["disconnect 1005"] * 3,
    )
    with bare.visit("close-then-receive") as visit:
        assert visit.seen().code == 4001
    assert visit.receives() == expected[bare.name]


def test_receive_after_own_close_half_open(bare: Site) -> None:
    """A peer that never answers a close: hypercorn hangs, daphne reports 1006, on legacy uvicorn the close blocks."""
    expected = per_server(
        ["disconnect 4001 bye", "hangs"],
        ["hangs"],
        ["disconnect 1005"] * 3,
        ["disconnect 1006", "hangs"],
        legacy=["disconnect 1005"] * 3,
    )
    # daphne looks once a second whether the peer has answered
    silence_s = 1.5 if bare.name == "daphne" else 0.3
    with bare.raw_visit("close-then-receive", silence=silence_s) as visit:
        visit.peer.accepted()
        if bare.name == LEGACY:
            assert visit.nothing("close-returned", PUSH_S)
            visit.peer.leave()
        assert visit.receives() == expected[bare.name]


def test_send_after_own_close(bare: Site) -> None:
    """A text after the own close: three types of error by server and by time, or silence on granian."""
    kind = "websocket.send"
    expected = per_server(
        (after_close(kind), GONE),
        (f"{UNEXPECTED}websocket.send given the state ASGIWebsocketState.CLOSED", "ok"),
        ("ok", "ok"),
        (AUTOBAHN, "ok"),
        legacy=(after_close(kind, legacy=True), after_close(kind, legacy=True)),
    )
    with bare.visit("send-after-close") as visit:
        assert visit.seen().code == 4001
    sends = visit.sends()
    assert (sends["at-once"], sends["later"]) == expected[bare.name]


@pytest.mark.parametrize("code", [4001, 1001])
def test_second_close(bare: Site, code: int) -> None:
    """A second close raises on uvicorn only; on daphne an illegal code does, while the first is on its way."""
    kind = "websocket.close"
    refused = f"Exception: invalid close code {code} (must be 1000 or from [3000, 4999])"
    expected = per_server(
        (after_close(kind), GONE),
        ("ok", "ok"),
        ("ok", "ok"),
        ("ok" if code == 4001 else refused, "ok"),
        legacy=(after_close(kind, legacy=True), after_close(kind, legacy=True)),
    )
    with bare.visit("second-close", code=code) as visit:
        assert visit.seen().code == 4001
    sends = visit.sends()
    assert (sends["at-once"], sends["later"]) == expected[bare.name]


def test_send_before_accept(bare: Site) -> None:
    """A send before the accept raises one of three types, and is lost quietly on granian; the accept still works."""
    wanted = "Expected ASGI message 'websocket.accept', 'websocket.close'"
    rest = "or 'websocket.http.response.start' but got 'websocket.send'."
    expected = per_server(
        f"RuntimeError: {wanted} {rest}",
        f"{UNEXPECTED}websocket.send given the state ASGIWebsocketState.HANDSHAKE",
        "ok",
        "ValueError: Socket has not been accepted, so cannot send over it",
        legacy=f"RuntimeError: {wanted}, {rest}",
    )
    with bare.visit("send-before-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert visit.sends()["early"] == expected[bare.name]


def test_second_accept(bare: Site) -> None:
    """A second accept raises four types of error, and the connection goes on."""
    expected = per_server(
        "RuntimeError: Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.accept'.",
        f"{UNEXPECTED}websocket.accept given the state ASGIWebsocketState.CONNECTED",
        "RuntimeError: ASGI flow error: Connection already upgraded",
        "AttributeError: 'WebSocketProtocol' object has no attribute 'handshake_deferred'",
    )
    with bare.visit("second-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert visit.sends()["accept"] == expected[bare.name]


@pytest.mark.parametrize("code", [1000, 3000, 4001, 4999])
def test_close_codes_that_all_servers_send(bare: Site, code: int) -> None:
    """1000 and 3000 to 4999 reach the client everywhere; the reason does not on daphne."""
    with bare.visit("close-code", code=code) as visit:
        seen = visit.seen()
    assert seen == Seen("close", code, "" if bare.name == "daphne" else "why")


@pytest.mark.parametrize("code", [1001, 1008, 1011, 1012])
def test_close_codes_that_daphne_refuses(bare: Site, code: int) -> None:
    """1001 to 1014 reach the client everywhere but on daphne, which raises and leaves the connection open."""
    with bare.visit("close-code", code=code) as visit:
        sends = visit.sends()
        if bare.name == "daphne":
            assert sends["close"] == (f"Exception: invalid close code {code} (must be 1000 or from [3000, 4999])")
            assert visit.seen(0.3) == Seen("open")
        else:
            assert visit.seen() == Seen("close", code, "why")


ILLEGAL_EOF = Seen("eof")


@pytest.mark.parametrize("code", [999, 1005, 1006])
def test_illegal_close_codes(bare: Site, code: int) -> None:
    """A code that may not be sent is an error, a lost close frame, 1000, or an open connection."""
    reserved = Seen("close", 1000, "why")
    expected = {
        SANSIO: ("websockets.exceptions.ProtocolError: invalid status code", ILLEGAL_EOF),
        WSPROTO: ("ok", ILLEGAL_EOF if code == 999 else reserved),
        LEGACY: ("websockets.exceptions.ProtocolError: invalid status code", ILLEGAL_EOF),
        "hypercorn": ("ok", ILLEGAL_EOF if code == 999 else reserved),
        "granian": ("ok", ILLEGAL_EOF),
        "daphne": (
            f"Exception: invalid close code {code} (must be 1000 or from [3000, 4999])",
            Seen("open"),
        ),
    }
    with bare.visit("close-code", code=code) as visit:
        close = visit.sends()["close"]
        seen = visit.seen(0.3 if bare.name == "daphne" else 5.0)
    assert (close, seen) == expected[bare.name]


def test_handler_returns(bare: Site) -> None:
    """A handler that returns without a close: no close frame, 1011, 1005, or an open connection for ever."""
    expected = per_server(Seen("eof"), Seen("close", 1011), Seen("close", 1005), Seen("open"))
    with bare.visit("returns") as visit:
        visit.ended()
        assert visit.seen(0.4 if bare.name == "daphne" else 5.0) == expected[bare.name]


def test_handler_is_cancelled_while_it_receives(bare: Site) -> None:
    """A handler that somebody cancels: no close frame, 1011 or 1005; on daphne nothing, the connection stays open."""
    expected = per_server(Seen("eof"), Seen("close", 1011), Seen("close", 1005), Seen("open"))
    with bare.visit("cancelled") as visit:
        assert visit.seen(0.5 if bare.name == "daphne" else 5.0) == expected[bare.name]


def test_handler_raises(bare: Site) -> None:
    """A handler that raises: no close frame, 1011 or 1005."""
    expected = per_server(Seen("eof"), Seen("close", 1011), Seen("close", 1005), Seen("close", 1011))
    with bare.visit("raises") as visit:
        assert visit.seen() == expected[bare.name]


def test_return_before_accept(bare: Site) -> None:
    """Returning before the accept is 500, 403 on granian, and on daphne no answer at all."""
    expected = per_server(500, 500, 403, None)
    with bare.raw_visit("return-before-accept") as visit:
        visit.ended()
        answer = visit.peer.answer(timeout_s=0.4 if bare.name == "daphne" else 5.0)
    assert answer.status == expected[bare.name]


def test_raise_before_accept(bare: Site) -> None:
    """Raising before the accept is 500, and 403 on granian."""
    with bare.raw_visit("raise-before-accept") as visit:
        answer = visit.peer.answer()
    assert answer.status == per_server(500, 500, 403, 500)[bare.name]


def test_close_before_accept(bare: Site) -> None:
    """A close instead of an accept is 403 on every server."""
    with bare.raw_visit("close-before-accept") as visit:
        assert visit.peer.answer().status == 403


def test_a_receive_after_a_close_before_accept_is_the_end_of_granian(tmp_path: Path) -> None:
    """When nobody has received before: it panics, which ends its worker with all other connections."""
    with serving(GRANIAN, "probe:app", tmp_path) as site, site.raw_visit("close-unread") as visit:
        assert visit.peer.answer().status is None
        assert "panicked" in site.running.log


def denial(visit: Visit, bare: Site) -> Answer:
    """Wait for the end of the handler, and return the answer with its body."""
    visit.ended()
    return visit.peer.answer(timeout_s=0.4 if bare.name == "daphne" else 5.0, whole=True)


def test_denial_response_with_a_body(bare: Site) -> None:
    """A denial with a body arrives everywhere but on daphne, which takes the messages and never answers."""
    expected = per_server((418, b"denied"), (418, b"denied"), (418, b"denied"), (None, b""))
    with bare.raw_visit("deny") as visit:
        answer = denial(visit, bare)
    assert (answer.status, answer.body) == expected[bare.name]
    assert visit.sends() == {"start": "ok", "body-1": "ok"}


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_denial_response_to_a_client_that_left_granian(tmp_path: Path, act: Callable[[RawPeer], None]) -> None:
    """To granian a client that left during the handshake is one that was answered."""
    upgraded = "RuntimeError: ASGI flow error: Connection already upgraded"
    with serving(GRANIAN, "probe:app", tmp_path) as site, site.raw_visit("deny", window=0.5) as visit:
        visit.wait("connecting")
        act(visit.peer)
        assert visit.sends() == {"start": "ok", "body-1": upgraded}


def test_denial_response_with_a_pause(bare: Site) -> None:
    """When the application yields between the start and the body, legacy uvicorn loses the body."""
    expected = per_server((418, b"denied"), (418, b"denied"), (418, b"denied"), (None, b""), legacy=(418, b""))
    with bare.raw_visit("deny", pause=0.05) as visit:
        answer = denial(visit, bare)
    assert (answer.status, answer.body) == expected[bare.name]


def test_denial_response_in_two_parts(bare: Site) -> None:
    """Granian refuses more_body, and answers 403 without a body."""
    expected = per_server((418, b"denied"), (418, b"denied"), (403, b""), (None, b""))
    refused = "RuntimeError: Unsupported ASGI message"
    with bare.raw_visit("deny", parts=2) as visit:
        answer = denial(visit, bare)
    assert (answer.status, answer.body) == expected[bare.name]
    assert visit.sends()["body-1"] == ("ok" if bare.name != "granian" else refused)


def test_empty_messages(bare: Site) -> None:
    """Empty text and empty bytes arrive in both directions; daphne sends neither, but receives both."""
    with bare.visit("empty-text") as visit:
        for message in ("", b"", "x"):
            visit.client.send(message)
        wanted = ["before", "after"] if bare.name == "daphne" else ["before", "", b"", "after"]
        assert [visit.client.recv(5.0) for _ in wanted] == wanted
    assert visit.receives()[:3] == ["text ''", "bytes 0", "text 'x'"]


def test_close_while_a_receive_is_pending(bare: Site) -> None:
    """A close beside a pending receive works and wakes it with some code; on granian both wait for ever."""
    expected = per_server(
        ("ok", "disconnect 4001 bye"),
        ("ok", "disconnect 1000"),
        ("deadlock", "waits"),
        ("ok", "disconnect 4001"),
    )
    with bare.visit("close-while-receiving", window=0.6) as visit:
        watch(visit.client, timeout_s=5.0)
    assert (
        visit.wait("closed")[0]["outcome"],
        (visit.receives() or ["waits"])[0],
    ) == expected[bare.name]


def test_cancelled_receives(bare: Site) -> None:
    """Receives that time out lose no message; on granian they may, but the order is kept."""
    messages = [str(number) for number in range(120)]
    with bare.visit("cancelled-receives", seconds=1.2, count=len(messages)) as visit:
        send_paced(visit, messages, every_s=0.005)
        visit.seen()
    got: list[str] = visit.wait("got")[0]["messages"]
    assert visit.wait("got")[0]["timeouts"] > 50
    if bare.name == "granian":
        assert got == sorted(set(got), key=int)
    else:
        assert got == messages


def send_paced(visit: Visit, messages: list[str], *, every_s: float) -> None:
    """Send the messages with pauses, so that receives time out between them."""
    for message in messages:
        visit.client.send(message)
        time.sleep(every_s)


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_client_leaves_before_accept(bare: Site, act: Callable[[RawPeer], None]) -> None:
    """Leaving before the accept is a disconnect 1006, but never reported on granian; what accept does then varies."""
    expected = per_server(
        ("disconnect 1006", {"accept": GONE}),
        ("disconnect 1006", {"accept": "ok", "after-accept": "ok"}),
        ("hangs", {"accept": "ok", "after-accept": "ok"}),
        ("disconnect 1006", {"accept": "ok", "after-accept": "ok"}),
        legacy=("disconnect 1006", {"accept": "ok", "after-accept": GONE}),
    )
    with bare.raw_visit("client-leaves-before-accept", window=0.6) as visit:
        visit.wait("connecting")
        act(visit.peer)
    assert (visit.receives()[0], visit.sends()) == expected[bare.name]


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_no_answer_to_a_client_that_left_is_complained_of(bare: Site, act: Callable[[RawPeer], None]) -> None:
    """Uvicorn 0.54's legacy implementation says that the handler gave none, though it has told it of the disconnect."""
    before = len(bare.running.log)
    with bare.raw_visit("return-unanswered", window=0.6) as visit:
        visit.wait("connecting")
        act(visit.peer)
        visit.ended()
    time.sleep(0.3)
    assert ("ERROR:    ASGI callable returned without" in bare.running.log[before:]) == (bare.name == "uvicorn-legacy")


def test_peer_that_stops_reading(bare: Site) -> None:
    """Send blocks once the buffers are full (16 MiB are never taken), but on daphne it never blocks: memory grows."""
    with bare.raw_visit("flood", receive_buffer_bytes=65536, count=256) as visit:
        visit.peer.accepted()
        record = visit.wait("flooded")[0]
        visit.peer.reset()
    assert record["outcome"] == ("took all" if bare.name == "daphne" else "blocked")


def test_bases_of_the_errors(bare: Site) -> None:
    """The errors that say "the peer is gone" have these bases, which `_servers.py` of the guard relies on."""
    os_error = [GONE, "OSError", "Exception", "BaseException"]
    runtime_error = ["RuntimeError", "Exception", "BaseException"]
    expected: dict[str, dict[str, list[str]]] = {
        SANSIO: {"at-once": runtime_error, "later": os_error},
        WSPROTO: {"at-once": runtime_error, "later": os_error},
        LEGACY: {"at-once": runtime_error, "later": runtime_error},
        "hypercorn": {"at-once": ["hypercorn.utils.UnexpectedMessageError", "Exception", "BaseException"]},
        "granian": {},
        "daphne": {"at-once": ["autobahn.exception.Disconnected", *runtime_error]},
    }
    with bare.visit("send-after-close") as visit:
        visit.seen()
    visit.ended()
    bases = {one["label"]: one["mro"] for one in visit.records("send") if "mro" in one}
    assert bases == expected[bare.name]


def uvicorn_pings() -> tuple[float | None, float | None]:
    """Return uvicorn's defaults: interval and timeout in seconds."""
    import uvicorn

    config = uvicorn.Config("package:app")
    return config.ws_ping_interval, config.ws_ping_timeout


def hypercorn_pings() -> tuple[float | None, float | None]:
    """Return hypercorn's defaults: interval in seconds; it knows no timeout."""
    from hypercorn.config import Config

    return Config.websocket_ping_interval, None


def granian_pings() -> tuple[float | None, float | None]:
    """Look for an option of granian that speaks of pings; return the defaults."""
    from granian.cli import cli

    names = [str(parameter.name) for parameter in cli.params]
    assert "websockets" in names
    assert [name for name in names if "ping" in name] == []
    return None, None


def daphne_pings() -> tuple[float | None, float | None]:
    """Return daphne's defaults: interval and timeout in seconds."""
    cli: Any = importlib.import_module("daphne.cli")  # without type information
    parser = cli.CommandLineInterface().parser
    return parser.get_default("ping_interval"), parser.get_default("ping_timeout")


@pytest.mark.parametrize(
    ("module", "pings", "expected"),
    [
        ("uvicorn", uvicorn_pings, (20.0, 20.0)),
        ("hypercorn", hypercorn_pings, (None, None)),
        ("granian", granian_pings, (None, None)),
        ("daphne", daphne_pings, (20, 30)),
    ],
)
def test_pings_by_default(
    module: str,
    pings: Callable[[], tuple[float | None, float | None]],
    expected: tuple[float | None, float | None],
) -> None:
    """Pings are on with uvicorn (20 s, 20 s) and daphne (20 s, 30 s), off with hypercorn, and unknown to granian."""
    pytest.importorskip(module)
    assert pings() == expected


FAST_PINGS = ("--ws-ping-interval", "0.3", "--ws-ping-timeout", "0.3")


@pytest.mark.parametrize(
    ("server", "arguments", "expected"),
    [
        (UVICORN_SANSIO, FAST_PINGS, "disconnect 1005"),
        (UVICORN_WSPROTO, FAST_PINGS, "disconnect 1005"),
        (DAPHNE, ("--ping-interval", "1", "--ping-timeout", "1"), "disconnect 1006"),
    ],
    ids=["uvicorn-sansio", "uvicorn-wsproto", "daphne"],
)
def test_pings_end_a_half_open_connection(
    server: Server, arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    """A peer that answers no ping is reported to a handler that receives, with 1005 or 1006."""
    with (
        serving(server, "probe:app", tmp_path, arguments=arguments) as site,
        site.raw_visit("receive-until-disconnect") as visit,
    ):
        visit.peer.accepted()
        assert visit.receives() == [expected]


def test_all_servers_are_in_the_table() -> None:
    """Every row has an expectation for each server that is started."""
    assert set(per_server(0, 0, 0, 0)) == {server.name for server in SERVERS}
