"""
What the guarded application sees: the rows of the server table again, with the guard around the same probe.

Each test names the promises of the contract that it holds, and expects the same on every server; the few values that
only the server can know (the code of a lost transport, a reason that it does not hand over) stand in tables.
Measured with uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.7 and daphne 4.2.3.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .clients import RawPeer, Seen, watch
from .conftest import LINGER_S
from .servers import HYPERCORN, SERVERS, Server, http_status
from .sites import Site, Visit, error_line, serving

TOLD_S = 2.0  # a handler knows of the end within this time, although it does not receive
NEVER_S = 3.0  # a receive that gives nothing for this long hangs
SLACK_S = 1.5  # for a busy machine: how much later than asked for something may be

# what the server says of a client that closes with 4321 "cya"; the bare servers' tests have the same values
CLIENT_CLOSE = {
    "uvicorn-sansio": "disconnect 4321 cya",
    "uvicorn-wsproto": "disconnect 4321 cya",
    "uvicorn-legacy": "disconnect 4321 cya",
    "hypercorn": "disconnect 1006",
    "granian": "disconnect 4321",
    "daphne": "disconnect 4321",
}
# and of a lost transport
TRANSPORT_LOST = {
    "uvicorn-sansio": "disconnect 1005",
    "uvicorn-wsproto": "disconnect 1005",
    "uvicorn-legacy": "disconnect 1006",
    "hypercorn": "disconnect 1006",
    "granian": "disconnect 1005",
    "daphne": "disconnect 1006",
}


def say_goodbye(visit: Visit) -> None:
    """Close from the client's side with a code and a reason of its own."""
    visit.client.close(4321, "cya")


def assert_misuse(visit: Visit, label: str, kind: str) -> None:
    """Assert that a send was refused as a ProtocolError that is a RuntimeError and names the message (G7)."""
    visit.ended()
    record = next(one for one in visit.records("send") if one["label"] == label)
    assert record["type"].endswith(".ProtocolError"), record
    assert "RuntimeError" in record["mro"]
    assert kind in record["text"]


def assert_stopped(visit: Visit) -> dict[str, Any]:
    """Assert that a push-only handler was told in time, dropped quietly for the linger, then raised in (G1, G4, G5)."""
    assert visit.ended()["how"] == "returned"
    told = visit.records("not-open")[0]
    error = visit.records("send-error")[0]
    assert told["after_s"] < TOLD_S
    assert LINGER_S - 0.3 < error["after_s"] - told["after_s"] < LINGER_S + SLACK_S
    assert error["type"].endswith(".ConnectionClosed"), error
    assert "OSError" in error["mro"]
    return told


def test_scope(guarded: Site) -> None:
    """G10: the scheme is there on every server; what the server announces is left as it is."""
    with guarded.visit("scope") as visit:
        record = visit.wait("scope")[0]
    assert record["scheme"] == "ws"
    assert record["denial"] is (guarded.name != "daphne")


def test_client_closes(guarded: Site) -> None:
    """G3: the server's own word for the client's close arrives unchanged, then again and again."""
    with guarded.visit("receive-after-disconnect", silence=NEVER_S) as visit:
        say_goodbye(visit)
    assert visit.receives() == [CLIENT_CLOSE[guarded.name]] * 4


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_transport_lost(guarded: Site, act: Callable[[RawPeer], None]) -> None:
    """G3: the server's own word for a lost transport arrives unchanged, then again and again."""
    with guarded.raw_visit("receive-after-disconnect", silence=NEVER_S) as visit:
        visit.peer.accepted()
        act(visit.peer)
    assert visit.receives() == [TRANSPORT_LOST[guarded.name]] * 4


def test_push_only_client_closed(guarded: Site) -> None:
    """G1, G4, G5: a handler that only sends is told within 2 s, dropped quietly for the linger, then raised in."""
    with guarded.visit("push-only", seconds=6) as visit:
        say_goodbye(visit)
    assert_stopped(visit)


def test_push_only_transport_reset(guarded: Site) -> None:
    """G1, G2, G4, G5: the same after a TCP reset, whatever the server raises."""
    with guarded.raw_visit("push-only", seconds=6) as visit:
        visit.peer.accepted()
        visit.peer.reset()
    assert_stopped(visit)


