"""What may happen in a story: to a client, at a server, in the handler, in another task, and from outside."""

from __future__ import annotations

import builtins
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_ws_guard import ConnectionClosed

from .actors import Actor
from .connection import Conn
from .server import AFTERWARDS, SENDS, Bug, gone

if TYPE_CHECKING:
    from .world import World

__all__ = ["AFTERWARDS", "one"]

CODES = (1000, 1001, 1005, 1006, 1011, 1012, 1015, 3000, 4321, 99, 70000)
REASONS = ("", "bye", "é" * 80, "\ud800")


def one(world: World) -> None:
    """Let one thing happen, if it can."""
    world.pick(_RULES)(world)


def _client(world: World) -> None:
    """Let a client come, write or go."""
    if not world.conns or world.draw(10) == 0:
        world.connect()
        return
    server = world.pick(world.conns).server
    what = world.draw(8)
    if what < 5:
        if server.accepted and not server.left and not server.holds_end:
            for _ in range(world.pick((1, 1, 1, 1, 5))):
                text = "x" * world.tag()  # policies see the size alone
                server.deliver({"type": "websocket.receive", **({"text": text} if what else {"bytes": text.encode()})})
    elif what < 7:
        code = world.pick((1000, 1001, 1005, 1006, 1012, 4000))
        server.deliver({"type": "websocket.disconnect", "code": code, "reason": world.pick(("", "cya"))})
    elif not server.holds_end and world.draw(3) == 0:
        server.deliver(gone(world.draw(2)) if world.draw(2) else Bug("receive"))


def _drain(world: World) -> None:
    """Drain, seldom."""
    if world.draw(40) == 0:
        world.drain()


def _server(world: World) -> None:
    """Change how a server takes messages."""
    if world.conns:
        world.pick(world.conns).server.set_mode(world.pick(SENDS))


def _order(world: World) -> None:
    """Tell somebody who waits for an order what to do."""
    free = [actor for actor in world.everybody() if actor.is_free and not actor.done]
    if not free:
        return
    actor = world.pick(free)
    if actor.owner is not None and actor.is_handler and actor.owner.state == "CONNECTING" and world.draw(2):
        actor.order(partial(actor.send, actor.owner, {"type": "websocket.accept", "tag": world.tag()}))
        return
    conns = [conn for conn in world.conns if conn.has_begun]
    own = actor.owner if actor.owner is not None and world.draw(4) else None
    conn = own or (world.pick(conns) if conns else None)
    if conn is None:
        return
    actor.lets_out = world.draw(5) == 0
    what = world.draw(20)
    if what < 10:
        message = _message(world, conn)
        actor.order(lambda: actor.send(conn, message))
    elif what < 15:
        times = world.pick((1, 1, 6))
        actor.order(lambda: actor.listen(conn, times))
    elif what < 16:
        actor.order(lambda: actor.wait_closed(conn))
    elif what < 17:
        everybody = conns if world.draw(2) else [conn]
        rounds, pause_s = 1 + world.draw(9), world.pick((0.0, 0.3, 0.6))
        actor.order(lambda: actor.push(everybody, lambda: _text(world), rounds, pause_s))
    elif what < 18:
        _start(world, actor)
    elif what < 19 or not actor.is_handler:
        actor.order(None if world.draw(2) else lambda: actor.send(conn, _text(world)))
    else:
        error = _error(world, conn)
        actor.order(lambda: actor.fail(error))


def _start(world: World, actor: Actor) -> None:
    """Let a handler, or a foreign task, create a task."""
    if len(world.tasks) < 6:

        async def start() -> None:
            world.start(actor.owner)

        actor.order(start)


def _error(world: World, conn: Conn) -> BaseException:
    """Make what leaves a handler."""
    closed = ConnectionClosed(1006, "", "transport")  # type: ignore[arg-type]
    what = world.draw(4)
    if what == 3 and sys.version_info >= (3, 11):
        group: BaseException = vars(builtins)["ExceptionGroup"]("both", [closed, Bug("handler")])
        return group
    return closed if what == 2 else Bug("handler")


def _text(world: World) -> dict[str, Any]:
    return {"type": "websocket.send", "text": str(world.tags), "tag": world.tag()}


def _message(world: World, conn: Conn) -> dict[str, Any]:
    """Make a message: mostly what is allowed, sometimes what is not."""
    what, tag = world.draw(16), world.tag()
    if conn.state == "CONNECTING" and what < 11:
        return {"type": "websocket.accept", "tag": tag}
    if conn.state == "REJECTING" and what < 9:
        return {"type": "websocket.http.response.body", "body": b"no", "more_body": what < 4, "tag": tag}
    if what < 9:
        return {"type": "websocket.send", "text": "é" * what, "tag": tag}
    if what < 11:
        return {"type": "websocket.send", "bytes": b"\0", "text": None, "tag": tag} if what == 9 else _both(tag)
    if what < 13:
        return {"type": "websocket.close", "code": world.pick(CODES), "reason": world.pick(REASONS), "tag": tag}
    if what < 14:
        return {"type": "websocket.http.response.start", "status": 403, "tag": tag}
    return {"type": "websocket.accept" if what == 14 else "websocket.nonsense", "tag": tag}


def _both(tag: int) -> dict[str, Any]:
    return {"type": "websocket.send", "text": "a", "bytes": b"a", "tag": tag}


def _together(world: World) -> None:
    """Let all who are free receive from one connection; where some do, let a message come, and cancel whom it wakes."""
    conns = [conn for conn in world.conns if conn.has_begun and conn.state == "OPEN" and conn.server.accepted]
    if not conns or world.draw(3):
        return
    conn = world.pick(conns)
    receiving = [call.actor for call in world.pending if call.kind == "receive" and call.conn is conn]
    if len(receiving) < 2:
        free = [actor for actor in world.everybody() if actor.is_free and not actor.done and actor is not conn.actor]
        for actor in free:
            actor.order(partial(actor.receive, conn))
        if len(free) < 2 and len(world.tasks) < 6:
            world.start(None)
    elif not conn.server.left and not conn.server.holds_end:
        conn.server.deliver({"type": "websocket.receive", "text": "x" * world.tag()})
        for _ in range(6):
            world.loop.turns(1)
            woken = [actor for actor in receiving if actor.is_woken and not actor.is_handler]
            if woken:
                woken[0].cancel(obeys=world.draw(3) == 0)
                break


def _outside(world: World) -> None:
    """Cancel somebody, or let a foreign task begin."""
    if world.draw(3) == 0:
        if len(world.tasks) < 6:
            world.start(None)
        return
    everybody = world.everybody()
    busy = [actor for actor in everybody if actor.busy is not None]
    woken = [actor for actor in busy if actor.is_woken]
    if everybody and (woken or world.draw(2) == 0):
        world.pick(woken or busy or everybody).cancel(obeys=world.draw(3) == 0)


_RULES = (
    *(_client,) * 3,
    *(_order,) * 7,
    _server,
    _together,
    _outside,
    _outside,
    _drain,
)
