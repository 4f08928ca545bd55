"""What the real clients of these tests promise: nothing that a server sent is lost on them."""

from __future__ import annotations

import socket
import struct
from threading import Thread

from websockets.http11 import Request
from websockets.server import ServerProtocol

from .clients import Seen, library_client, watch
from .servers import HOST

TIMES = 20


def test_what_came_before_a_close_is_seen_although_the_server_resets_behind_it() -> None:
    """A server that waits for no answer to its close loses nothing of what it sent."""
    with socket.create_server((HOST, 0)) as listening:

        def serve() -> None:
            for _ in range(TIMES):
                peer, _ = listening.accept()
                with peer:
                    protocol = ServerProtocol()
                    while not (requests := protocol.events_received()):
                        protocol.receive_data(peer.recv(65536))
                    assert isinstance(requests[0], Request)
                    protocol.send_response(protocol.accept(requests[0]))
                    protocol.send_text(b"last")
                    protocol.send_close(4000)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.sendall(b"".join(protocol.data_to_send()))

        serving = Thread(target=serve, daemon=True)
        serving.start()
        seen = []
        for _ in range(TIMES):
            with library_client(listening.getsockname()[1], "/") as client:
                seen.append(watch(client))
        serving.join()
    assert seen == [Seen("close", 4000, messages=("last",))] * TIMES
