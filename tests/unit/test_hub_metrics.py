"""The metrics of hubs: read from their integers, summed over hubs, without a name of a room or a user."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest
from hubs import peer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from asgi_ws_guard import DropReason
from asgi_ws_guard.hub import Hub, Target, attach
from asgi_ws_guard.testing import run

PREFIX = "asgi_ws_guard.hub."


class Meter:
    """A provider, and what it collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """Give all points. Dict: name without the prefix -> labels -> point."""
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = [one for each in data.resource_metrics for scope in each.scope_metrics for one in scope.metrics]
        assert all(metric.name.startswith(PREFIX) for metric in metrics)
        return {
            metric.name.removeprefix(PREFIX): {
                tuple(sorted((point.attributes or {}).items())): point for point in metric.data.data_points
            }
            for metric in metrics
        }

    def value(self, name: str, **labels: Any) -> Any:
        """Give the value of one point."""
        return self.points()[name][tuple(sorted(labels.items()))].value


def test_a_hub_is_measured() -> None:
    """What is there now, what was dropped and who was ended; all reasons from the beginning, at 0."""

    async def main() -> None:
        meter = Meter()
        hub = Hub(meter_provider=meter.provider, outbox_messages=1, overflow="close", send_timeout_s=None)
        one, two = await peer(hub, "secret room", user="secret user"), await peer(hub, "b")
        one.server.stall_sends()
        await hub.broadcast("xx")
        await hub.send_to_room("secret room", "xxx")
        assert [meter.value(name) for name in ("members", "rooms", "users")] == [2, 2, 1]
        assert [meter.value(name) for name in ("outbox.messages", "outbox.size", "messages")] == [1, 3, 1]
        await hub.send_to_user("secret user", "xxx")
        assert [meter.value(name) for name in ("members", "rooms", "users", "outbox.size")] == [1, 1, 0, 0]
        assert meter.value("drops", reason="outbox_full") == meter.value("drops", reason="guard_closed") == 1
        assert meter.value("evictions", reason="outbox_full") == 1
        points = meter.points()
        reasons = {*(reason.value for reason in DropReason), "send_failed"}
        assert set(points["drops"]) == {(("reason", reason),) for reason in reasons}
        durations = points["broadcast.duration"]
        assert {labels[0][1]: point.count for labels, point in durations.items()} == {"all": 1, "room": 1, "user": 1}
        assert "secret" not in repr(points)
        one.server.resume_sends()
        await two.leave()

    run(main)


def test_what_became_of_a_resumption_is_counted() -> None:
    """By its result, all of them from the beginning."""

    async def main() -> None:
        meter = Meter()
        hub = Hub(meter_provider=meter.provider, position_secret="of sixteen bytes or more")
        hub.stream_rooms()
        room = Target("room", "a")
        one, two, three = await peer(), await peer(), await peer()
        for each, place in ((one, None), (two, "forged"), (three, None)):
            await hub.resume(each.handle, room, place)
        await three.leave()
        await hub.resume(three.handle, room)
        results = {labels[0][1]: point.value for labels, point in meter.points()["resumes"].items()}
        assert results == {"started": 2, "resumed": 0, "gone": 1, "unavailable": 0, "ended": 1}

    run(main)


def test_an_eviction_by_the_deadline_has_its_reason() -> None:
    """Apart from one by a full outbox."""
    meter = Meter()

    async def main() -> None:
        hub = Hub(meter_provider=meter.provider, send_timeout_s=1.0)
        one = await peer(hub, "a")
        one.server.stall_sends()
        await hub.broadcast("x")
        await asyncio.sleep(1.1)
        assert meter.value("evictions", reason="send_timeout") == 1
        assert meter.value("evictions", reason="outbox_full") == 0

    run(main)


def test_what_a_hub_has_counted_stays_counted() -> None:
    """Hubs are summed up; one that is gone takes only back what is there now."""
    meter = Meter()

    async def main() -> None:
        hubs = [Hub(meter_provider=meter.provider) for _ in range(2)]
        for hub in hubs:
            one = await peer(hub, "a")
            await hub.send_to_room("a", "x")
            assert one.got == ["x"]
            await one.leave()
        assert meter.value("messages") == 2

    run(main)
    gc.collect()
    assert (meter.value("messages"), meter.value("members")) == (2, 0)


def test_dead_members_are_shown_by_collection() -> None:
    """As long as somebody holds the attachment."""
    meter = Meter()

    class Manager:
        def __init__(self) -> None:
            self.sockets: list[Any] = []

    async def main() -> None:
        manager = Manager()
        attachment = attach(manager, repair=False, meter_provider=meter.provider)
        one = await peer()
        manager.sockets.append(one.scope)
        labels = {f"{PREFIX}collection": "Manager.sockets"}
        assert meter.value("members.dead", **labels) == 0
        await one.leave()
        assert meter.value("members.dead", **labels) == 1
        del attachment

    run(main)
    gc.collect()
    assert "members.dead" not in meter.points()


@pytest.mark.parametrize("library", ["orjson", "msgspec"])
def test_other_encoders_give_text(library: str) -> None:
    """Browsers get text, whoever made it."""

    async def main() -> None:
        hub = Hub(encoder=library)
        one = await peer(hub, "a")
        await hub.send_to_room("a", {"é": [1, None]})
        assert one.got == ['{"é":[1,null]}']
        with pytest.raises(TypeError):
            await hub.send_to_room("a", object())

    run(main)


def test_an_encoder_that_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, when the hub is made."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(ValueError, match=r"pip install 'asgi-ws-guard\[orjson\]'"):
        Hub(encoder="orjson")
