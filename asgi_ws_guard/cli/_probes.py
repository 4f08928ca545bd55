"""
The probes of `verify`: each is one bad client, and says what the service did about it.

What is true after every probe (others are served, nothing is left) is checked by `_verify.py`, not here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from ._checks import Check, Level, failed, held, note, unchecked
from ._endings import APP_ERROR, TOO_BIG, ended, ended_early, unanswered
from ._opening import PeerError, RefusedError
from ._peer import Peer
from ._service import GOING_AWAY, NORMAL, Service

PAGES = 30  # refreshes in the storm
PAGES_AT_ONCE = 4
PAGE_LIFE_S = 0.2  # how long a page waits for something to read
PAGE_CLOSE_S = 2.0  # how long it waits for the answer to its close
OPENING_AT_ONCE = 50  # more would overflow the queue of a listening socket
BURST_MESSAGES = 50  # an application that takes 80 ms for each is through within the timeout
DEAF_MESSAGES = 50
DEAF_BYTES = 16384  # of each of them
SILENCE_S = 1.0
HALF_OPEN_S = 2.0  # when nobody asks; servers ping after 20 s or never
REFUSAL_S = 0.3  # after the accept: how long a service may take to close for a reason
SIGN_OF_LIFE_S = 2.0
OVERSIZE_BYTES = 2**20 + 1
ATTACKER = "https://attacker.example"
COOKIE = "session=asgi-ws-guard-verify"

Probe = Callable[[Service], Awaitable[list[Check]]]


async def refresh_storm(service: Service) -> list[Check]:
    """Connect, read a little, close with 1001, connect again; every second page says something before it goes."""
    left = list(range(min(PAGES, service.settings.connections)))
    pages = len(left)
    unanswered = 0
    lost: Counter[str] = Counter()

    async def refresh() -> None:
        nonlocal unanswered
        while left:
            number = left.pop()
            try:
                async with await service.open() as page:
                    await page.message(PAGE_LIFE_S)
                    if page.is_over and page.close_code in (None, APP_ERROR):
                        lost[ended_early(page).what] += 1
                        continue
                    if number % 2:
                        await page.send(service.settings.message, PAGE_LIFE_S)
                    code = await page.close(GOING_AWAY, min(PAGE_CLOSE_S, service.settings.timeout_s))
                    unanswered += code is None
            except PeerError as error:
                lost[str(error)] += 1

    await asyncio.gather(*(refresh() for _ in range(PAGES_AT_ONCE)))
    checks = [failed(f"{count} of {pages} pages: {why}") for why, count in lost.items()]
    if unanswered:
        checks.append(failed(f"the close of {unanswered} of {pages} pages was not answered"))
    return checks or [held(f"{pages} pages came, read a little and went")]


async def clean_close(service: Service) -> list[Check]:
    """Close with 1000, and wait for the answer."""
    clock = asyncio.get_running_loop().time
    async with await service.open() as peer:
        await peer.message(PAGE_LIFE_S)
        if peer.is_over:
            return [ended_early(peer)]
        began_s = clock()
        code = await peer.close(NORMAL, service.settings.timeout_s)
        if code is None:
            return [unanswered(peer, service.settings.timeout_s)]
        return [held(f"the close was answered with {code} after {(clock() - began_s) * 1000:.0f} ms")]


async def reset(service: Service) -> list[Check]:
    """Read a little, then vanish with a TCP reset."""
    async with await service.open() as peer:
        await peer.message(PAGE_LIFE_S)
        peer.reset()
    return [held("the connection was reset")]


async def half_open(service: Service) -> list[Check]:
    """Fall silent after the opening handshake: answer no ping and no close."""
    clock = asyncio.get_running_loop().time
    asked_s = service.settings.half_open_s
    limit_s = min(HALF_OPEN_S, service.settings.timeout_s) if asked_s is None else asked_s
    async with await service.open() as peer:
        peer.answers = False
        began_s = clock()
        await peer.watch(limit_s)
        pings = f"{peer.pings} pings came"
        if peer.is_over:
            return [held(f"the service ended the silent connection after {clock() - began_s:.1f} s; {pings}")]
    what = f"a silent peer is kept for {limit_s:g} s and longer; {pings}"
    return [note(what) if asked_s is None else failed(what)]


async def deaf(service: Service) -> list[Check]:
    """Send and do not read, while other clients come."""
    settings = service.settings
    text = settings.message.ljust(DEAF_BYTES)
    slowest_s = 0.0
    async with await service.open(is_deaf=True) as peer:
        for _ in range(DEAF_MESSAGES):
            if not await peer.send(text, PAGE_LIFE_S):
                break  # it does not read either: that is back pressure
        for _ in range(3):
            try:
                slowest_s = max(slowest_s, await service.serve())
            except PeerError as error:
                return [failed(f"while a peer does not read: {error}")]
            await asyncio.sleep(SILENCE_S / 3)
    return [
        held(f"while a peer does not read, another is served within {slowest_s * 1000:.0f} ms"),
        unchecked("the service's memory cannot be seen from here"),
    ]


async def burst(service: Service) -> list[Check]:
    """Send many messages at once, then say nothing, then close."""
    settings = service.settings
    async with await service.open() as peer:
        taken = 0
        while taken < BURST_MESSAGES and await peer.send(settings.message, settings.timeout_s):
            taken += 1
        await peer.watch(SILENCE_S)
        if peer.is_over:
            return [ended(peer, "after the burst")]
        if taken < BURST_MESSAGES:
            return [failed(f"only {taken} of {BURST_MESSAGES} messages were taken within {settings.timeout_s:g} s")]
        code = await peer.close(NORMAL, settings.timeout_s)
        if code is None:
            return [unanswered(peer, settings.timeout_s)]
        return [held(f"{BURST_MESSAGES} messages and the silence are taken, the close is answered with {code}")]


async def wrong_origin(service: Service) -> list[Check]:
    """Come from a page of somebody else, with the cookie that a browser would send along."""
    try:
        peer = await service.open(origin=ATTACKER, cookie=COOKIE)
    except RefusedError as error:
        return [held(f"cross-site: a foreign origin is refused with HTTP {error.status}")]
    async with peer:
        await peer.watch(REFUSAL_S)
        if peer.close_code is not None:
            return [held(f"cross-site: a foreign origin is closed with {peer.close_code}")]
    level = Level.FAILED if service.settings.strict_origin else Level.WARNING
    what = f"cross-site: Origin {ATTACKER} is accepted, so any page can connect as the user whose browser shows it"
    return [Check(level, what)]


async def oversize(service: Service) -> list[Check]:
    """Send one message of more than 1 MiB."""
    settings = service.settings
    async with await service.open() as peer:  # an application may close for any message that it does not understand
        await peer.send(settings.message, settings.timeout_s)
        await peer.watch(REFUSAL_S)
        if peer.is_over:
            code = peer.close_code or "no close frame"
            return [
                unchecked(f"could not be checked: {settings.message!r} alone ends the connection ({code}); --message")
            ]
    async with await service.open() as peer:
        is_taken = await peer.send(settings.message.ljust(OVERSIZE_BYTES), settings.timeout_s)
        peer.skip()
        if service.talks or service.answers:
            lives = await peer.message(SIGN_OF_LIFE_S)
        else:
            lives = await peer.ping(SIGN_OF_LIFE_S)
        await peer.watch(REFUSAL_S)  # the server answers a ping by itself, before its application has seen the message
        if peer.is_over and peer.close_code is None:
            # daphne 4.2 does so itself: autobahn drops the transport of a message that is too large
            what = f"{OVERSIZE_BYTES} bytes: the connection is cut without a close frame, where {TOO_BIG} would say why"
            return [Check(Level.WARNING, what)]
        if peer.is_over:
            return [ended(peer, f"for {OVERSIZE_BYTES} bytes")]
        if not is_taken:
            return [note(f"{OVERSIZE_BYTES} bytes are not taken within {settings.timeout_s:g} s")]
        if lives:
            return [held(f"a message of {OVERSIZE_BYTES} bytes is taken")]
    what = f"after a message of {OVERSIZE_BYTES} bytes the connection gives no sign of life for {SIGN_OF_LIFE_S:g} s"
    return [Check(Level.WARNING, what)]


async def vanish(service: Service) -> list[Check]:
    """Open many connections, and reset them all at once."""
    wanted = service.settings.connections
    gate = asyncio.Semaphore(OPENING_AT_ONCE)
    peers: list[Peer] = []
    lost: Counter[str] = Counter()

    async def come() -> None:
        async with gate:
            try:
                peers.append(await service.open())
            except PeerError as error:
                lost[str(error)] += 1

    try:
        await asyncio.gather(*(come() for _ in range(wanted)))
    finally:
        for peer in peers:
            peer.reset()
    if lost:
        return [failed(f"{count} of {wanted} connections: {why}") for why, count in lost.items()]
    return [held(f"{wanted} connections were open, and vanished at once")]


PROBES: dict[str, Probe] = {
    "page-refresh-storm": refresh_storm,
    "clean-close": clean_close,
    "reset": reset,
    "half-open": half_open,
    "no-reading": deaf,
    "burst-then-silence": burst,
    "wrong-origin": wrong_origin,
    "oversize-message": oversize,
    "many-vanish": vanish,
}
"""The probes, in the order in which they run."""