@pytest.mark.parametrize("unread", [1, 40])
def test_push_only_behind_unread_messages_closed(guarded: Site, unread: int) -> None:
    """
    G5: a Close frame behind unread messages is seen; the transport stays open, so that nothing else can tell.

    Legacy uvicorn itself tells nobody before the transport ends or 10 s are over: its send and its receive block.
    """
    with guarded.raw_visit("push-only", seconds=6) as visit:
        send_unread(visit, unread)
        visit.peer.send_close(4321, "cya")
        if guarded.name == "uvicorn-legacy":
            assert visit.nothing("ended", 0.5)
            visit.peer.leave()
        told = assert_stopped(visit)
    if guarded.name != "hypercorn":  # which gives 1006 for every client close
        assert told["code"] == 4321


@pytest.mark.parametrize("unread", [1, 40])
def test_push_only_behind_unread_messages_reset(guarded: Site, unread: int) -> None:
    """G5: a reset behind unread messages is seen, also on hypercorn, whose bare send would block for ever."""
    with guarded.raw_visit("push-only", seconds=6) as visit:
        send_unread(visit, unread)
        visit.peer.reset()
        assert_stopped(visit)


def send_unread(visit: Visit, count: int) -> None:
    """Send messages that the handler never reads, and wait until the server has surely read from its socket."""
    visit.peer.accepted()
    for _ in range(count):
        visit.peer.send_text("unread")
    visit.peer.wait_for_traffic()


def test_loop_that_catches_everything_is_cancelled(guarded: Site) -> None:
    """G4: a push loop that logs and goes on is cancelled after a second linger, and the server hears nothing of it."""
    before = len(guarded.running.log)
    with guarded.visit("push-only", seconds=8, catch=1) as visit:
        say_goodbye(visit)
    ended = visit.ended(TOLD_S + 2 * LINGER_S + 2 * SLACK_S)
    assert ended["type"] == "asyncio.exceptions.CancelledError"
    assert "Traceback" not in guarded.running.log[before:]


def test_handle_tells_a_parked_handler(guarded: Site) -> None:
    """G5: `wait_closed` returns within 2 s although nobody receives; receive then gives the disconnect, sticky."""
    began = time.monotonic()
    with guarded.visit("wait-closed") as visit:
        say_goodbye(visit)
    closed = visit.wait("closed")[0]
    assert time.monotonic() - began < TOLD_S + 1
    assert closed["is_open"] is False
    words = ("disconnect", str(closed["code"]), closed["reason"])
    assert " ".join(words).strip() == CLIENT_CLOSE[guarded.name]
    if guarded.name != "hypercorn":  # whose 1006 cannot be told from a lost transport
        assert closed["initiator"] == "client"
    assert visit.receives() == [CLIENT_CLOSE[guarded.name]] * 2


def test_handle_tells_of_a_lost_transport(guarded: Site) -> None:
    """G5: the same after a reset."""
    with guarded.raw_visit("wait-closed") as visit:
        visit.peer.accepted()
        visit.peer.reset()
    assert visit.wait("closed")[0]["after_s"] < TOLD_S
    assert visit.receives() == [TRANSPORT_LOST[guarded.name]] * 2


def test_messages_before_the_disconnect_are_kept(guarded: Site) -> None:
    """G3, G5: what was read ahead is delivered in order and before the disconnect that came with it."""
    with guarded.visit("receive-late", seconds=0.9) as visit:
        for number in range(12):
            visit.client.send(str(number))
        say_goodbye(visit)
    received = visit.receives()
    assert received[:12] == [f"text '{number}'" for number in range(12)]
    assert received[12].startswith("disconnect")
    assert received[12:] == [received[12]] * 3


def test_reading_ahead_is_bounded_and_loses_nothing(guarded: Site) -> None:
    """G5: of more messages than are read ahead none is lost, and the order is kept."""
    with guarded.visit("receive-late", seconds=0.9) as visit:
        for number in range(300):
            visit.client.send(str(number))
        visit.wait("receive", count=300)
        say_goodbye(visit)
    received = visit.receives()
    assert received[:300] == [f"text '{number}'" for number in range(300)]
    assert received[300:] == [CLIENT_CLOSE[guarded.name]] * 3


