"""What all connections of one identity or address share: their buckets, in this process and in a storage."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine
from typing import Any

import limits.aio.storage.memory
import limits.storage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage
from newcomers import Clock, handshake

from asgi_ws_guard import ALLOW, Allow, Close, ConfigurationError, Delay, Drop, WebSocketGuardMiddleware
from asgi_ws_guard._plugin import Gate
from asgi_ws_guard.plugins.limits import Limits, Rate
from asgi_ws_guard.plugins.limits._lease import ASK_S, MAX_RETRY_S
from asgi_ws_guard.testing import ScriptedServer, run


def join(limits: Limits, connection_id: str, subject: str | None = "ada", address: str = "192.0.2.1") -> Gate:
    """Let a connection in, and give its gate."""
    answer = limits.admit(handshake(connection_id, subject=subject, client=(address, 1)))
    assert isinstance(answer, Allow)
    assert answer.gate is not None
    return answer.gate


def later(answer: Allow | Drop | Delay | Close) -> Allow | Drop | Delay | Close:
    """Ask again about a message that was delayed."""
    assert isinstance(answer, Delay)
    assert answer.then is not None
    return answer.then()


def word(answer: Allow | Drop | Delay | Close) -> tuple[float, str]:
    """Give the seconds and the word of a delay."""
    assert isinstance(answer, Delay)
    return answer.delay_s, answer.reason


# --- in this process -----------------------------------------------------------------------------


def test_connections_of_one_identity_share_a_bucket() -> None:
    """Whichever sends; another identity has its own, and who has none is not counted."""
    limits = Limits(messages_per_identity=Rate(2, answer="drop"), clock=Clock())
    first, second, other = join(limits, "a"), join(limits, "b"), join(limits, "c", "bob")
    assert [first(1), second(1), first(1), second(1)] == [ALLOW, ALLOW, *[Drop("too_many_messages_per_identity")] * 2]
    assert other(1) == ALLOW
    assert limits.admit(handshake("d")) == ALLOW


def test_connections_of_one_address_share_a_bucket_of_bytes() -> None:
    """Bytes count as messages do; what could never pass closes, whatever is left, and costs nothing."""
    limits = Limits(bytes_received_per_address=Rate(100, answer="close", close_code=1013), clock=Clock())
    first, second, other = join(limits, "a"), join(limits, "b", "bob"), join(limits, "c", address="192.0.2.2")
    assert first(101) == Close(1009, "message_too_big")
    assert [first(60), second(40), second(0)] == [ALLOW] * 3
    assert first(1) == Close(1013, "too_many_bytes_received_per_address")
    assert other(100) == ALLOW


def test_a_message_passes_everywhere_or_costs_nothing() -> None:
    """The bucket that has room is not charged for what another refuses."""
    limits = Limits(
        messages_per_identity=Rate(1, answer="drop"), messages_per_address=Rate(3, answer="drop"), clock=Clock()
    )
    ada, bob, eve = join(limits, "a"), join(limits, "b", "bob"), join(limits, "c", "eve")
    assert [ada(1), *(ada(1) for _ in range(5))] == [ALLOW, *[Drop("too_many_messages_per_identity")] * 5]
    assert [bob(1), eve(1), join(limits, "d", "joe")(1)] == [ALLOW, ALLOW, Drop("too_many_messages_per_address")]


def test_the_own_rate_comes_first() -> None:
    """What a connection's own rate drops costs the others nothing; what it delays is counted when it passes."""
    clock = Clock(0.0)
    limits = Limits(messages=Rate(1), messages_per_identity=Rate(3, answer="drop"), clock=clock)
    first, second = join(limits, "a"), join(limits, "b")
    assert first(1) == ALLOW
    held = first(1)
    assert word(held) == (1.0, "too_many_messages")
    assert [second(1), join(limits, "c")(1), join(limits, "d")(1)] == [ALLOW, ALLOW, Drop(LOST)]
    clock.now_s = 1.0
    assert later(held) == ALLOW
    dropping = Limits(messages=Rate(1, answer="drop"), messages_per_identity=Rate(3, answer="drop"), clock=clock)
    first, second = join(dropping, "a"), join(dropping, "b")
    assert [type(first(1)) for _ in range(9)] == [Allow] + [Drop] * 8
    assert [second(1), join(dropping, "c")(1), join(dropping, "d")(1)] == [ALLOW, ALLOW, Drop(LOST)]


LOST = "too_many_messages_per_identity"


