"""
How one connection comes into a stream: it gets what it missed, then becomes a member.

It becomes one in the same turn of the loop in which it is level, so that nothing is missed or sent twice. Who may come,
and what a stream that nobody is in any more leaves behind, is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ._delivery import Channel
from ._live import CHUNK, LiveStream
from ._protocol import notice
from ._publication import StreamId
from ._store import NOTHING
from ._streams import begin_at

Enter = Callable[[], object]
"""Makes a connection a member, without waiting."""
ResumeState = Literal["started", "resumed", "gone", "unavailable", "ended"]


@dataclass(frozen=True, slots=True)
class Resumed:
    """
    How a connection came into a stream.

    Attributes:
        state: "started" without a position; "resumed": it has got all that it missed; "gone": the history of its
            position is not there any more, or the position is not good; "unavailable": the store is away, and the
            connection is not in the stream; "ended": the connection is over.
        missed: Messages that it got first.
    """

    state: ResumeState
    missed: int = 0


async def bring_level(channel: Channel, live: LiveStream, position: object, enter: Enter) -> Resumed:
    """
    Give a connection what it missed, and make it a member.

    Args:
        channel: The way to it.
        live: The stream.
        position: What the client showed; None: nothing.
        enter: Makes it a member, without waiting.

    Raises:
        BackendUnavailable: The store is away; the connection is no member.
    """
    if live.feed.cursor is None:
        await live.begin()
    place = None if position is None else live.place(position)
    is_user = live.target.kind == "user"
    history = await live.read(NOTHING)
    state, after = begin_at(place, is_given=position is not None, is_user=is_user, history=history)
    if state == "resumed" or is_user:
        history = await live.read(after)
        if not history.follows(after):
            state = "gone"
            after = history.entries[0].offset - 1 if is_user and history.entries else history.last
    epoch = history.epoch
    if after > live.cursor.offset or live.cursor.epoch != epoch:
        await live.level()  # the client, or the store, is ahead of what this node has heard
    await live.fans.tell(channel, notice(state, live.target, live.sign(StreamId(epoch, after))))
    missed = 0
    while not channel.is_over:
        cursor = live.cursor
        if cursor.epoch != epoch:  # the store was emptied meanwhile
            return await bring_level(channel, live, "gone", enter)
        if after >= cursor.offset:
            enter()
            return Resumed(state, missed)
        entries = await live.missed(StreamId(epoch, after))
        if entries is None:  # it went while it was being sent
            return await bring_level(channel, live, "gone", enter)
        for entry in entries[:CHUNK]:
            if entry.offset <= cursor.offset:
                await live.fans.tell(channel, live.envelope(epoch, entry))
                after, missed = entry.offset, missed + 1
        await channel.drained()
    return Resumed("ended", missed)
