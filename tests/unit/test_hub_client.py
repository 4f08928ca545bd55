"""The client's side of the protocol, in Python and in JavaScript: both pass the same conversations."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_ws_guard.hub.client import HubClient, Received, follow
from asgi_ws_guard.testing import run

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "hub_client.js"
S = "user:ann"


def message(offset: int, epoch: str = "e", **part: Any) -> str:
    """Write a message of the server."""
    fields = {
        "hub": 1,
        "type": "message",
        "stream": S,
        "epoch": epoch,
        "offset": offset,
        "position": f"{epoch}{offset}",
    }
    return json.dumps({**fields, **(part or {"data": offset})})


def said(kind: str, **more: Any) -> str:
    """Write another message of the server."""
    return json.dumps({"hub": 1, "type": kind, "stream": S, **more})


def ack(position: str) -> dict[str, Any]:
    """Give an acknowledgement."""
    return {"hub": 1, "type": "ack", "stream": S, "position": position}


def new(offset: int, data: Any, epoch: str = "e") -> dict[str, Any]:
    """Give what is new."""
    return {"kind": "message", "stream": S, "data": data, "epoch": epoch, "offset": offset}


Step = tuple[str, dict[str, Any] | None, dict[str, Any] | None, bool]
CONVERSATIONS: dict[str, tuple[list[Step], str | None]] = {
    "new": ([(said("started", position="p"), {"kind": "started", "stream": S}, None, True)], "p"),
    "twice": (
        [
            (message(1), new(1, 1), None, True),
            (message(2, text="x", ack=True), new(2, "x"), ack("e2"), True),
            (message(2, text="x", ack=True), None, ack("e2"), True),
            (message(1, ack=True, data=1), None, ack("e1"), True),
            (message(3, base64="AP8="), new(3, [0, 255]), None, True),
        ],
        "e3",
    ),
    "another epoch": ([(message(5), new(5, 5), None, True), (message(1, "f"), new(1, 1, "f"), None, True)], "f1"),
    "gone": (
        [
            (message(5), new(5, 5), None, True),
            (said("gone", position="e0"), {"kind": "gone", "stream": S}, None, True),
            (message(1, data=None), new(1, None), None, True),
        ],
        "e1",
    ),
    "refused": ([(said("refused"), {"kind": "refused", "stream": S}, None, True)], None),
    "not ours": (
        [
            ("hello", None, None, False),
            ('{"a":"\\"hub\\""}', None, None, False),
            ('["hub"]', None, None, False),
            ('{"hub"', None, None, False),
            ('{"hub":2,"type":"message"}', None, None, True),
        ],
        None,
    ),
}


def plain(found: Received | None) -> dict[str, Any] | None:
    """Write what is new as JavaScript has it."""
    if found is None:
        return None
    if found.kind != "message":
        return {"kind": found.kind, "stream": found.stream}
    data = list(found.data) if isinstance(found.data, bytes) else found.data
    return new(found.offset, data, found.epoch)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_in_python(name: str) -> None:
    """What is new, what is answered, and where it is in the end."""
    steps, position = CONVERSATIONS[name]
    client = HubClient([S])
    for text, found, answer, is_ours in steps:
        got, said_back, ours = client.receive(text)
        assert (plain(got), said_back and json.loads(said_back), ours) == (found, answer, is_ours)
    opening = {"hub": 1, "type": "resume", "stream": S}
    expected = opening if position is None else {**opening, "position": position}
    assert [json.loads(one) for one in client.opening()] == [expected]


TALK = """
import { HubClient } from %s;
const out = [];
for (const texts of %s) {
  const client = new HubClient("ws://x", ["user:ann"]);
  const steps = texts.map((text) => {
    const { found, answer, isOurs } = client.receive(text);
    if (found && found.data instanceof Uint8Array) found.data = [...found.data];
    return [found ?? null, answer ? JSON.parse(answer) : null, isOurs];
  });
  out.push([steps, client.opening().map((text) => JSON.parse(text))]);
}
console.log(JSON.stringify(out));
"""
SOCKETS = """
import { HubClient } from %s;
const log = [];
class Socket {
  constructor() { Socket.last = this; this.readyState = 1; log.push("connect"); setTimeout(() => this.onopen()); }
  send(text) { log.push(JSON.parse(text)); }
  close() { this.readyState = 3; setTimeout(() => this.onclose()); }
}
const client = new HubClient("ws://x", ["user:ann"], {
  WebSocket: Socket,
  onMessage: (message) => log.push(message.data),
  onGone: () => log.push("gone"),
  onOther: (data) => log.push(["other", data]),
});
const turn = (ms = 5) => new Promise((done) => setTimeout(done, ms));
client.start();
await turn();
for (const text of %s) Socket.last.onmessage({ data: text });
Socket.last.close();
while (log.filter((one) => one === "connect").length < 2) await turn();
await turn();
client.stop();
await turn(300);
console.log(JSON.stringify(log));
"""


def node(script: str, folder: Path) -> Any:
    """Run a module, or skip the test; where CI runs, a missing program is a failure."""
    program = shutil.which("node")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("node is missing: apt-get install nodejs")
        pytest.skip("node is missing: apt-get install nodejs")
    module, client = folder / "talk.mjs", folder / "hub_client.mjs"
    client.write_text(SCRIPT.read_text())
    module.write_text(script)
    return json.loads(subprocess.run([program, module], check=True, capture_output=True, timeout=60).stdout)


def test_the_conversations_in_javascript(tmp_path: Path) -> None:
    """The page's client says and finds the same."""
    texts = [[step[0] for step in steps] for steps, _ in CONVERSATIONS.values()]
    for (steps, position), (got, opening) in zip(
        CONVERSATIONS.values(), node(TALK % ('"./hub_client.mjs"', json.dumps(texts)), tmp_path), strict=True
    ):
        assert [tuple(one) for one in got] == [step[1:] for step in steps]
        assert opening[0].get("position") == position


