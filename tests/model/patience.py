"""How long each call may take when nothing is left to do at this moment: what hangs is found here (G3, G4, G5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .actors import Call
from .connection import Conn

if TYPE_CHECKING:
    from .world import World

CLOSE_S, DRAIN_S, STOP_S, IDLE_S, TICK_S = 60.0, 1.0, 1.0, 0.5, 0.25
"""The guard's own bounds, in seconds, written down a second time: a guard that takes longer breaks the model."""
MARGIN_S = 0.05
WIDTH_S = 0.025
"""A deadline is due that much later at most, beside the look that finds it."""


def check(world: World) -> None:
    """Check every pending call, and what every connection must know by now. Nothing is ready to run."""
    now = world.loop.time()
    for call in world.pending:
        if now > _until_s(world, call) + MARGIN_S + world.jumped_s:
            world.broken(
                f"{call.kind} of the {call.actor.name} on connection {call.conn.number} hangs since {call.began_s}"
            )
    for conn in world.conns:
        if conn.has_begun and not conn.was_over:
            _check_watched(world, conn, now)
            _check_deadlines(world, conn, now)


def _until_s(world: World, call: Call) -> float:
    """Give the time up to which a call may be pending."""
    conn, server = call.conn, call.conn.server
    stuck_s = server.closing_s is not None
    if call.kind == "send":
        return _send_until_s(world, call)
    if conn.state != "CLOSED":
        waits_for_message = call.kind == "receive" and _waits(conn)
        since_s = max(call.began_s, conn.seen.held_s, conn.seen.let_in_s)
        return since_s + TICK_S + STOP_S if waits_for_message else float("inf")
    heard_s = conn.ended_s + (CLOSE_S + TICK_S if stuck_s else 0.0)
    stop_s = STOP_S if server.loses_messages else 0.0
    since_s = max(call.began_s, heard_s, server.closed_s) + stop_s
    return since_s + (DRAIN_S if call.kind == "receive" else 0.0)


def _waits(conn: Conn) -> bool:
    """Tell whether a message waits, at the server or with the guard."""
    if conn.seen.is_held:
        return False  # `_check_first` minds that it is not for ever
    return bool(conn.server.inbox and not conn.server.left) or conn.next_handed() is not None


def _send_until_s(world: World, call: Call) -> float:
    server = call.conn.server
    if call.conn.seen.is_held and call.message["type"] != "websocket.close":
        return float("inf")
    timeouts = (world.options["send_timeout_s"], call.conn.seen.deadlines.send_s)
    timeout_s = min((one for one in timeouts if one is not None), default=None)
    if call.is_misuse or call.state == "CLOSED" or call.tag not in server.inside:
        is_stuck = server.closing_s is not None and call.conn.seen.firsts
        closing_s = call.conn.ended_s + CLOSE_S + TICK_S if is_stuck else 0.0
        since_s = max(call.began_s, call.conn.seen.let_in_s, closing_s, server.closed_s)
        return since_s + (STOP_S if server.loses_messages else 0.0)
    if timeout_s is None or call.conn.was_over:
        return float("inf")
    return server.inside[call.tag] + timeout_s + 2 * min(TICK_S, timeout_s / 4)


def _check_watched(world: World, conn: Conn, now: float) -> None:
    server = conn.server
    if not (world.options["watch"] and server.accepted and conn.state == "OPEN" and server.arrived_s is not None):
        return
    if conn.seen.is_held or server.inside or any(isinstance(one, Exception) for one in server.inbox):
        return
    since_s = max(server.arrived_s, server.accepted_s, server.errored_s, conn.read_s, conn.seen.held_s)
    if now > since_s + IDLE_S + 2 * TICK_S + MARGIN_S + world.jumped_s:
        world.broken(f"G5: the disconnect of connection {conn.number} waits since {server.arrived_s}")


def _check_deadlines(world: World, conn: Conn, now: float) -> None:
    """Check that no deadline of a policy is kept too late."""
    seen, deadlines, server = conn.seen, conn.seen.deadlines, conn.server
    bounds = []
    if conn.state == "CONNECTING":
        since_s = max(conn.opened_s, seen.admitted_s - (deadlines.handshake_s or 0.0))
        bounds.append(("handshake_s", since_s, deadlines.handshake_s))
    if conn.state == "OPEN":
        bounds.append(("max_age_s", conn.accepted_s, deadlines.max_age_s))
    if conn.state == "OPEN" and server.receives and not server.inbox:
        idle_s = deadlines.idle_s or 0.0
        since_s = max(conn.accepted_s, server.read_since_s, *server.handed_s[-1:], seen.held_s)
        bounds.append(("idle_s", since_s + min(TICK_S, idle_s / 4) + idle_s / 4 + WIDTH_S, deadlines.idle_s))
    if seen.is_held and server.accepted and conn.state == "OPEN":
        bounds.append(("timeout_s", server.accepted_s, min(one.timeout_s for one in seen.firsts)))
    for name, since_s, limit_s in bounds:
        if limit_s is None:
            continue
        late_s = min(TICK_S, limit_s / 4) + WIDTH_S
        if now > since_s + limit_s + late_s + MARGIN_S + world.jumped_s:
            world.broken(f"policies: {name} {limit_s} since {since_s} is not kept on connection {conn.number}")
    expires_s = max(seen.expires_s, seen.admitted_s)
    if conn.state in ("CONNECTING", "OPEN") and now > expires_s + TICK_S + WIDTH_S + MARGIN_S + world.jumped_s:
        world.broken(f"policies: the identity of connection {conn.number} ended at {seen.expires_s}")