def test_the_strictest_answer_counts() -> None:
    """Of two full buckets: close, drop, delay; and drops of one connection add up to a close."""
    clock = Clock()
    limits = Limits(
        messages_per_identity=Rate(1), messages_per_address=Rate(1, answer="drop", max_drops=3), clock=clock
    )
    gate = join(limits, "a")
    assert [type(gate(1)) for _ in range(5)] == [Allow, Drop, Drop, Close, Close]
    clock.now_s += 0.5
    assert gate(1) == Close(1008, "too_many_messages_per_address")


@pytest.mark.parametrize("answer", ["drop", "close"])
def test_what_is_refused_waits_nowhere(answer: Any) -> None:
    """A message that one bucket refuses keeps no place among those that wait for another."""
    clock = Clock()
    limits = Limits(messages_per_identity=Rate(1), messages_per_address=Rate(1, answer=answer), clock=clock)
    first, second = join(limits, "a"), join(limits, "b")
    assert [type(first(1)) for _ in range(2)] == [Allow, Drop if answer == "drop" else Close]
    clock.now_s += 1
    assert second(1) == ALLOW


def test_each_bucket_fills_by_itself() -> None:
    """One that has filled up meanwhile refuses nothing while another is asked first and does."""
    clock = Clock(0.0)
    limits = Limits(messages_per_address=Rate(1, per_s=10), messages_per_identity=Rate(1, answer="drop"), clock=clock)
    gate = join(limits, "a")
    assert gate(1) == ALLOW
    clock.now_s = 2.0
    assert word(gate(1)) == (8.0, "too_many_messages_per_address")


def test_delays_are_a_queue() -> None:
    """Each that waits has its moment, nobody who comes later takes it, and one that leaves makes room."""
    clock = Clock(0.0)
    limits = Limits(messages_per_identity=Rate(1), clock=clock)
    gates = [join(limits, name) for name in "abcd"]
    assert gates[0](1) == ALLOW
    held = [gate(1) for gate in gates]
    assert [word(one) for one in held] == [(seconds, LOST) for seconds in (1.0, 2.0, 3.0, 4.0)]
    clock.now_s = 1.0
    assert word(join(limits, "e")(1))[0] == 4.0
    assert word(later(held[1]))[0] == 1.0
    assert later(held[0]) == ALLOW
    limits.release("b")
    clock.now_s = 2.0
    assert later(held[1]) == Drop("has_left")
    assert later(held[2]) == ALLOW
    assert word(later(held[3]))[0] == 1.0


def test_to_connect_anew_refills_nothing() -> None:
    """The bucket stays after the last connection until it would be full; then it is forgotten."""
    clock = Clock()
    limits = Limits(messages_per_identity=Rate(4, answer="drop"), clock=clock)
    gate = join(limits, "a")
    assert [type(gate(1)) for _ in range(5)] == [Allow] * 4 + [Drop]
    limits.release("a")
    assert limits.keys == 1
    assert type(join(limits, "b")(1)) is Drop
    limits.release("b")
    limits.release("b")
    clock.now_s += 1.0
    join(limits, "c", "bob")
    join(limits, "c", "bob")
    assert limits.keys == 1
    limits.release("c")
    clock.now_s += 1.0
    limits.release("c")
    join(limits, "d", "eve")
    assert limits.keys == 1


def test_what_is_kept_is_bounded() -> None:
    """Of keys without a connection there are at most `max_keys`; one with a connection is never forgotten."""
    limits = Limits(messages_per_identity=Rate(1, per_s=600, answer="drop"), max_keys=5, clock=Clock())
    gate = join(limits, "live", "live")
    assert gate(1) == ALLOW
    for number in range(100):
        assert join(limits, str(number), str(number))(1) == ALLOW
        limits.release(str(number))
        assert limits.keys <= 1 + 5
    assert type(join(limits, "again", "live")(1)) is Drop
    assert type(join(limits, "known", "99")(1)) is Drop


STEPS = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 2)), st.integers(0, 4), st.integers(1, 30), st.booleans()),
    max_size=100,
)