def test_a_page_comes_back(tmp_path: Path) -> None:
    """It asks, acknowledges, tells the page, comes back with its position, and stays away when it is stopped."""
    texts = [said("started", position="p"), message(1, data="a", ack=True), "mine", said("gone", position="q")]
    resume = {"hub": 1, "type": "resume", "stream": S}
    assert node(SOCKETS % ('"./hub_client.mjs"', json.dumps(texts)), tmp_path) == [
        *["connect", resume, "a", ack("e1"), ["other", "mine"], "gone"],
        *["connect", {**resume, "position": "q"}],
    ]


def test_following_comes_back_and_acknowledges_what_was_dealt_with() -> None:
    """Over connections that fail and end; a message is acknowledged when the next one is asked for."""
    sent: list[list[dict[str, Any]]] = []
    lives: list[list[str]] = [
        [message(1, data="a", ack=True), message(2, data="b", ack=True)],
        [],
        [said("unavailable"), message(9)],
        ["mine", message(2, data="b", ack=True), message(3, data="c")],
        [said("refused")],
    ]

    class Socket:
        def __init__(self, texts: list[str]) -> None:
            self.texts = texts

        async def send(self, text: str, /) -> None:
            sent[-1].append(json.loads(text))

        async def recv(self) -> str:
            if not self.texts:
                raise OSError
            return self.texts.pop(0)

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Socket]:
        sent.append([])
        yield Socket(lives.pop(0))

    async def main() -> None:
        got = []
        async for found in follow(connect, HubClient([S])):
            got.append(found.data or found.kind)
            if found.data == "a":
                assert len(sent[0]) == 1
        assert got == ["a", "b", "unavailable", "c", "refused"]

    run(main)
    resume = {"hub": 1, "type": "resume", "stream": S}
    assert sent == [
        [resume, ack("e1"), ack("e2")],
        [{**resume, "position": "e2"}],
        [{**resume, "position": "e2"}],
        [{**resume, "position": "e2"}, ack("e2")],
        [{**resume, "position": "e3"}],
    ]
