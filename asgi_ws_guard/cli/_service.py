"""
The service under `verify`: how it behaves towards an ordinary client, and whether it still serves one.

Imported by the probes and by `_verify.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ._address import Address
from ._opening import PeerError
from ._peer import Peer

TALK_TIMEOUT_S = 1.0  # a service that says nothing for so long is taken for one that does not begin
POLITE_S = 1.0  # how long an ordinary client waits for the answer to its close
NORMAL, GOING_AWAY = 1000, 1001
_NO_PURPOSE = (None, 1005, 1011)  # ends that nobody means


@dataclass(frozen=True)
class Settings:
    """
    How hard to try.

    Attributes:
        timeout_s: How long the service may take for any one thing, in seconds.
        connections: How many vanish at once.
        strict_origin: Whether a foreign origin that is accepted is a failure.
        half_open_s: How long the service may take to notice a silent peer, in seconds; None: nobody asks.
        message: Text of the messages that are sent.
        probes: Names of the probes to run; empty: all.
        afterwards_s: How long what is left behind may take to go in the end, in seconds.
    """

    timeout_s: float = 5.0
    connections: int = 100
    strict_origin: bool = False
    half_open_s: float | None = None
    message: str = "{}"
    probes: tuple[str, ...] = ()
    afterwards_s: float = 25.0  # a loop is stopped twice `linger_s` after the end: 20 s by default


class Service:
    """
    The service.

    Attributes:
        settings: How hard to try.
        handshakes: Opening handshakes that were begun.
        talks: Whether it sends without being asked.
        answers: Whether it answers a message.
        usual_code: What it closes with at once, when that is all that it does; None: it does not.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        self.settings = settings
        self.handshakes = 0
        self.talks = False
        self.answers = False
        self.usual_code: int | None = None
        self._address = address

    async def meet(self, within_s: float) -> None:
        """
        Connect for the first time, and see how it behaves.

        Args:
            within_s: How long the opening handshake may take, in seconds.

        Raises:
            PeerError: There is no connection.
        """
        async with await self.open(within_s=within_s) as peer:
            wait_s = min(TALK_TIMEOUT_S, self.settings.timeout_s)
            self.talks = await peer.message(wait_s)
            if not self.talks and await peer.send(self.settings.message, wait_s):
                self.answers = await peer.message(wait_s)
            if peer.is_over and peer.close_code not in _NO_PURPOSE:
                self.usual_code = peer.close_code
            await peer.close(NORMAL, min(POLITE_S, self.settings.timeout_s))

    async def open(
        self,
        *,
        within_s: float | None = None,
        origin: str | None = None,
        cookie: str | None = None,
        is_deaf: bool = False,
    ) -> Peer:
        """
        Connect; as `Peer.open` does.

        Raises:
            PeerError: There is no connection.
        """
        self.handshakes += 1
        within_s = self.settings.timeout_s if within_s is None else within_s
        return await Peer.open(self._address, within_s=within_s, origin=origin, cookie=cookie, is_deaf=is_deaf)

    async def serve(self) -> float:
        """
        Be an ordinary client: connect, and get what one gets: a message, an answer, or at least a pong.

        Returns:
            How long it took, in seconds.

        Raises:
            PeerError: It was not served in time.
        """
        clock = asyncio.get_running_loop().time
        began_s = clock()
        timeout_s = self.settings.timeout_s
        async with await self.open() as peer:
            if self.talks:
                is_served, what = await peer.message(timeout_s), "a message"
            elif self.answers:
                await peer.send(self.settings.message, timeout_s)
                is_served, what = await peer.message(timeout_s), "an answer"
            else:
                is_served, what = await peer.ping(timeout_s), "a pong"
            took_s = clock() - began_s
            if not is_served and (peer.close_code is None or peer.close_code != self.usual_code):
                how = f"was ended ({peer.close_code or 'no close frame'})" if peer.is_over else "is open"
                raise PeerError(f"another connection {how} but did not get {what} within {timeout_s:g} s")
            await peer.close(NORMAL, min(POLITE_S, self.settings.timeout_s))
        return took_s
