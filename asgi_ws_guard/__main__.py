"""
Start the command line: `asgi-ws-guard` and `python -m asgi_ws_guard`.

It only makes sure that the extra `cli` is installed; the commands themselves stand in `cli/_app.py`. Nobody
imports this module but the entry point.
"""

from __future__ import annotations

import importlib.util
import sys

REQUIRED_MODULES = ("rich", "typer", "uvicorn", "websockets")


def main() -> None:
    """
    Run the command line, or say in one sentence what is missing for it.

    Raises:
        SystemExit: with status 2 when a module of the extra `cli` is missing, else with the status of the command.
    """
    missing = [name for name in REQUIRED_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f'asgi-ws-guard: the command line needs {", ".join(missing)}: pip install "asgi-ws-guard[cli]"\n'
        )
        raise SystemExit(2)
    from .cli._app import app

    app(prog_name="asgi-ws-guard")


if __name__ == "__main__":
    main()
