"""
A raw ASGI application that does what its path says and writes down what it saw.

``/push-only?tag=t7&seconds=1.2`` runs `push_only` and appends JSON lines (scenario, tag, event, ...) to the file that
``PROBE_RECORDS`` names. The scenario never raises by itself unless that is its subject: what the server raises
is a record. Every loop ends by itself, so a bare server that stays silent keeps no handler for ever. Runs in the
server's process and imports nothing but the standard library, and trio when it runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RECORDS_VARIABLE = "PROBE_RECORDS"
SILENCE_S = 0.3  # a receive() that gives nothing for this long counts as hanging
CHUNK = b"x" * 65536


class HandlerFailure(Exception):
    """What the scenarios raise on purpose; no server and no guard knows it."""


class Peer:
    """
    One connection, with a record for everything that is done on it.

    Args:
        scope: Of the connection.
        receive: The server's, or the guard's.
        send: The server's, or the guard's.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.raw_receive = receive
        self.raw_send = send
        self.scenario = scope["path"].lstrip("/")
        self.options = dict(parse_qsl(scope["query_string"].decode()))
        self.handle: Any = scope.get("asgi_ws_guard.connection")

    def number(self, name: str, default: float) -> float:
        """Return an option of the query string as a number."""
        return float(self.options.get(name, default))

    def record(self, event: str, **facts: Any) -> None:
        """Append one line to the record file, at once."""
        tag = self.options.get("tag", "")
        line = json.dumps({"scenario": self.scenario, "tag": tag, "event": event, **facts})
        with open(os.environ[RECORDS_VARIABLE], "ab") as file:
            file.write(line.encode() + b"\n")

    async def send(self, label: str, message: Message) -> bool:
        """Send; record the outcome under *label*; tell whether the server took it."""
        facts = await self.attempt(message)
        self.record("send", label=label, **facts)
        return bool(facts["outcome"] == "ok")

    async def attempt(self, message: Message) -> dict[str, Any]:
        """Send; return the outcome without a record."""
        try:
            await self.raw_send(message)
        except Exception as error:
            return {"outcome": "error", **describe(error)}
        return {"outcome": "ok"}

    async def text(self, label: str) -> bool:
        """Send *label* as a text message."""
        return await self.send(label, {"type": "websocket.send", "text": label})

    async def close(self, label: str, code: int = 1000, reason: str = "") -> bool:
        """Send a close."""
        message = {"type": "websocket.close", "code": code, "reason": reason}
        return await self.send(label, message)

    async def connect(self) -> None:
        """Read the websocket.connect."""
        message = await self.raw_receive()
        assert message["type"] == "websocket.connect", message

    async def accept(self) -> None:
        """Read the websocket.connect and accept."""
        await self.connect()
        await self.raw_send({"type": "websocket.accept"})
        self.record("accepted")

    async def receive(self, label: str, seconds: float | None = None) -> Message | None:
        """
        Receive and record what came.

        Args:
            label: Goes into the record.
            seconds: How long to wait; None means without a limit.

        Returns:
            The message, or None when nothing came in time or the server raised.
        """
        try:
            message = await (self.raw_receive() if seconds is None else within(seconds, self.raw_receive))
        except Exception as error:
            self.record("receive", label=label, outcome="error", **describe(error))
            return None
        if message is None:
            self.record("receive", label=label, outcome="hangs")
        else:
            self.record("receive", label=label, outcome="message", message=printable(message))
        return message

    async def receive_until_disconnect(self) -> None:
        """Receive and record until the disconnect came or the server raised."""
        while True:
            message = await self.receive("until-disconnect", 10.0)
            if message is None or message["type"] == "websocket.disconnect":
                return


def describe(error: BaseException) -> dict[str, Any]:
    """Return the type, the bases and the text of an exception, for a record."""
    mro = [qualified_name(one) for one in type(error).__mro__ if one is not object]
    return {"type": mro[0], "mro": mro, "text": str(error)}


def qualified_name(kind: type) -> str:
    """Return ``module.qualname``, without the module for builtins."""
    prefix = "" if kind.__module__ == "builtins" else kind.__module__ + "."
    return prefix + kind.__qualname__


def printable(message: Message) -> dict[str, Any]:
    """Return a message with bytes replaced by their length."""
    return {key: len(value) if isinstance(value, bytes) else value for key, value in message.items()}


