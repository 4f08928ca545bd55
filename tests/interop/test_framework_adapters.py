"""
Each framework with its adapter, on real servers: who catches everything is stopped, and the log holds no traceback.

Seen with Starlette 1.10.0, Litestar 2.25.0, Quart 0.22.0, Falcon 4.4.0 and BlackSheep 2.6.4 on uvicorn 0.54.0 and
hypercorn 0.18.0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .clients import library_client, watch
from .servers import HYPERCORN, UVICORN_SANSIO, Running, Server, start
from .sites import IMPORT_ROOT, PACKAGE

FRAMEWORKS = ("starlette", "litestar", "quart", "falcon", "blacksheep")
OVER_BY_S = 10.0
STOPPED_BY_THE_GUARD = ("starlette", "litestar", "falcon", "blacksheep")  # Quart stops its handlers itself


@pytest.fixture(scope="module", params=[UVICORN_SANSIO, HYPERCORN], ids=lambda server: server.name)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve all frameworks in one process, on each server in turn."""
    server: Server = request.param
    folder = tmp_path_factory.mktemp("frameworks")
    with start(server, f"{PACKAGE}.frameworks_app:app", folder, python_path=[IMPORT_ROOT]) as serving:
        yield serving


@pytest.mark.parametrize("scenario", ["own", "left"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_handler_that_catches_everything(running: Running, framework: str, scenario: str) -> None:
    """After the own close, and after the client left, it is over soon, and leaves no trace in the server's log."""
    path = f"/{framework}/{scenario}"
    with library_client(running.port, path) as client:
        if scenario == "own":
            seen = watch(client)
            assert (seen.end, seen.code) == ("close", 4001)
    deadline = time.monotonic() + OVER_BY_S
    while f"OVER {path}\n" not in running.log:
        assert time.monotonic() < deadline, running.log
        time.sleep(0.05)
    if framework in STOPPED_BY_THE_GUARD:
        assert f"STOPPED {path} raised\nSTOPPED {path} cancelled\n" in running.log
    time.sleep(0.1)  # what the server has to say of the end
    assert "Traceback" not in running.log
    assert "ERROR" not in running.log