def test_send_after_the_disconnect_was_read(guarded: Site) -> None:
    """G1: sends and closes after the disconnect return None."""
    with guarded.visit("send-after-disconnect") as visit:
        say_goodbye(visit)
    assert visit.sends() == dict.fromkeys(("late-1", "late-2", "late-close", "late-close-2"), "ok")


def test_receive_after_own_close(guarded: Site) -> None:
    """G3: after close(4001, "bye") receive gives the application's own code and reason, again and again."""
    with guarded.visit("close-then-receive", silence=NEVER_S) as visit:
        assert visit.seen().code == 4001
    assert visit.receives() == ["disconnect 4001 bye"] * 3


def test_receive_after_own_close_half_open(guarded: Site) -> None:
    """G3: the same when the peer never answers the close; legacy uvicorn blocks in close until the transport ends."""
    with guarded.raw_visit("close-then-receive", silence=NEVER_S) as visit:
        visit.peer.accepted()
        if guarded.name == "uvicorn-legacy":
            assert visit.nothing("close-returned", 0.5)
            visit.peer.leave()
        assert visit.receives() == ["disconnect 4001 bye"] * 3


def test_send_after_own_close(guarded: Site) -> None:
    """G1, G11: a text after the own close returns None, at once and later."""
    with guarded.visit("send-after-close") as visit:
        assert visit.seen().code == 4001
    assert visit.sends() == {"close": "ok", "at-once": "ok", "later": "ok"}


@pytest.mark.parametrize("code", [4001, 1001])
def test_second_close(guarded: Site, code: int) -> None:
    """G1, G11: a second close returns None, whatever its code."""
    with guarded.visit("second-close", code=code) as visit:
        assert visit.seen().code == 4001
    assert visit.sends() == {"close": "ok", "at-once": "ok", "later": "ok"}