def on_asyncio() -> bool:
    """Tell whether the server runs asyncio (or uvloop), not trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def sleep(seconds: float) -> None:
    """Sleep on whichever loop the server runs."""
    if on_asyncio():
        await asyncio.sleep(seconds)
    else:
        import trio

        await trio.sleep(seconds)


async def within(seconds: float, function: Callable[[], Awaitable[Any]]) -> Any:
    """Return what *function* gives, or None when it was not done in time and was cancelled."""
    if on_asyncio():
        try:
            return await asyncio.wait_for(_run(function), seconds)
        except asyncio.TimeoutError:
            return None
    import trio

    with trio.move_on_after(seconds):
        return await function()
    return None


async def _run(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


# --- the scenarios, one per row of the table -----------------------------------------------------


async def scope(peer: Peer) -> None:
    """Record the keys of the scope that the table is about."""
    asgi = peer.scope.get("asgi", {})
    peer.record(
        "scope",
        spec_version=asgi.get("spec_version"),
        denial="websocket.http.response" in peer.scope.get("extensions", {}),
        scheme=peer.scope.get("scheme"),
        loop=type(asyncio.get_running_loop()).__module__ if on_asyncio() else "trio",
    )
    await peer.accept()
    await peer.close("close")


async def receive_until_disconnect(peer: Peer) -> None:
    """Receive to the end."""
    await peer.accept()
    await peer.receive_until_disconnect()


async def push_only(peer: Peer) -> None:
    """
    Send every 20 ms and never receive, until a send fails or the time is over.

    ``catch=1`` goes on after errors, like an application that logs and carries on.
    """
    await peer.accept()
    began = time.monotonic()
    closed_seen = False
    sent = 0
    while time.monotonic() - began < peer.number("seconds", 1.0):
        if peer.handle is not None and not peer.handle.is_open and not closed_seen:
            closed_seen = True
            peer.record("not-open", after_s=time.monotonic() - began, **handle_facts(peer))
        try:
            await peer.raw_send({"type": "websocket.send", "text": "tick"})
        except Exception as error:
            peer.record("send-error", after_s=time.monotonic() - began, **describe(error))
            if "catch" not in peer.options:
                break
        sent += 1
        await sleep(0.02)
    peer.record("pushed", sent=sent, seconds=time.monotonic() - began)


async def give_up(peer: Peer) -> None:
    """
    Send text, or with ``chunks`` 64 KiB, until a send is given up after ``limit`` s; then receive, or return.

    It is cancelled, or with ``by_hand`` begun without a task and thrown away.
    """
    give_time = _throw_away if peer.number("by_hand", 0) else asyncio.wait_for
    await peer.accept()
    message = {"type": "websocket.send", **({"bytes": CHUNK} if peer.number("chunks", 0) else {"text": "x"})}
    with contextlib.suppress(asyncio.TimeoutError):
        while True:
            await give_time(peer.raw_send(message), peer.number("limit", 0.1))
            if peer.handle is not None and not peer.handle.is_open:
                break
            await asyncio.sleep(0.001)
    peer.record("gave-up")
    while peer.number("receives", 0):
        received = await peer.receive("behind", 3.0)
        if received is None or received["type"] == "websocket.disconnect":
            return


async def _throw_away(sending: Awaitable[None], limit_s: float) -> None:
    """Begin a send in no task, and throw it away if it does not go on within a time."""
    steps: Any = sending.__await__()
    with contextlib.suppress(StopIteration):
        while True:
            done, _ = await asyncio.wait([next(steps)], timeout=limit_s)
            if not done:
                steps.close()
                raise asyncio.TimeoutError


async def parked(peer: Peer) -> None:
    """Accept, then wait for something that never comes: neither send nor receive."""
    await peer.accept()
    await sleep(peer.number("seconds", 1.0))
    peer.record("unparked")


async def receive_late(peer: Peer) -> None:
    """Accept, do something else for a while, then receive to the end and twice more."""
    await peer.accept()
    await sleep(peer.number("seconds", 1.0))
    await peer.receive_until_disconnect()
    await peer.receive("again-1", SILENCE_S)
    await peer.receive("again-2", SILENCE_S)


async def wait_closed(peer: Peer) -> None:
    """Wait for the end through the guard's handle, without receiving."""
    await peer.accept()
    began = time.monotonic()
    await peer.handle.wait_closed()
    peer.record("closed", after_s=time.monotonic() - began, **handle_facts(peer))
    await peer.receive("first", SILENCE_S)
    await peer.receive("second", SILENCE_S)


def handle_facts(peer: Peer) -> dict[str, Any]:
    """Return what the guard's handle says of the end."""
    handle = peer.handle
    initiator = None if handle.initiator is None else str(handle.initiator)
    return {
        "is_open": handle.is_open,
        "code": handle.close_code,
        "reason": handle.close_reason,
        "initiator": initiator,
    }


async def send_after_disconnect(peer: Peer) -> None:
    """Receive to the end, then send and close."""
    await peer.accept()
    await peer.receive_until_disconnect()
    await peer.text("late-1")
    await sleep(0.1)
    await peer.text("late-2")
    await peer.close("late-close")
    await peer.close("late-close-2")