class Client:
    """A connection that sends one message after another, as the guard lets it: nothing is read while one waits."""

    def __init__(self, gate: Gate, clock: Callable[[], float], answers: list[tuple[float, int]]) -> None:
        self.gate, self.clock, self.passed = gate, clock, answers
        self.held: tuple[float, Delay, int] | None = None

    def send(self, size: int) -> None:
        """Send one, unless one is waiting."""
        if self.held is None:
            self._took(self.gate(size), size)

    def look(self) -> None:
        """Ask again, when it is time."""
        if self.held is not None and self.held[0] <= self.clock():
            (_, delay, size), self.held = self.held, None
            self._took(later(delay), size)

    def _took(self, answer: Allow | Drop | Delay | Close, size: int) -> None:
        if isinstance(answer, Allow):
            self.passed.append((self.clock(), size))
        elif isinstance(answer, Delay):
            self.held = self.clock() + answer.delay_s, answer, size


@given(number=st.floats(0.5, 20), burst=st.floats(1, 10), volume=st.floats(5, 100), drops=st.booleans(), steps=STEPS)
def test_no_set_of_connections_exceeds_the_rate(
    number: float, burst: float, volume: float, drops: bool, steps: list[tuple[float, int, int, bool]]
) -> None:
    """In any window at most burst + rate * T of both, over all connections, new ones too; all that waits passes."""
    clock, passed = Clock(0.0), list[tuple[float, int]]()
    rates = Rate(number, burst=burst, answer="drop" if drops else None), Rate(volume, burst=30 + volume)
    limits = Limits(messages_per_identity=rates[0], bytes_received_per_identity=rates[1], clock=clock)
    clients = {name: Client(join(limits, str(name)), clock, passed) for name in range(5)}

    def until(end_s: float) -> None:
        while due := [client.held[0] for client in clients.values() if client.held and client.held[0] <= end_s]:
            clock.now_s = max(clock.now_s, min(due))
            for client in clients.values():
                client.look()
        clock.now_s = end_s

    for pause_s, name, size, renews in steps:
        until(clock.now_s + pause_s)
        if renews:
            limits.release(str(name))
            clients[name] = Client(join(limits, str(name)), clock, passed)
        clients[name].send(size)
    until(clock.now_s + 1 + 5 * max(1 / number, 30 / volume) * 2)
    assert not [client for client in clients.values() if client.held]
    for first, (since_s, _) in enumerate(passed):
        for last in range(first, len(passed)):
            seconds = passed[last][0] - since_s
            assert last - first + 1 <= burst + number * seconds + 1e-6
            assert sum(size for _, size in passed[first : last + 1]) <= 30 + volume + volume * seconds + 1e-4