def test_send_before_accept(guarded: Site) -> None:
    """G7: a send before the accept is a ProtocolError; the accept still works, and the early message is not sent."""
    with guarded.visit("send-before-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert_misuse(visit, "early", "websocket.send")


def test_second_accept(guarded: Site) -> None:
    """G7: a second accept is a ProtocolError, and the connection goes on."""
    with guarded.visit("second-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert_misuse(visit, "accept", "websocket.accept")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 3000, 4001, 4999])
def test_close_codes(guarded: Site, code: int) -> None:
    """G12: a legal code arrives; a registered one as 3000 + code on daphne, which cannot send it, nor any reason."""
    with guarded.visit("close-code", code=code) as visit:
        seen = visit.seen()
    daphne = Seen("close", 3000 + code if 1000 < code < 3000 else code)
    assert seen == (daphne if guarded.name == "daphne" else Seen("close", code, "why"))
    assert visit.sends() == {"close": "ok"}


@pytest.mark.parametrize("code", [999, 1005, 1006, 5000])
def test_illegal_close_codes(guarded: Site, code: int) -> None:
    """G12: a code that may not be sent becomes 1000 or 1011 (4011 on daphne), and no error."""
    with guarded.visit("close-code", code=code) as visit:
        seen = visit.seen()
    assert seen.end == "close"
    assert seen.code in ((1000, 4011) if guarded.name == "daphne" else (1000, 1011))
    assert visit.sends() == {"close": "ok"}


def test_handler_returns(guarded: Site) -> None:
    """G6: a handler that returns without a close closes with 1000."""
    with guarded.visit("returns") as visit:
        assert visit.seen() == Seen("close", 1000)


def test_handler_raises(guarded: Site) -> None:
    """G6: a handler that raises closes with 1011, also on daphne, and the exception reaches the server's log."""
    before = len(guarded.running.log)
    with guarded.visit("raises") as visit:
        seen = visit.seen()
    assert (seen.end, seen.code) == ("close", 1011)
    deadline = time.monotonic() + SLACK_S
    while "HandlerFailure: on purpose" not in guarded.running.log[before:]:
        assert time.monotonic() < deadline, guarded.running.log[before:]
        time.sleep(0.01)


def test_handler_is_cancelled_while_it_receives(guarded: Site) -> None:
    """
    A cancellation from outside goes on to the server, which ends the connection as without the guard.

    granian 2.8 does so only when nothing leads to its own object any more: neither the guard nor a traceback.
    """
    ends = {"hypercorn": Seen("close", 1011), "granian": Seen("close", 1005), "daphne": Seen("open")}
    with guarded.visit("cancelled") as visit:
        assert visit.seen(0.5 if guarded.name == "daphne" else 5.0) == ends.get(guarded.name, Seen("eof"))


@pytest.mark.parametrize(
    ("scenario", "granian", "others"),
    [
        ("return-before-accept", 403, 500),
        ("raise-before-accept", 403, 500),
        ("close-before-accept", 403, 403),
    ],
)
def test_before_accept(guarded: Site, scenario: str, granian: int, others: int) -> None:
    """G6: a handler that ends before the accept is left to the server; daphne gives no answer when it returns."""
    with guarded.raw_visit(scenario) as visit:
        visit.ended()
        unanswered = guarded.name == "daphne" and scenario == "return-before-accept"
        status = visit.peer.answer(timeout_s=0.4 if unanswered else 5.0).status
    expected = granian if guarded.name == "granian" else others
    assert status == (None if unanswered else expected)


def test_receive_after_a_close_before_accept(guarded: Site) -> None:
    """G3: the client has its 403, a receive behind it gives something everywhere; bare it is the end of granian."""
    with guarded.raw_visit("close-unread") as visit:
        assert visit.peer.answer().status == 403
        visit.ended()
    assert visit.records("receive")[0]["message"]["type"].startswith("websocket.")
    assert "panicked" not in guarded.running.log


def test_clients_that_leave_before_a_handler_accepts_unread(guarded: Site) -> None:
    """A handler may accept without a receive; bare granian 2.8.7 then ends its worker when the client has left."""
    for _ in range(30):
        with guarded.raw_visit("accept-unread") as visit:
            visit.peer.reset()
    with guarded.raw_visit("accept-unread") as visit:
        visit.peer.accepted()
    assert "panicked" not in guarded.running.log


def test_unread_messages_behind_a_handler_hold_no_connection(guarded: Site) -> None:
    """The transport ends although the handler left messages unread; hypercorn 0.18 waits until somebody reads them."""
    with guarded.raw_visit("parked", seconds=0.3) as visit:
        visit.peer.accepted()
        for _ in range(100):
            visit.peer.send_text("unread")
        visit.ended()
        assert b"\x88" in visit.peer.read(5.0)
        with contextlib.suppress(ConnectionError):  # it may have ended already
            visit.peer.send_close(1000)
        assert visit.peer.ends(10.0)


@pytest.mark.parametrize("by_hand", [0, 1])
def test_a_send_that_is_given_up_takes_no_disconnect_with_it(tmp_path: Path, by_hand: int) -> None:
    """G3: `receive` gives the disconnect, although hypercorn 0.18 lost it with the send that found the end."""
    with (
        serving(HYPERCORN, "probe_guarded:guarded", tmp_path) as site,
        site.raw_visit("give-up", receives=1, by_hand=by_hand) as visit,
    ):
        send_unread(visit, 40)
        visit.peer.reset()
        assert visit.receives()[-2:] == ["text 'unread'", "disconnect 1006"]


def test_messages_behind_a_ping_hold_no_connection(tmp_path: Path) -> None:
    """They are read when hypercorn 0.18 delivers them, long after the guard has ended connection and handler."""
    with (
        serving(HYPERCORN, "probe_guarded:guarded", tmp_path, options={"send_timeout_s": 1.0}) as site,
        site.raw_visit("give-up", chunks=1, limit=60.0, receive_buffer_bytes=65536) as visit,
    ):
        visit.peer.accepted()
        time.sleep(0.3)  # the buffers are full then
        visit.peer.send_behind_ping(["unread"] * 40)
        visit.ended()
        time.sleep(2.5)  # longer than the guard reads where nothing more can come
        assert visit.peer.ends(10.0)


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_denial_response_to_a_client_that_left(guarded: Site, act: Callable[[RawPeer], None]) -> None:
    """G2: no denial raises because its client has left, as bare granian 2.8.7 does."""
    if guarded.name == "daphne":
        pytest.skip("daphne 4.2.3 has no denial extension; the bare server's test shows what it does")
    with guarded.raw_visit("deny", window=0.5) as visit:
        visit.wait("connecting")
        act(visit.peer)
        assert visit.sends() == {"start": "ok", "body-1": "ok"}


def test_denial_response_with_a_body(guarded: Site) -> None:
    """A denial with a body arrives where the server has the extension (daphne has not)."""
    if guarded.name == "daphne":
        pytest.skip("daphne 4.2.3 has no denial extension; the bare server's test shows what it does")
    with guarded.raw_visit("deny") as visit:
        answer = visit.peer.answer(whole=True)
    assert (answer.status, answer.body) == (418, b"denied")
    assert visit.sends() == {"start": "ok", "body-1": "ok"}


def test_empty_messages(guarded: Site) -> None:
    """Empty messages pass in both directions, as far as the server carries them."""
    with guarded.visit("empty-text") as visit:
        for message in ("", b"", "x"):
            visit.client.send(message)
        wanted = ["before", "after"] if guarded.name == "daphne" else ["before", "", b"", "after"]
        assert [visit.client.recv(5.0) for _ in wanted] == wanted
    assert visit.receives()[:3] == ["text ''", "bytes 0", "text 'x'"]


def test_close_while_a_receive_is_pending(guarded: Site) -> None:
    """G11: a close beside a pending receive goes out on every server, and wakes it with the application's own code."""
    with guarded.visit("close-while-receiving") as visit:
        seen = watch(visit.client, timeout_s=5.0)
    assert (seen.end, seen.code) == ("close", 4001)
    assert visit.wait("closed")[0]["outcome"] == "ok"
    assert visit.receives() == ["disconnect 4001 bye"]
    assert visit.records("reader")[0]["done"] is True


def test_cancelled_receives(guarded: Site) -> None:
    """G5: a thousand receives that time out lose no message of 120, on any server."""
    messages = [str(number) for number in range(120)]
    with guarded.visit("cancelled-receives", seconds=9, count=120, timeouts=1000) as visit:
        for message in messages:
            visit.client.send(message)
            time.sleep(0.01)  # pace, so that receives time out between the messages
        visit.seen(10.0)
    got = visit.wait("got")[0]
    assert got["messages"] == messages
    assert got["timeouts"] >= 1000


@pytest.mark.parametrize("act", [RawPeer.leave, RawPeer.reset])
def test_client_leaves_before_accept(guarded: Site, act: Callable[[RawPeer], None]) -> None:
    """G1, G2: after a client left during the handshake, accept and send return None; granian never reports it."""
    with guarded.raw_visit("client-leaves-before-accept", window=0.6) as visit:
        visit.wait("connecting")
        act(visit.peer)
    reported = "hangs" if guarded.name == "granian" else "disconnect 1006"
    assert visit.receives()[0] == reported
    assert visit.sends() == {"accept": "ok", "after-accept": "ok"}


def test_peer_that_stops_reading(guarded: Site) -> None:
    """Without `send_timeout_s` the guard leaves back pressure as the server makes it."""
    with guarded.raw_visit("flood", receive_buffer_bytes=65536, count=256) as visit:
        visit.peer.accepted()
        record = visit.wait("flooded")[0]
        visit.peer.reset()
    assert record["outcome"] == ("took all" if guarded.name == "daphne" else "blocked")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_send_timeout(server: Server, tmp_path: Path) -> None:
    """`send_timeout_s` ends a connection whose peer does not read, where the server's send blocks at all."""
    options: dict[str, object] = {"send_timeout_s": 0.2}
    with (
        serving(server, "probe_guarded:guarded", tmp_path, options=options) as site,
        site.raw_visit("flood", receive_buffer_bytes=65536, count=256) as visit,
    ):
        visit.peer.accepted()
        record = visit.wait("flooded")[0]
    if server.name == "daphne":  # its send never blocks
        assert record["outcome"] == "took all"
    else:
        assert (record["outcome"], record["initiator"]) == ("closed", "guard")


@pytest.mark.parametrize("scenario", ["tight-late-sends", "tight-late-receives"])
def test_tight_loop_after_the_end(guarded: Site, scenario: str) -> None:
    """G1, G3, G4: a loop without any sleep starves nobody (an HTTP request takes under 0.5 s), and is stopped."""
    with guarded.raw_visit(scenario, seconds=7) as visit:
        visit.peer.accepted()
        visit.peer.reset()
        visit.wait("loops")
        began = time.monotonic()
        status = http_status(guarded.port, "/", timeout_s=5.0)
        assert (status, time.monotonic() - began < 0.5) == (200, True)
        looping = not visit.records("looped")
        assert looping, "the loop ended before the request did, which proves nothing"
        ended = visit.ended()
    assert visit.records("looped")[0]["seconds"] < 2 * LINGER_S + 2 * SLACK_S
    assert ended["type"].endswith((".CancelledError", ".ConnectionClosed"))


def test_late_sends_can_raise(tmp_path: Path) -> None:
    """With ``late_sends="raise"`` the first late send raises ConnectionClosed, which is an OSError."""
    options: dict[str, object] = {"late_sends": "raise"}
    with serving(SERVERS[0], "probe_guarded:guarded", tmp_path, options=options) as site:
        with site.visit("send-after-disconnect") as visit:
            say_goodbye(visit)
        visit.ended()
        first = visit.records("send")[0]
    assert error_line(first).partition(":")[0].endswith(".ConnectionClosed")
    assert "OSError" in first["mro"]


def test_log_is_quiet_for_normal_ends(guarded: Site) -> None:
    """A push-only handler whose client leaves makes no traceback in the server's log, on any server."""
    before = len(guarded.running.log)
    with guarded.visit("push-only", seconds=6) as visit:
        say_goodbye(visit)
    visit.ended()
    assert "Traceback" not in guarded.running.log[before:]


# --- trio: what needs no task and no timer of the guard (G14) --------------------------------------


def test_trio_client_closes(guarded_trio: Site) -> None:
    """G3, G14: the disconnect is sticky under trio."""
    with guarded_trio.visit("receive-after-disconnect", silence=NEVER_S) as visit:
        say_goodbye(visit)
    assert visit.receives() == ["disconnect 1006"] * 4


def test_trio_send_after_the_disconnect(guarded_trio: Site) -> None:
    """G1, G14: late sends return None under trio."""
    with guarded_trio.visit("send-after-disconnect") as visit:
        say_goodbye(visit)
    assert visit.sends() == dict.fromkeys(("late-1", "late-2", "late-close", "late-close-2"), "ok")


def test_trio_own_close(guarded_trio: Site) -> None:
    """G1, G3, G14: after the own close receive gives its code and sends return None, under trio."""
    with guarded_trio.visit("close-then-receive") as visit:
        assert visit.seen() == Seen("close", 4001, "bye")
    assert visit.receives() == ["disconnect 4001 bye"] * 3
    with guarded_trio.visit("second-close") as visit:
        assert visit.seen().code == 4001
    assert visit.sends() == {"close": "ok", "at-once": "ok", "later": "ok"}


def test_trio_misuse(guarded_trio: Site) -> None:
    """G7, G14: misuse is a ProtocolError under trio."""
    with guarded_trio.visit("send-before-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert_misuse(visit, "early", "websocket.send")
    with guarded_trio.visit("second-accept") as visit:
        assert visit.seen() == Seen("close", 1000, "", ("proper",))
    assert_misuse(visit, "accept", "websocket.accept")


def test_trio_guaranteed_end(guarded_trio: Site) -> None:
    """G6, G14: returning closes with 1000 and raising with 1011 under trio."""
    with guarded_trio.visit("returns") as visit:
        assert visit.seen() == Seen("close", 1000)
    with guarded_trio.visit("raises") as visit:
        seen = visit.seen()
    assert (seen.end, seen.code) == ("close", 1011)


def test_trio_cancelled_receives(guarded_trio: Site) -> None:
    """G14: a receive that trio cancels loses no message."""
    messages = [str(number) for number in range(60)]
    with guarded_trio.visit("cancelled-receives", seconds=9, count=60, timeouts=60) as visit:
        for message in messages:
            visit.client.send(message)
            time.sleep(0.01)  # pace, so that receives time out between the messages
        visit.seen(10.0)
    assert visit.wait("got")[0]["messages"] == messages


def test_trio_http_is_untouched(guarded_trio: Site) -> None:
    """G9, G14: an HTTP request is answered under trio."""
    assert http_status(guarded_trio.port, "/", timeout_s=5.0) == 200
