# ruff: noqa: E501
"""
Breaks the guard in one line at a time, and counts the steps in which the model finds it: ``python -m model.mutants``.

A checker that finds nothing proves nothing until it is seen to find. Every mutant is a copy of the package; a line that
the code does not have any more is reported as stale, and ends the run with an error, like a mutant that survives.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "asgi_ws_guard"
MUTANTS = (
    ("the path stays open at the end", "_session.py", "        self.shut_path()\n        if self._end_flag", "        if self._end_flag"),
    ("the path stays open while the reading is stopped", "_ending.py", "        session.has_ended()  # before", "        pass  # before"),
    ("who waits for the end is forgotten", "_session.py", "            self._end_flag.set()", "            pass"),
    ("who receives is not woken at the end", "_receiving.py", "        self._wake()\n        if self._session.path.reading", "        if self._session.path.reading"),
    ("a receive at the server is not woken at the end", "_receiving.py", "            self._waker.wake(reading)", "            pass"),
    ("who waits in the server is not woken", "_receiving.py", "            self._waker.wake(reading)", "            pass"),
    ("a cancelled receiver wakes no other", "_reader.py", "            if flag.is_set():\n                self._wake_one()", "            if flag.is_set():\n                pass"),
    ("the newest message comes first", "_reader.py", "self._buffer.popleft()", "self._buffer.pop()"),
    ("what is polled is lost", "_receiving.py", "not self._hold(message, decision)):\n            self._put_polled(message)", "not self._hold(message, decision)):\n            pass"),
    ("an error of receive is swallowed", "_receiving.py", "            self.reader.put(error)", "            pass"),
    ("messages come after the disconnect", "_receiving.py", "None if self._given else self.reader.take()", "self.reader.take()"),
    ("nobody reads ahead", "_receiving.py", "            session.path.block_reads()\n            self.reader.start()", "            pass"),
    ("a read started again is left", "_receiving.py", "            self._reader.cancel()", "            pass"),
    ("a read stays pending during a close", "_sending.py", "if session.receiving.stop_before_close:", "if False:"),
    ("a close is heard of before it is out", "_sending.py", "return self._closing is not None and not", "return False and not"),
    ("a drop counts twice", "_connection.py", "self.dropped.get(reason.value, 0) + 1", "self.dropped.get(reason.value, 0) + 2"),
    ("a failed send is not counted", "_sending.py", "            session.connection.failed += 1", "            pass"),
    ("every error of send is the end", "_sending.py", "        if peer_lost(error):\n            session.transport_lost()", "        if isinstance(error, Exception):\n            session.transport_lost()"),
    ("a lost peer is a real error", "_sending.py", "        if peer_lost(error):\n            session.transport_lost()", "        if False:\n            session.transport_lost()"),
    ("a close leaves the connection open", "_state.py", '"websocket.send": _OPEN, "websocket.close": _CLOSED', '"websocket.send": _OPEN, "websocket.close": _OPEN'),
    ("any close code goes out", "_close.py", "    return int(CloseCode.INTERNAL_ERROR)", "    return code"),
    ("any reason goes out", "_close.py", "encoded[:MAX_REASON_BYTES]", "encoded[:]"),
    ("any cancellation is the guard's", "_ending.py", "if cancelled_by_guard and isinstance", "if isinstance"),
    ("no cancellation is the guard's", "_ending.py", "if cancelled_by_guard and isinstance", "if False and isinstance"),
    ("a cancellation beside the guard's is lost", "_linger.py", "self._cancels > 0 and cancel_requests(task) <= self._survived", "self._cancels > 0"),
    ("a cancellation beside a waking is lost", "_waking.py", "return cancel_requests(task) <= self._requests.pop(task)", "return self._requests.pop(task) >= 0"),
    ("nobody lingers", "_linger.py", "self._until_s = ended_at_s + linger_s", "self._until_s = ended_at_s"),
    ("a handler is never stopped", "_linger.py", "return self._stop_own() if at_once or self._loop.time() >= self._until_s", "return self._stop_own() if at_once"),
    ("strangers are children", "_lateness.py", "return _current.get() is self._session.handle", "return True"),
    ("a task that serves others is stopped", "_senders.py", "family_may_stop) and not suspect.serves_others", "family_may_stop)"),
    ("a stopped task is not excused", "_lateness.py", "            session.watch.senders.excuse(task)", "            pass"),
    ("a blocked send is not woken", "_sending.py", "            self._waker.wake(one)", "            pass"),
    ("a denied client is cancelled for ever", "_ending.py", "    session.handler_done()  # a client", "    # a client"),
    ("a read goes on behind the handler", "_receiving.py", "            self._reader.cancel()", "            pass"),
    ("a timer of the linger stays", "_linger.py", "            timer.cancel()", "            pass"),
    ("a connection stays with the watch", "_bookkeeping.py", "            session.watch.remove(session)", "            pass"),
    ("an accept that failed is closed", "_ending.py", "or not session.connection.answers:", "or False:"),
    ("a handler that returns does not close", "_ending.py", "    code = session.options.close_on_return", "    code = None"),
    ("disconnects leave the guard", "_ending.py", "        error = left\n", "        error = error\n"),
    ("a real error is absorbed", "_ending.py", "        error = left\n", "        error = None\n"),
    ("a second accept is taken", "_state.py", '    _OPEN: {"websocket.send": _OPEN, "websocket.close"', '    _OPEN: {"websocket.accept": _OPEN, "websocket.send": _OPEN, "websocket.close"'),
    ("nobody is told of the end of an admission", "_ending.py", "    session.release()\n    session.end(", "    session.end("),
    ("an end is told to policies after the terminal event", "_ending.py", "    session.release()\n    session.end(", "    session.loop.soon(session.release)\n    session.end("),
    ("who was denied comes in", "_policing.py", "    await refuse(session, policy, decision, send)\n    return False", "    await refuse(session, policy, decision, send)\n    return True"),
    ("a denial goes out twice", "_policing.py", "    await refuse(session, policy, decision, send)\n    return False", "    await refuse(session, policy, decision, send)\n    await deny(decision, send, can_answer=True)\n    return False"),
    ("a policy that raises lets in", "_admission.py", "        return Deny(status=500, body=b\"\", reason=FAILED)\n    if fault", "        return ALLOW\n    if fault"),
    ("the first message is let through", "_entrance.py", "        self.look_again()\n        return True", "        self.look_again()\n        return False"),
    ("what a stranger sent is delivered", "_entrance.py", "            session.receiving.forget()", "            pass"),
    ("a first message may take for ever", "_entrance.py", "        self._is_late = True", "        self._is_late = False"),
    ("who waits for the first message reads during a close", "_receiving.py", "session.path.reading is None and session.connection.ended is None:", "session.path.reading is None:"),
    ("credit is not charged", "_credit.py", "            self._gate.settle(counted - messages, size - bytes_before)", "            pass"),
    ("one message more passes than there is credit", "_credit.py", "Ticks(granted + 1, counted)", "Ticks(granted + 2, counted)"),
    ("what was dropped is delivered", "_receiving.py", "            await self._session.loop.turn()  # nobody else may", "            return message  # nobody else may"),
    ("what was delayed is lost", "_holding.py", "        if isinstance(decision, Allow):\n            receiving.reader.put(message)", "        if False:\n            receiving.reader.put(message)"),
    ("a delay is no delay", "_holding.py", "self._session.loop.later(delay.delay_s, self._is_due)", "self._session.loop.later(0.0, self._is_due)"),
    ("a message waits behind the end", "_holding.py", "        if self._session.connection.ended is not None:\n            return False", "        if False:\n            return False"),
    ("the close of a policy is not waited for", "_ending.py", "        await session.sending.finish_close(keep_errors=error is None)", "        pass"),
    ("the close of a policy is polled away", "_receiving.py", "        if isinstance(decision, Close):\n            close_soon(self._session, decision)\n        elif", "        if isinstance(decision, Close):\n            pass\n        elif"),
    ("no deadline fires", "_timing.py", "        else:\n            self._start()", "        else:\n            pass"),
    ("a deadline is looked for too seldom", "_watch.py", "            self._ticks_per_look = asked", "            self._ticks_per_look = 1"),
    ("a stuck denial is held back for ever", "_sending.py", "            self._closing.set()\n            self._session.has_ended()", "            pass"),
)  # fmt: skip
"""What is broken, where, the line, and what stands there instead."""


def main() -> int:
    """Break, and tell the steps until it was found, as the rows of a table."""
    parser = argparse.ArgumentParser(prog="model.mutants", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps after which a mutant has survived")
    parser.add_argument("--seed", type=int, default=1, help="number of the first story")
    parser.add_argument("--only", default="", help="words of what is broken; all others are left out")
    asked = parser.parse_args()
    bad = 0
    print("| what is broken | found after |\n|---|---|")
    for what, module, line, instead in MUTANTS:
        if asked.only not in what:
            continue
        found = _try(module, line, instead, asked.seed, asked.steps)
        bad += not found.endswith("steps")
        print(f"| {what} (`{module}`) | {found} |", flush=True)
    return 1 if bad else 0


def _try(module: str, line: str, instead: str, seed: int, steps: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "asgi_ws_guard"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        source = (copy / module).read_text()
        if source.count(line) != 1:
            return f"stale: {source.count(line)} times"
        (copy / module).write_text(source.replace(line, instead))
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PACKAGE.parent / 'tests'}"}
        command = [sys.executable, "-m", "model", "--seed", str(seed), "--steps", str(steps)]
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
    total = re.findall(r"([\d,]+) steps, +[\d,]+ stories, (\d+) found", run.stdout)
    if run.returncode not in (0, 1) or not total:
        return f"crashed: {run.stderr[-200:]}"
    return f"{total[-1][0]} steps" if total[-1][1] != "0" else "survived"


if __name__ == "__main__":
    sys.exit(main())