async def receive_after_disconnect(peer: Peer) -> None:
    """Receive to the end, then three times more."""
    await peer.accept()
    await peer.receive_until_disconnect()
    for number in (1, 2, 3):
        if await peer.receive(f"again-{number}", peer.number("silence", SILENCE_S)) is None:
            break


async def close_then_receive(peer: Peer) -> None:
    """Close, then receive three times."""
    await peer.accept()
    await peer.close("close", int(peer.number("code", 4001)), peer.options.get("reason", "bye"))
    peer.record("close-returned")
    for number in (1, 2, 3):
        if await peer.receive(f"again-{number}", peer.number("silence", SILENCE_S)) is None:
            break


async def send_after_close(peer: Peer) -> None:
    """Close, then send at once and later: until the outcome changes or the time is over."""
    await peer.accept()
    await peer.close("close", 4001)
    await later(peer, {"type": "websocket.send", "text": "late"})


async def second_close(peer: Peer) -> None:
    """Close, then close at once and later: until the outcome changes or the time is over."""
    await peer.accept()
    await peer.close("close", int(peer.number("first", 4001)))
    await later(peer, {"type": "websocket.close", "code": int(peer.number("code", 4001))})


async def later(peer: Peer, message: Message) -> None:
    """Send *message* at once and every 20 ms, and record the first and the last outcome."""
    first = last = await peer.attempt(message)
    deadline = time.monotonic() + peer.number("seconds", 0.4)
    while last == first and time.monotonic() < deadline:
        await sleep(0.02)
        last = await peer.attempt(message)
    peer.record("send", label="at-once", **first)
    peer.record("send", label="later", **last)


async def send_before_accept(peer: Peer) -> None:
    """Send before the accept, then accept and send properly."""
    await peer.connect()
    await peer.text("early")
    if await peer.send("accept", {"type": "websocket.accept"}):
        await peer.text("proper")
        await peer.close("close")


async def second_accept(peer: Peer) -> None:
    """Accept twice, then send and close."""
    await peer.accept()
    await peer.send("accept", {"type": "websocket.accept"})
    await peer.text("proper")
    await peer.close("close")


async def close_code(peer: Peer) -> None:
    """Close with the code of the query string."""
    await peer.accept()
    await peer.close("close", int(peer.number("code", 1000)), "why")


async def returns(peer: Peer) -> None:
    """Return without a close."""
    await peer.accept()


async def raises(peer: Peer) -> None:
    """Raise after the accept."""
    await peer.accept()
    raise HandlerFailure("on purpose")


async def cancelled(peer: Peer) -> None:
    """Be cancelled from outside while a receive is pending."""
    await peer.accept()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    while True:
        await peer.raw_receive()


async def return_before_accept(peer: Peer) -> None:
    """Return without an accept."""
    await peer.connect()


async def raise_before_accept(peer: Peer) -> None:
    """Raise without an accept."""
    await peer.connect()
    raise HandlerFailure("on purpose")


async def close_before_accept(peer: Peer) -> None:
    """Close instead of an accept."""
    await peer.connect()
    await peer.close("close", 4003)


async def close_unread(peer: Peer) -> None:
    """Close instead of an accept, before anything was received, and receive then."""
    await peer.close("close", 4003)
    await peer.receive("late", 2.0)


async def accept_unread(peer: Peer) -> None:
    """Accept before anything was received, and receive to the end."""
    await peer.send("accept", {"type": "websocket.accept"})
    await peer.receive_until_disconnect()


async def deny(peer: Peer) -> None:
    """Deny with a body, after ``window`` s, in ``parts`` messages and with ``pause`` seconds after the start."""
    await peer.connect()
    peer.record("connecting")
    await sleep(peer.number("window", 0.0))
    start = {
        "type": "websocket.http.response.start",
        "status": 418,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", b"6")],
    }
    if not await peer.send("start", start):
        return
    if "pause" in peer.options:
        await sleep(peer.number("pause", 0.05))
    parts = [b"den", b"ied"] if "parts" in peer.options else [b"denied"]
    for number, part in enumerate(parts, 1):
        message: Message = {"type": "websocket.http.response.body", "body": part}
        if number < len(parts):
            message["more_body"] = True
        if not await peer.send(f"body-{number}", message):
            return


async def empty_text(peer: Peer) -> None:
    """Send empty messages between others, and receive to the end."""
    await peer.accept()
    await peer.text("before")
    await peer.send("empty", {"type": "websocket.send", "text": ""})
    await peer.send("empty-bytes", {"type": "websocket.send", "bytes": b""})
    await peer.text("after")
    await peer.receive_until_disconnect()


