"""
A process that takes tickets, as a worker of a server does: one line of JSON per ticket and answer.

It reads the address of a Redis and a secret from its arguments, says ``ready``, then takes every ticket of a line
together.
"""

from __future__ import annotations

import asyncio
import json
import sys

from asgi_ws_guard import Handshake, Identity
from asgi_ws_guard.plugins.auth import RedisNonces, Tickets

HANDSHAKE = Handshake("/", b"", (), None, None, "ws", "1.1", (), False)


async def main(url: str, secret: str) -> None:
    """Take the tickets of each line of the standard input, all at once."""
    store = RedisNonces(url)
    tickets, loop = Tickets(secret, store=store), asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answers = await asyncio.gather(*(tickets.authenticate(one, HANDSHAKE) for one in json.loads(line)))
        print(json.dumps(["in" if isinstance(one, Identity) else one.reason for one in answers]), flush=True)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
