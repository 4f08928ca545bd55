"""One page of NiceGUI, whose label a timer changes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from nicegui import Client, ui

from ..scenarios import HOOK
from ..stage import PAUSE_S, case, say

app = FastAPI()


@ui.page("/nicegui", reconnect_timeout=0.2)
def page(client: Client, scenario: str, tag: str) -> None:
    """Show a number that changes."""
    label = ui.label("0")
    ui.timer(PAUSE_S, lambda: label.set_text(str(int(label.text) + 1)))

    def gone(*_: Any) -> None:
        case.set((scenario, tag))
        label.set_text("bye")
        say(HOOK)

    client.on_delete(gone)


ui.run_with(app, show_welcome_message=False)