async def close_while_receiving(peer: Peer) -> None:
    """Close in this task while another one waits in receive."""
    await peer.accept()
    reader = asyncio.ensure_future(peer.receive("pending", 5.0))
    await sleep(0.1)
    closed = await within(peer.number("window", 1.5), lambda: peer.close("close", 4001, "bye"))
    peer.record("closed", outcome="ok" if closed else "deadlock")
    await asyncio.wait([reader], timeout=SILENCE_S)
    peer.record("reader", done=reader.done())
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader


async def cancelled_receives(peer: Peer) -> None:
    """
    Receive with a timeout that is mostly too short, and record what came.

    Ends when ``count`` messages came and ``timeouts`` receives timed out, at the disconnect, or after ``seconds``.
    """
    await peer.accept()
    timeouts = 0
    got: list[str] = []
    deadline = time.monotonic() + peer.number("seconds", 8.0)
    count, least = peer.number("count", 120), peer.number("timeouts", 0)
    while time.monotonic() < deadline and (len(got) < count or timeouts < least):
        message = await within(peer.number("timeout", 0.001), peer.raw_receive)
        if message is None:
            timeouts += 1
        elif message["type"] == "websocket.disconnect":
            break
        else:
            got.append(message["text"])
    peer.record("got", timeouts=timeouts, messages=got)
    await peer.close("close")


async def client_leaves_before_accept(peer: Peer) -> None:
    """Wait for the disconnect before the accept, then accept and send in spite of it."""
    await peer.connect()
    peer.record("connecting")
    await peer.receive("before-accept", peer.number("window", 1.0))
    if await peer.send("accept", {"type": "websocket.accept"}):
        await peer.text("after-accept")


async def return_unanswered(peer: Peer) -> None:
    """Wait for the disconnect before the accept, and return."""
    await peer.connect()
    peer.record("connecting")
    await peer.receive("before-accept", peer.number("window", 1.0))


async def flood(peer: Peer) -> None:
    """Send ``count`` messages of 64 KiB; a send that takes half a second counts as blocked."""
    await peer.accept()
    count = int(peer.number("count", 400))
    for number in range(count):
        sent = await within(0.5, lambda: peer_sends_chunk(peer))
        if sent is None:
            peer.record("flooded", outcome="blocked", sent=number)
            return
        if peer.handle is not None and not peer.handle.is_open:
            peer.record("flooded", outcome="closed", sent=number, **handle_facts(peer))
            return
        if isinstance(sent, Exception):
            peer.record("flooded", outcome="error", sent=number, **describe(sent))
            return
    peer.record("flooded", outcome="took all", sent=count)


async def peer_sends_chunk(peer: Peer) -> bool | Exception:
    """Send one large message; give the exception instead of raising it."""
    try:
        await peer.raw_send({"type": "websocket.send", "bytes": CHUNK})
    except Exception as error:
        return error
    return True


async def tight_late_sends(peer: Peer) -> None:
    """Receive to the end, then send in a loop without any sleep and without minding errors."""
    await peer.accept()
    await peer.receive_until_disconnect()
    peer.record("loops")
    sent = errors = 0
    began = time.monotonic()
    try:
        while time.monotonic() - began < peer.number("seconds", 5.0):
            sent += 1
            try:
                await peer.raw_send({"type": "websocket.send", "text": "late"})
            except Exception:
                errors += 1
    finally:
        peer.record("looped", sent=sent, errors=errors, seconds=time.monotonic() - began)


async def tight_late_receives(peer: Peer) -> None:
    """Receive in a loop that does not mind the disconnect."""
    await peer.accept()
    received = 0
    began = time.monotonic()
    looping = False
    try:
        while time.monotonic() - began < peer.number("seconds", 5.0):
            message = await peer.raw_receive()
            received += 1
            if message["type"] == "websocket.disconnect" and not looping:
                looping = True
                peer.record("loops")
    finally:
        peer.record("looped", received=received, seconds=time.monotonic() - began)


SCENARIOS: dict[str, Callable[[Peer], Awaitable[None]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        scope,
        receive_until_disconnect,
        push_only,
        give_up,
        parked,
        receive_late,
        wait_closed,
        send_after_disconnect,
        receive_after_disconnect,
        close_then_receive,
        send_after_close,
        second_close,
        send_before_accept,
        second_accept,
        close_code,
        returns,
        raises,
        cancelled,
        return_before_accept,
        raise_before_accept,
        close_before_accept,
        close_unread,
        accept_unread,
        return_unanswered,
        deny,
        empty_text,
        close_while_receiving,
        cancelled_receives,
        client_leaves_before_accept,
        flood,
        tight_late_sends,
        tight_late_receives,
    )
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve lifespan, one HTTP page, and the scenarios."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
    else:
        await _run_scenario(Peer(scope, receive, send))


async def _run_scenario(peer: Peer) -> None:
    try:
        await SCENARIOS[peer.scenario](peer)
    except BaseException as error:
        peer.record("ended", how="raised", **describe(error))
        raise
    peer.record("ended", how="returned")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