def test_two_connections_through_a_guard() -> None:
    """The second waits for the first one's tokens to come back, and what it sent arrives in order."""

    async def main() -> None:
        got: list[tuple[str, str, float]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append((scope["path"], message["text"], asyncio.get_running_loop().time()))

        policy = Limits(messages_per_address=Rate(2, per_s=10, burst=2), clock=asyncio.get_running_loop().time)
        guard = WebSocketGuardMiddleware(app, policies=[policy])

        async def visit(path: str, *texts: str) -> None:
            server = ScriptedServer(path=path)
            server.connect()
            server.deliver(*({"type": "websocket.receive", "text": text} for text in texts))
            server.deliver({"type": "websocket.disconnect", "code": 1000})
            await server.call(guard)

        await asyncio.gather(visit("/first", "a", "b", "c"), visit("/second", "d", "e"))
        assert [text for path, text, _ in got if path == "/first"] == ["a", "b", "c"]
        assert [text for path, text, _ in got if path == "/second"] == ["d", "e"]
        assert [at_s for _, _, at_s in got] == pytest.approx([0, 0, 5, 10, 15], abs=0.01)
        assert policy.keys == 1

    run(main)


# --- in a storage --------------------------------------------------------------------------------


START_S = 1_200_000.0
"""When the storage's virtual time begins: at the begin of its windows, and not in the first of all."""


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Callable[[], MemoryStorage]:
    """Let the storages of several policies be one, in virtual time; give what makes a new one."""
    now = types.SimpleNamespace(time=lambda: START_S + asyncio.get_running_loop().time())
    monkeypatch.setattr(limits.aio.storage.memory, "time", now)

    def make() -> MemoryStorage:
        made = MemoryStorage()
        monkeypatch.setattr(limits.storage, "storage_from_string", lambda *_, **__: made)
        return made

    return make


def process(**options: Any) -> Limits:
    """Make the policy of one of several processes."""
    return Limits(storage="memory://", clock=asyncio.get_running_loop().time, **options)


async def sent(gate: Gate) -> bool:
    """Send a message as the guard lets it, and tell whether it passed."""
    answer = gate(1)
    while isinstance(answer, Delay):
        await asyncio.sleep(answer.delay_s)
        answer = later(answer)
    return isinstance(answer, Allow)


def ours() -> list[Any]:
    """Give the tasks of leases and of their questions."""
    tasks = ((task, task.get_coro()) for task in asyncio.all_tasks())
    return [task for task, work in tasks if getattr(work, "__qualname__", "").startswith(("Lease.", "Storage."))]


def virtual(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in virtual time, and leave no task of ours."""

    async def checked() -> None:
        await main()
        assert ours() == []

    run(checked)


def test_processes_share_a_rate(storage: Callable[[], MemoryStorage]) -> None:
    """All that the rate allows passes, from whichever process, and not one more; who only waits gets it in time."""

    async def main() -> None:
        storage()
        policies = [process(messages_per_identity=Rate(1, per_s=60, burst=20, answer="drop")) for _ in range(2)]
        gates = [join(policy, "a") for policy in policies]
        await asyncio.sleep(0.1)
        assert [type(gate(1)) for gate in gates] == [Allow, Allow]  # reserved ahead: no wait
        counts = [0] * len(gates)
        for place, gate in enumerate(gates):
            for _ in range(40):
                counts[place] += await sent(gate)
        assert sum(counts) == 18
        for policy in policies:
            await policy.aclose()

    virtual(main)


def test_what_nobody_knows_yet_is_no_reason_to_close(storage: Callable[[], MemoryStorage]) -> None:
    """A burst is delayed until the storage has answered, and closed when that has no room."""

    async def main() -> None:
        storage()
        policy = process(messages_per_identity=Rate(1, per_s=60, burst=20, answer="close"))
        gate = join(policy, "a")
        answer = gate(1)
        assert word(answer) == (ASK_S, "awaits_storage")
        await asyncio.sleep(ASK_S)
        assert later(answer) == ALLOW
        assert [await sent(gate) for _ in range(30)] == [True] * 19 + [False] * 11
        assert gate(1) == Close(1008, LOST)
        await policy.aclose()

    virtual(main)


def test_nobody_waits_while_there_is_room(storage: Callable[[], MemoryStorage]) -> None:
    """The next lease is asked for before the last one is spent."""

    async def main() -> None:
        storage()
        policy = process(messages_per_identity=Rate(1, per_s=60, burst=40))
        gate = join(policy, "a")
        for _ in range(40):
            await asyncio.sleep(0.01)
            assert gate(1) == ALLOW
        await policy.aclose()

    virtual(main)


def test_a_message_may_be_larger_than_a_lease(storage: Callable[[], MemoryStorage]) -> None:
    """It is asked for what lacks; afterwards no more than a lease is kept."""

    async def main() -> None:
        made = storage()
        policy = process(bytes_received_per_identity=Rate(1, per_s=60, burst=100, answer="drop"))
        gate = join(policy, "a")
        answer = gate(60)
        await asyncio.sleep(0.1)
        while isinstance(answer, Delay):
            answer = later(answer)
            await asyncio.sleep(0.1)
        assert answer == ALLOW
        assert [gate(1), gate(7)] == [ALLOW, ALLOW]
        await asyncio.sleep(1)
        assert 68 < sum(made.storage.values()) <= 78
        await policy.aclose()

    virtual(main)


def test_what_is_not_used_expires(storage: Callable[[], MemoryStorage]) -> None:
    """With its window: it counts there no more."""

    async def main() -> None:
        made = storage()
        policy = process(messages_per_identity=Rate(10, per_s=10, burst=10, answer="drop"))
        gate = join(policy, "a")
        await asyncio.sleep(0.1)
        assert sum(made.storage.values()) == 1
        await asyncio.sleep(9.8)
        assert gate(1) == ALLOW
        await asyncio.sleep(10.2)
        assert word(gate(1)) == (ASK_S, "awaits_storage")
        await policy.aclose()

    virtual(main)


def test_no_task_is_left(storage: Callable[[], MemoryStorage]) -> None:
    """Not after an answer, nor after the last connection of a key, nor after `aclose`."""

    async def main() -> None:
        storage()
        policy = process(messages_per_identity=Rate(10), messages_per_address=Rate(10))
        for name in "ab":
            join(policy, name)
        assert len(ours()) == 2
        await asyncio.sleep(0.1)
        assert ours() == []
        policy.release("a")
        policy.release("b")
        join(policy, "c", "bob", "192.0.2.9")
        assert len(ours()) == 2
        policy.release("c")
        await asyncio.sleep(0.1)
        assert ours() == []
        join(policy, "d", "eve", "192.0.2.8")
        assert len(ours()) == 2
        await policy.aclose()
        assert ours() == []

    virtual(main)


class Away(MemoryStorage):
    """A storage that another library's client does not reach, as long as it is said so."""

    is_away = is_slow = False

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count, or fail."""
        if self.is_slow:
            await asyncio.sleep(1)
        if self.is_away:
            raise ConnectionError
        return await super().acquire_sliding_window_entry(key, limit, expiry, amount)


@pytest.mark.parametrize(("away", "expected"), [("fail_open", [Allow] * 5 + [Drop]), ("fail_closed", [Drop] * 6)])
def test_a_storage_that_is_away(monkeypatch: pytest.MonkeyPatch, away: Any, expected: list[type]) -> None:
    """The bucket of this process counts alone, or all are too many; until the storage is back."""
    made = Away()
    monkeypatch.setattr(limits.storage, "storage_from_string", lambda *_, **__: made)
    monkeypatch.setattr("asgi_ws_guard.plugins.limits._storage.RETRY_S", 0.0)

    async def main() -> None:
        made.is_away = True
        policy = process(messages_per_identity=Rate(5, per_s=500, answer="drop"), storage_away=away)
        gate = join(policy, "a")
        await asyncio.sleep(0.1)
        assert [type(gate(1)) for _ in range(6)] == expected
        assert policy.storage_failures == 1
        await asyncio.sleep(MAX_RETRY_S)
        assert type(gate(1)) is Drop  # at once, although it is asked again
        await asyncio.sleep(0.1)
        assert policy.storage_failures == (2 if away == "fail_closed" else 1)
        made.is_away = False
        await asyncio.sleep(MAX_RETRY_S)
        other = join(policy, "b", "bob")
        await asyncio.sleep(0.1)
        assert [await sent(other) for _ in range(6)] == [True] * 5 + [False]
        await sent(gate)
        await asyncio.sleep(0.1)
        assert await sent(gate) is (away == "fail_closed")
        await policy.aclose()

    virtual(main)


def test_nobody_asks_for_those_who_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is open when the last connection of a key ends is given up."""
    made = Away()
    monkeypatch.setattr(limits.storage, "storage_from_string", lambda *_, **__: made)

    async def main() -> None:
        made.is_slow = True
        policy = process(messages_per_identity="5/second", storage_timeout_s=5)
        join(policy, "a")
        await asyncio.sleep(0.1)
        assert len(ours()) == 2
        policy.release("a")
        await asyncio.sleep(0.01)
        assert ours() == []
        await policy.aclose()

    virtual(main)


@given(
    number=st.integers(1, 40),
    steps=st.lists(st.tuples(st.floats(0, 12), st.integers(0, 5), st.integers(1, 8), st.booleans()), max_size=25),
)
@settings(max_examples=60)
def test_processes_never_exceed_what_the_storage_granted(
    number: int, steps: list[tuple[float, int, int, bool]]
) -> None:
    """Any connections of one identity in three processes: since the start no more than the windows' numbers."""
    with pytest.MonkeyPatch.context() as patch:
        make: Callable[[], MemoryStorage] = storage.__wrapped__(patch)  # type: ignore[attr-defined]

        async def main() -> None:
            make()
            rate = Rate(number, per_s=60, answer="drop")
            policies = [process(messages_per_identity=rate) for _ in range(3)]
            gates = {name: join(policies[name % 3], str(name)) for name in range(6)}
            passed = 0
            for pause_s, name, messages, renews in steps:
                await asyncio.sleep(pause_s)
                if renews:
                    policies[name % 3].release(str(name))
                    gates[name] = join(policies[name % 3], str(name))
                passed += sum(await asyncio.gather(*(sent(gates[name]) for _ in range(messages))))
                windows = (START_S + asyncio.get_running_loop().time()) // 60 - START_S // 60 + 1
                assert passed <= number * windows
            for policy in policies:
                await policy.aclose()

        virtual(main)


@pytest.mark.parametrize(
    "options",
    [
        {"messages_per_identity": "fast"},
        {"messages_per_address": Rate(1, answer="deny")},
        {"bytes_received_per_identity": 5},
        {"bytes_received_per_address": 0},
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """They are said when it is built, by name."""
    with pytest.raises(ConfigurationError, match="is not allowed: expected ") as raised:
        Limits(**options)
    assert raised.value.option in options
