"""
G14: what the guard asks of an event loop, on each server with asyncio's own loop and with uvloop, by name.

The other tests take what a server takes unasked: uvicorn and granian uvloop, hypercorn asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from .conftest import LINGER_S
from .servers import GRANIAN, HYPERCORN, UVICORN_SANSIO, Server
from .sites import Site, serving
from .test_guarded_servers import (  # noqa: F401 - collected here too, with the fixture of this module
    test_cancelled_receives,
    test_client_closes,
    test_close_while_a_receive_is_pending,
    test_handle_tells_of_a_lost_transport,
    test_loop_that_catches_everything_is_cancelled,
    test_messages_before_the_disconnect_are_kept,
    test_push_only_transport_reset,
    test_send_after_own_close,
    test_tight_loop_after_the_end,
)

OPTIONS = {"uvicorn": "--loop", "granian": "--loop", "hypercorn": "--worker-class"}
LOOPS = ("asyncio", "uvloop")


def on_loop(server: Server, loop: str) -> Server:
    """Give a server with the option that names its event loop, which stands before the application."""
    at = server.command.index("{app}")
    option = (OPTIONS[server.distribution], loop)
    return replace(server, command=(*server.command[:at], *option, *server.command[at:]))


def loop_of(server: Server) -> str:
    """Give the name of the loop again."""
    return server.command[server.command.index(OPTIONS[server.distribution]) + 1]


CASES = [on_loop(server, loop) for server in (UVICORN_SANSIO, HYPERCORN, GRANIAN) for loop in LOOPS]


@pytest.fixture(scope="module", params=CASES, ids=lambda server: f"{server.name}-{loop_of(server)}")
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the probe inside the guard on a server and a loop."""
    server: Server = request.param
    folder = tmp_path_factory.mktemp("loops")
    options: dict[str, object] = {"linger_s": LINGER_S}
    with serving(server, "probe_guarded:guarded", folder, options=options) as site:
        with site.visit("scope") as visit:
            assert visit.wait("scope")[0]["loop"].partition(".")[0] == loop_of(server)
        yield site
