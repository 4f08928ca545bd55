"""What the fuzzers have found, as plain tests; the model's finds stand with the promise that they broke."""

from __future__ import annotations

import http.server
import threading

import pytest

from asgi_ws_guard.cli._health_reader import HealthReader

NUMBERS = b'"connecting": 0, "open": 0, "lingering": 0, "zombies": 0, "opened": Infinity'


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b'{"status": "ok", "reasons": [], "connections": {' + NUMBERS + b"}}", id="infinite number"),
        pytest.param(b"[" * 200_000, id="brackets in brackets"),
    ],
)
def test_a_page_that_is_json_and_no_health_is_none(page: bytes) -> None:
    """JSON that Python cannot make a number or a list of is no health, and no traceback of `verify`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert HealthReader(f"http://127.0.0.1:{server.server_port}/health", 5.0).read() is None
        server.shutdown()
        thread.join()
