"""The health application: its verdict, its routes, its token, and what it never shows."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_ws_guard import ConfigurationError, Event, Handshake, LateSend, Opened, WebSocketGuardMiddleware
from asgi_ws_guard._types import ASGIApp, Message, Receive, Scope, Send
from asgi_ws_guard.hub import Hub
from asgi_ws_guard.plugins.health import Reason, Thresholds, Verdict, health_app, judge
from asgi_ws_guard.plugins.registry import Registry
from asgi_ws_guard.testing import ScriptedServer, run

TOKEN = "let-me-in"
ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


@dataclass
class Answer:
    """What came back to one request."""

    status: int
    headers: dict[bytes, bytes]
    raw: bytes

    @property
    def body(self) -> Any:
        """The document."""
        return json.loads(self.raw)


async def ask(app: ASGIApp, path: object = "/health", query: object = b"", **changes: object) -> Answer:
    """Make one request on no server at all."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nobody needs the body of a GET")

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "query_string": query, "root_path": ""}
    scope |= {"headers": [], "client": ("10.9.8.7", 1)} | changes
    await app(scope, receive, send)
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    assert not body.get("more_body")
    return Answer(start["status"], dict(start["headers"]), body["body"])


def bearer(token: str = TOKEN, scheme: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"Authorization", f"{scheme} {token}".encode())]


def health(**options: Any) -> ASGIApp:
    return health_app(Registry(), **options)


# --- the verdict ---------------------------------------------------------------------------------


@dataclass
class Recently:
    """What happened lately, as a test says."""

    ends_by_status: dict[str, int] = field(default_factory=dict)
    attempted: int = 0
    success_rate: float | None = None
    observer_failures: int = 0


@dataclass
class Told:
    """A registry's numbers, as a test says."""

    open: int = 0
    zombies: int = 0
    recent: Recently = field(default_factory=Recently)

    def as_dict(self) -> dict[str, object]:
        """Nothing."""
        return {"connections": {}}


def sends(rate: float, attempted: int = 100) -> Told:
    return Told(recent=Recently(attempted=attempted, success_rate=rate))


def ends(**by_status: int) -> Told:
    return Told(recent=Recently(ends_by_status=by_status))


ALL = Thresholds(
    failing_send_success=0.5,
    degraded_zombies=2,
    failing_zombies=5,
    degraded_observer_failures=3,
    failing_observer_failures=6,
    degraded_connections=100,
    failing_connections=200,
)
VERDICTS: list[tuple[Told, str, list[tuple[str, str, float, float]]]] = [
    (Told(), "ok", []),
    (sends(0.995), "ok", []),
    (sends(0.9949), "degraded", [("send_success", "degraded", 0.9949, 0.995)]),
    (sends(0.0, attempted=99), "ok", []),
    (sends(0.5), "degraded", [("send_success", "degraded", 0.5, 0.995)]),
    (sends(0.49), "failing", [("send_success", "failing", 0.49, 0.5)]),
    (ends(normal_closure=18, app_error=2), "ok", []),
    (ends(normal_closure=17, app_error=3), "degraded", [("abnormal_ends", "degraded", 0.15, 0.1)]),
    (ends(going_away=18, app_error=3), "degraded", [("abnormal_ends", "degraded", 0.142857, 0.1)]),
    (ends(going_away=17, protocol_error=3), "degraded", [("abnormal_ends", "degraded", 0.15, 0.1)]),
    (ends(app_close=17, slow_consumer=3), "degraded", [("abnormal_ends", "degraded", 0.15, 0.1)]),
    (ends(shutdown=17, timeout=3), "ok", []),
    (ends(shutdown=17, slow_consumer=3), "degraded", [("abnormal_ends", "degraded", 0.15, 0.1)]),
    (ends(going_away=10, transport_error=10), "degraded", [("abnormal_ends", "degraded", 0.5, 0.1)]),
    (ends(going_away=9, transport_error=11), "failing", [("abnormal_ends", "failing", 0.55, 0.5)]),
    (ends(app_error=19), "ok", []),
    (
        ends(app_error=20, denied=900, unauthorized=90, rate_limited=9),
        "failing",
        [("abnormal_ends", "failing", 1, 0.5)],
    ),
    (ends(app_error=19, denied=900), "ok", []),
    (ends(denied=900), "ok", []),
    (Told(zombies=2), "ok", []),
    (Told(zombies=3), "degraded", [("zombies", "degraded", 3, 2)]),
    (Told(zombies=6), "failing", [("zombies", "failing", 6, 5)]),
    (Told(recent=Recently(observer_failures=3)), "ok", []),
    (Told(recent=Recently(observer_failures=4)), "degraded", [("observer_failures", "degraded", 4, 3)]),
    (Told(recent=Recently(observer_failures=7)), "failing", [("observer_failures", "failing", 7, 6)]),
    (Told(open=100), "ok", []),
    (Told(open=101), "degraded", [("connections", "degraded", 101, 100)]),
    (Told(open=201), "failing", [("connections", "failing", 201, 200)]),
    (
        Told(open=201, zombies=3),
        "failing",
        [("zombies", "degraded", 3, 2), ("connections", "failing", 201, 200)],
    ),
]


@pytest.mark.parametrize(("numbers", "status", "reasons"), VERDICTS)
def test_a_verdict(numbers: Told, status: str, reasons: list[tuple[str, str, float, float]]) -> None:
    """At a threshold all is well, beyond it the reason is named; without enough sends or ends a share says nothing."""
    found = judge(numbers, ALL)
    assert (found.status, [dataclasses.astuple(one) for one in found.reasons]) == (status, reasons)


def test_a_threshold_of_none_is_off() -> None:
    """Nothing at all makes a process degraded then."""
    names = [one.name for one in dataclasses.fields(Thresholds) if not one.name.startswith("min_")]
    nothing: dict[str, Any] = dict.fromkeys(names)
    off = Thresholds(**nothing)
    worst = Told(10**9, 10**9, Recently({"app_error": 10**9}, 10**9, 0.0, 10**9))
    assert judge(worst, off) == Verdict("ok", ())


def test_the_default_verdict() -> None:
    """Out of the box: a broken observer and lost sends degrade, half of all ends abnormal fail."""
    default = Thresholds()
    assert judge(sends(0.1), default).status == "degraded"
    assert judge(Told(recent=Recently(observer_failures=1)), default) == Verdict(
        "degraded", (Reason("observer_failures", "degraded", 1, 0),)
    )
    assert judge(ends(app_error=11, going_away=9), default).status == "failing"
    assert [judge(Told(zombies=number), default).status for number in (10, 11, 1000, 1001)] == [
        *("ok", "degraded", "degraded", "failing")
    ]
    assert judge(Told(open=10**6), default).status == "ok"


NO_SHARES: list[Any] = [-0.1, 1.1, "0.9", True, float("nan"), float("inf"), b"", []]
NO_COUNTS: list[Any] = [-1, 0.5, 1.0, "1", True, b"1", []]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("degraded_send_success", value) for value in NO_SHARES],
        *[("failing_send_success", value) for value in (-0.1, 1.1, "0.9", True, 0.999)],
        *[("degraded_abnormal_ends", value) for value in (-0.1, 1.1, "0.9", False)],
        *[("failing_abnormal_ends", value) for value in (-0.1, 1.1, 0.05)],
        *[("degraded_zombies", value) for value in NO_COUNTS],
        *[("failing_zombies", value) for value in (-1, 5)],
        *[("degraded_observer_failures", value) for value in (-1, 0.5)],
        *[("failing_observer_failures", value) for value in (-1, 1.0)],
        *[("degraded_connections", value) for value in (-1, "many")],
        *[("failing_connections", value) for value in NO_COUNTS],
        *[("min_sends", value) for value in (-1, None, 1.5, True)],
        *[("min_ends", value) for value in (-1, None, "20")],
    ],
)
def test_a_wrong_threshold(option: str, value: Any) -> None:
    """A `ConfigurationError` names it; failing before degraded is one too."""
    with pytest.raises(ConfigurationError) as caught:
        Thresholds(**{option: value})
    assert caught.value.option == option
    assert caught.value.value is value


def test_right_thresholds() -> None:
    """The edges are allowed, and equal levels."""
    Thresholds(degraded_send_success=0, failing_send_success=0, degraded_abnormal_ends=1, failing_abnormal_ends=1)
    Thresholds(degraded_zombies=0, failing_zombies=0, min_sends=0, min_ends=0)
    assert judge(ends(), Thresholds(min_ends=0)).status == "ok"
    assert judge(Told(), Thresholds(min_sends=0)).status == "ok"


# --- the application -----------------------------------------------------------------------------


class Kept(Registry):
    """A registry whose numbers a test says."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self.told = told

    def summary(self) -> Any:
        """What the test said."""
        return self.told


@pytest.mark.parametrize(("zombies", "status", "code"), [(0, "ok", 200), (11, "degraded", 200), (1001, "failing", 503)])
def test_the_status_line_is_for_load_balancers(zombies: int, status: str, code: int) -> None:
    """Only failing is answered with 503; the reasons are machine words and numbers."""

    async def main() -> None:
        answer = await ask(health_app(Kept(Told(zombies=zombies))))
        assert (answer.status, answer.body["status"]) == (code, status)
        limit = 10 if status == "degraded" else 1000
        reason = {"reason": "zombies", "level": status, "value": zombies, "limit": limit}
        assert answer.body["reasons"] == ([] if status == "ok" else [reason])

    run(main)


def test_thresholds_are_used() -> None:
    """Those that are given, not the default ones."""

    async def main() -> None:
        app = health_app(Kept(Told(zombies=1)), thresholds=Thresholds(degraded_zombies=0, failing_zombies=0))
        assert (await ask(app)).status == 503

    run(main)


def test_a_hub_that_does_not_reach_the_others_is_a_reason() -> None:
    """One that was not started, or whose backend is away: degraded unless it is told otherwise."""

    async def main() -> None:
        hub = Hub()
        app = health(hubs=[Hub(), hub, hub])
        answer = await ask(app)
        assert (answer.status, answer.body["status"]) == (200, "degraded")
        assert answer.body["reasons"] == [{"reason": "hubs_away", "level": "degraded", "value": 3, "limit": 0}]
        async with hub:
            assert (await ask(app)).body["reasons"][0]["value"] == 1
            assert (await ask(health(hubs=[hub]))).body["status"] == "ok"
        failing = health(hubs=[hub], thresholds=Thresholds(failing_hubs_away=0))
        assert (await ask(failing)).status == 503

    run(main)


@pytest.mark.parametrize("hubs", [None, Hub, [object()], Hub()])
def test_wrong_hubs(hubs: Any) -> None:
    """They are refused when the application is built."""
    with pytest.raises(ConfigurationError, match="hubs="):
        health(hubs=hubs)


def test_every_answer_is_complete() -> None:
    """Type, length, and that no cache keeps it; the answer is the same with HEAD, without its body."""

    async def main() -> None:
        app = health(token=TOKEN)
        for path, headers, status in [
            ("/health", [], 200),
            ("/stats", [], 200),
            ("/connections", [], 401),
            ("/connections", bearer(), 200),
            ("/nothing", [], 404),
        ]:
            got = await ask(app, path, headers=headers)
            assert got.status == status
            assert got.headers[b"content-type"] == b"application/json"
            assert got.headers[b"cache-control"] == b"no-store"
            assert got.headers[b"x-content-type-options"] == b"nosniff"
            assert got.headers[b"content-length"] == str(len(got.raw)).encode()
            assert len(got.raw) > 10
            head = await ask(app, path, headers=headers, method="HEAD")
            assert (head.status, head.raw) == (status, b"")
            if path != "/stats" and path != "/health":
                assert head.headers == got.headers
            else:
                assert int(head.headers[b"content-length"]) > 10

    run(main)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "", None, 5, b"GET"])
def test_other_methods(method: Any) -> None:
    """405 says what is allowed; what does not exist stays 404."""

    async def main() -> None:
        app = health()
        for path in ("/health", "/stats"):
            answer = await ask(app, path, method=method)
            assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")
        assert (await ask(app, "/connections", method=method)).status == 404
        assert (await ask(app, "/x", method=method)).status == 404
        assert (await ask(health(token=TOKEN), "/connections", method=method)).status == 405

    run(main)


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/health", 200),
        ("", "/", 200),
        ("", "", 200),
        ("", "/stats", 200),
        ("", "/stats/", 200),
        ("/ws", "/ws/health", 200),
        ("/ws", "/ws", 200),
        ("/ws", "/ws/", 200),
        ("/ws/", "/ws/stats", 200),
        ("/ws", "/stats", 200),  # a mount that takes the prefix off
        ("/health", "/health/stats", 200),
        ("/health", "/health/health", 200),
        ("/a/b", "/a/b/stats", 200),
        ("/ws", "/wsstats", 404),
        ("/stat", "/stats", 200),
        ("/ws", "/other/health", 404),
        ("/ws", "/ws/ws/health", 404),
        ("", "/health/x", 404),
        ("", "/HEALTH", 404),
        ("", "//health", 404),
        ("", "/connections", 404),
        ("", "/connections/", 404),
        (None, "/health", 200),
        (5, "/health", 200),
    ],
)
def test_the_path_below_the_mount_point(root_path: Any, path: str, status: int) -> None:
    """With or without the mount point in ``path``, as old and new servers and frameworks have it."""

    async def main() -> None:
        assert (await ask(health(), path, root_path=root_path)).status == status

    run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer(), 200),
        (bearer(scheme="bearer"), 200),
        ([(b"authorization", b"  BEARER   let-me-in ")], 200),
        ([], 401),
        (bearer("let-me-i"), 401),
        (bearer("let-me-inn"), 401),
        (bearer("LET-ME-IN"), 401),
        (bearer(""), 401),
        (bearer(scheme="Basic"), 401),
        ([(b"authorization", b"let-me-in")], 401),
        ([(b"authorization", b"Bearer")], 401),
        ([(b"authorization", b"Bearer \xff\xfe\x00")], 401),
        ([*bearer(), *bearer()], 401),
        ([*bearer("x"), *bearer()], 401),
        ([(b"cookie", b"let-me-in"), (b"x-authorization", b"Bearer let-me-in")], 401),
        ([(b"authorization", "Bearer let-me-in")], 401),
        ([(b"authorization",), "x", 5, None, (b"a", b"b", b"c")], 401),
        ([[b"authorization", b"Bearer let-me-in"]], 200),
        ((*bearer(),), 200),
        (None, 401),
        (5, 401),
        ("headers", 401),
        ({b"authorization": b"Bearer let-me-in"}, 401),
    ],
)
def test_the_token(headers: Any, status: int) -> None:
    """One Authorization header with the token, or 401; no header makes it raise."""

    async def main() -> None:
        answer = await ask(health(token=TOKEN), "/connections", headers=headers)
        assert answer.status == status
        assert answer.headers.get(b"www-authenticate") == (b"Bearer" if status == 401 else None)
        assert (answer.body == {"error": "unauthorized"}) is (status == 401)

    run(main)


@pytest.mark.parametrize("query", [b"token=let-me-in", b"access_token=let-me-in", b"authorization=Bearer+let-me-in"])
def test_the_token_is_not_taken_from_the_query(query: bytes) -> None:
    """Queries end in access logs."""

    async def main() -> None:
        assert (await ask(health(token=TOKEN), "/connections", query)).status == 401

    run(main)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library's function, which does not tell how much of it was right."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)

    async def main() -> None:
        await ask(health(token=TOKEN), "/connections", headers=bearer("guess"))
        assert compared == [(b"guess", b"let-me-in")]

    run(main)


@pytest.mark.parametrize("token", ["", " ", "two words", "new\nline", "umläut", "\x00", b"bytes", 5, True, []])
def test_a_wrong_token(token: Any) -> None:
    """It is refused when the application is built, and not shown."""
    builds: dict[str, Callable[[], object]] = {
        "token": lambda: health(token=token),
        "health_token": lambda: guard(health_path="/h", health_token=token),
    }
    for option, build in builds.items():
        with pytest.raises(ConfigurationError) as caught:
            build()
        assert caught.value.option == option
        assert caught.value.value == "..."
        assert repr(token) not in str(caught.value)


@pytest.mark.parametrize("registry", [None, 5, "registry", Registry, object()])
def test_a_wrong_registry(registry: Any) -> None:
    """It is refused when the application is built."""
    with pytest.raises(ConfigurationError, match="registry="):
        health_app(registry)


@pytest.mark.parametrize("thresholds", [None, {}, 5, Thresholds])
def test_wrong_thresholds(thresholds: Any) -> None:
    """They are refused when the application is built."""
    with pytest.raises(ConfigurationError, match="thresholds="):
        health(thresholds=thresholds)


def filled(number: int) -> Registry:
    """A registry with live connections."""
    registry = Registry()
    for one in range(number):
        registry(Opened(f"{one:016x}", 0.0, Handshake("/ws", b"", (), None, None, "ws", "1.1", (), True)))
    return registry


def test_pages() -> None:
    """Whoever follows ``next`` sees every connection once; the last page has none."""
    registry = filled(7)

    async def main() -> None:
        app, seen, sizes = health_app(registry, token=TOKEN), list[int](), list[int]()
        after: int | None = 0
        while after is not None:
            page: Any = (await ask(app, "/connections", f"limit=3&after={after}".encode(), headers=bearer())).body
            seen += [one["number"] for one in page["connections"]]
            sizes.append(len(page["connections"]))
            after = page["next"]
        assert (seen, sizes) == ([1, 2, 3, 4, 5, 6, 7], [3, 3, 1])
        whole = (await ask(app, "/connections", headers=bearer())).body
        assert (len(whole["connections"]), whole["next"]) == (7, None)
        exact = (await ask(app, "/connections", b"limit=7", headers=bearer())).body
        assert (len(exact["connections"]), exact["next"]) == (7, None)
        assert (await ask(app, "/connections", b"after=7", headers=bearer())).body == {"connections": [], "next": None}
        assert whole["connections"][0] == registry.connections()[0].as_dict() | {
            "opened_s": whole["connections"][0]["opened_s"]
        }

    run(main)


def test_a_page_has_a_hundred_connections_unless_asked() -> None:
    """And a thousand at most."""
    registry = filled(0)
    server = ScriptedServer()

    async def main() -> None:
        gate = asyncio.Event()

        async def waits(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()

        guard = WebSocketGuardMiddleware(waits, observers=[registry])
        serving = [server.call(guard) for _ in range(1001)]
        await asyncio.sleep(0)
        app = health_app(registry, token=TOKEN)
        first = (await ask(app, "/connections", headers=bearer())).body
        assert (len(first["connections"]), first["next"]) == (100, 100)
        most = (await ask(app, "/connections", b"limit=1000", headers=bearer())).body
        assert (len(most["connections"]), most["next"]) == (1000, 1000)
        gate.set()
        await asyncio.gather(*serving)

    run(main)


LIMIT = {"error": "bad_query", "limit": "a whole number, 1 to 1000, once"}
AFTER = {"error": "bad_query", "after": "a whole number, 0 or more, once"}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        *[(b"limit=" + value, LIMIT) for value in (b"0", b"1001", b"-1", b"", b"x", b"1.0", b"1e2", b"+1", b"%201")],
        *[(b"limit=" + value, LIMIT) for value in (b"\xb2", b"%C2%B2", b"%D9%A1", b"%00", b"%", b"9" * 5000, b"1_0")],
        (b"limit=1&limit=1", LIMIT),
        *[(b"after=" + value, AFTER) for value in (b"-1", b"", b"x", b"1" * 19, b"None", b"%FF")],
        (b"after=1&limit=5&after=2", AFTER),
    ],
)
def test_a_wrong_query(query: bytes, body: object) -> None:
    """400 says what is allowed, and does not repeat what came."""

    async def main() -> None:
        answer = await ask(health(token=TOKEN), "/connections", query, headers=bearer())
        assert (answer.status, answer.body) == (400, body)
        assert (await ask(health(token=TOKEN), "/connections", query)).status == 401
        assert (await ask(health(token=TOKEN), "/stats", query)).status == 200

    run(main)


@pytest.mark.parametrize(
    "query", [b"", b"&&&", b"=", b"x=y", b"%%%", b"\xff\x00", b"limit=1&after=0", "limit=x", None, 5]
)
def test_a_query_that_does_no_harm(query: Any) -> None:
    """Unknown and malformed parts are passed over."""

    async def main() -> None:
        assert (await ask(health(token=TOKEN), "/connections", query, headers=bearer())).status == 200

    run(main)


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"type": "http"}, 405),
        ({"type": "http", "method": "GET"}, 200),
        ({"type": "http", "method": "GET", "path": None}, 200),
        ({"type": "http", "method": "GET", "path": b"/health"}, 200),
        ({"type": "http", "method": "GET", "path": "/connections"}, 401),
        ({"type": "http", "method": "GET", "path": "/\udcff\x00"}, 404),
        ({"type": "http", "method": "GET", "path": "/stats", "root_path": ["/x"]}, 200),
        ({"type": "new"}, None),
        ({"type": None}, None),
        ({}, None),
    ],
)
def test_a_malformed_scope(scope: dict[str, Any], status: int | None) -> None:
    """It is answered as far as it can be, and never raises."""

    async def main() -> None:
        server = ScriptedServer()
        await health(token=TOKEN)(scope, server.receive, server.send)
        assert [message.get("status") for message in server.sent[:1]] == ([] if status is None else [status])

    run(main)


def test_a_websocket_to_it_is_denied() -> None:
    """After ``websocket.connect`` was read, and not when the client has left."""

    async def main() -> None:
        server = ScriptedServer()
        server.connect()
        await server.call(health())
        assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
        left = ScriptedServer()
        left.disconnect()
        await left.call(health())
        assert left.sent == []

    run(main)


def test_its_lifespan_is_complete() -> None:
    """Served bare, a server can start and stop it; what it does not know it passes over."""

    async def main() -> None:
        server = ScriptedServer()
        server.scope = {"type": "lifespan"}
        server.deliver({"type": "lifespan.startup"}, {"type": "new"})
        serving = server.call(health())
        await asyncio.sleep(1)
        assert server.types() == ["lifespan.startup.complete"]
        assert not serving.done()
        server.deliver({"type": "lifespan.shutdown"})
        await serving
        assert server.types() == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    run(main)


def starlette(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/sub", routes=[Mount("/ws-health", app=app)])])


def fastapi(app: ASGIApp) -> ASGIApp:
    inner, outer = FastAPI(), FastAPI()
    inner.mount("/ws-health", app)
    outer.mount("/sub", inner)
    return outer


@pytest.mark.parametrize("mounted", [starlette, fastapi])
@pytest.mark.parametrize("root_path", ["", "/proxy"])
def test_mounted_in_a_framework(mounted: Callable[[ASGIApp], ASGIApp], root_path: str) -> None:
    """Two mounts deep, behind a proxy's prefix or not."""

    async def main() -> None:
        app = mounted(health())
        at = f"{root_path}/sub/ws-health"
        assert (await ask(app, f"{at}/stats", root_path=root_path)).body["close_codes"] == {}
        assert (await ask(app, f"{at}/", root_path=root_path)).body["status"] == "ok"
        assert (await ask(app, f"{at}/x", root_path=root_path)).body == {"error": "not_found"}
        server = ScriptedServer(f"{at}/health", root_path=root_path)
        server.connect()
        await server.call(app)
        assert server.types() == ["websocket.close"]

    run(main)


# --- health_path ---------------------------------------------------------------------------------


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with 418."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def guard(app: Any = application, **options: Any) -> WebSocketGuardMiddleware:
    return WebSocketGuardMiddleware(app, **options)


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/ws-health", 200),
        ("", "/ws-health/", 200),
        ("", "/ws-health/health", 200),
        ("", "/ws-health/stats", 200),
        ("", "/ws-health/connections", 401),
        ("", "/ws-health/x", 404),
        ("", "/ws-healthy", 418),
        ("", "/ws-health.txt", 418),
        ("", "/x/ws-health", 418),
        ("", "/", 418),
        ("", "", 418),
        ("", None, 418),
        ("", b"/ws-health", 418),
        ("/api", "/api/ws-health/stats", 200),
        ("/api", "/ws-health/stats", 200),
        ("/ws-health", "/ws-health/x", 418),
        ("/ws-health", "/ws-health/ws-health", 200),
        ("/x", "/x/ws-health/x/stats", 404),
    ],
)
def test_health_path(root_path: str, path: Any, status: int) -> None:
    """At the path and below it the guard answers, after the root path; everywhere else the application does."""

    async def main() -> None:
        app = guard(health_path="/ws-health", health_token=TOKEN)
        assert (await ask(app, path, root_path=root_path)).status == status

    run(main)


def test_health_path_is_off_by_default() -> None:
    """Without it the application answers, and no registry listens."""

    async def main() -> None:
        app = guard(observers=())
        assert (await ask(app, "/ws-health")).status == 418
        assert app._dispatch.observers == ()
        assert (await ask(guard(health_path="/ws-health"), "/ws-health/connections")).status == 404

    run(main)


@pytest.mark.parametrize(
    "scope",
    [
        *({"type": kind, "path": "/ws-health"} for kind in ("lifespan", "new", None)),
        {},
        {"type": "http", "path": "/other"},
    ],
)
def test_the_rest_is_untouched(scope: dict[str, Any]) -> None:
    """G9 with a health path: the very scope, receive and send of the server."""

    async def main() -> None:
        server, calls = ScriptedServer(), []
        receive, send = server.receive, server.send

        async def app(got_scope: Scope, got_receive: Receive, got_send: Send) -> None:
            assert got_scope is scope
            assert got_receive is receive
            assert got_send is send
            calls.append(dict(got_scope))

        before = dict(scope)
        await guard(app, health_path="/ws-health", observers=())(scope, receive, send)
        assert calls == [before] == [scope]

    run(main)


def test_a_websocket_at_the_health_path_is_the_applications() -> None:
    """Only http requests are answered there; the connection is guarded and counted like any other."""

    async def main() -> None:
        server, done = ScriptedServer("/ws-health"), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await done.wait()

        guarded = guard(app, health_path="/ws-health", observers=())
        serving = server.call(guarded)
        await asyncio.sleep(1)
        assert (await ask(guarded, "/ws-health")).body["connections"]["open"] == 1
        done.set()
        await serving
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert (await ask(guarded, "/ws-health")).body["connections"]["closed"] == 1

    run(main)


def test_a_guard_inside_a_guard() -> None:
    """The outer guard has the connection; the inner one answers requests at its path, and no websocket."""

    async def main() -> None:
        server = ScriptedServer("/ws-health")
        guarded = guard(guard(hello, health_path="/ws-health", observers=()), observers=())
        await server.call(guarded)
        assert server.types() == ["websocket.accept", "websocket.close"]
        assert (await ask(guarded, "/ws-health")).body["connections"]["opened"] == 0

    run(main)


def test_the_other_observers_hear_too() -> None:
    """The registry comes to those that are asked for."""

    async def main() -> None:
        heard: list[Event] = []
        server = ScriptedServer()
        guarded = guard(hello, health_path="/h", observers=[heard.append])
        await server.call(guarded)
        assert heard
        assert (await ask(guarded, "/h/stats")).body["connections"]["closed"] == 1

    run(main)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and be done."""
    await send(ACCEPT)


@pytest.mark.parametrize("path", ["", "/", "ws-health", "/ws-health/", "/h?x", "/h#x", 5, True, b"/h", ["/h"]])
def test_a_wrong_health_path(path: Any) -> None:
    """It is refused when the guard is built."""
    with pytest.raises(ConfigurationError) as caught:
        guard(health_path=path)
    assert (caught.value.option, caught.value.value) == ("health_path", path)


def test_a_token_without_a_path() -> None:
    """It would protect nothing: refused, and not shown."""
    with pytest.raises(ConfigurationError) as caught:
        guard(health_token=TOKEN)
    assert caught.value.option == "health_token"
    assert TOKEN not in str(caught.value)


# --- secrets -------------------------------------------------------------------------------------

SECRET = "s3cret"
PATHS = ("/health", "/stats", "/connections", "/x", "/health/" + SECRET)


@dataclass
class Everything:
    """All answers of a guard with a health path and of a mounted application."""

    registry: Registry = field(default_factory=Registry)

    async def collect(self, ask_as: list[tuple[bytes, bytes]]) -> str:
        """Get every document, by every method, with malformed queries too."""
        app = health_app(self.registry, token=TOKEN)
        raw = []
        for path in PATHS:
            for query in (b"", b"limit=" + SECRET.encode(), b"token=" + SECRET.encode()):
                for method in ("GET", "HEAD", "POST"):
                    answer = await ask(app, path, query, headers=ask_as, method=method)
                    raw.append(answer.raw.decode() + repr(answer.headers))
        return "\n".join(raw)


def test_no_answer_holds_a_secret() -> None:
    """
    What is secret in query, headers, close reason, payloads and errors is in no answer.

    Neither while connections are in each state nor when they are over. The path and the address are shown to those who
    have the token, and to nobody else.
    """

    async def main() -> None:
        everything, gate, broken = Everything(), asyncio.Event(), asyncio.Event()
        seen: list[Event] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["path_template"] = "/rooms/{room}"
            if scope["path"].endswith("-connecting"):
                await gate.wait()
                raise ValueError(f"{SECRET}-error")
            await send({"type": "websocket.accept", "subprotocol": f"{SECRET}-subprotocol", "headers": []})
            await receive()
            await receive()
            await send({"type": "websocket.send", "text": f"{SECRET}-sent"})
            if scope["path"].endswith("-closing"):
                await send({"type": "websocket.close", "code": 4001, "reason": f"{SECRET}-reason"})
                await send({"type": "websocket.send", "text": f"{SECRET}-late"})
            await gate.wait()

        def fails(event: Event) -> None:
            broken.set()
            raise ValueError(f"{SECRET}-observer")

        guarded = WebSocketGuardMiddleware(app, observers=[everything.registry, seen.append, fails])
        serving = []
        for kind in ("connecting", "closing", "disconnecting", "open"):
            server = ScriptedServer(f"/rooms/{SECRET}-path-{kind}")
            server.scope["query_string"] = f"token={SECRET}-query".encode()
            server.scope["headers"] = [
                (b"cookie", f"session={SECRET}-cookie".encode()),
                (b"authorization", f"Bearer {SECRET}-bearer".encode()),
                (b"user-agent", f"{SECRET}-agent".encode()),
            ]
            server.scope["subprotocols"] = [f"{SECRET}-subprotocol"]
            server.scope["client"] = ("203.0.113.77", 40404)
            server.connect()
            server.text(f"{SECRET}-received")
            if kind == "disconnecting":
                server.disconnect(4002, f"{SECRET}-reason")
            serving.append(server.call(guarded))
        await asyncio.sleep(2)
        for when in ("live", "over"):
            public = await everything.collect(bearer(f"{SECRET}-guess"))
            private = await everything.collect(bearer())
            assert "{room}" in public
            assert SECRET not in public
            assert "203.0.113.77" not in public
            assert not [one for one in seen if one.connection_id in public]
            if when == "live":
                records = (
                    await ask(health_app(everything.registry, token=TOKEN), "/connections", headers=bearer())
                ).body
                assert [one["state"] for one in records["connections"]] == ["connecting", "ended", "ended", "open"]
                assert f"/rooms/{SECRET}-path-open" in private
                assert "203.0.113.77" in private
                assert [one for one in seen if isinstance(one, LateSend)]
                private = private.replace(f"{SECRET}-path-", "")
            assert SECRET not in private
            gate.set()
            await asyncio.gather(*serving, return_exceptions=True)
        assert broken.is_set()

    run(main)


def test_quart_below_the_guard() -> None:
    """Quart mounts nothing: the guard answers in front of it, and Quart answers the rest."""

    async def main() -> None:
        quart = Quart("health")
        answers: list[int] = []

        async def asked(path: str) -> Answer:
            return await ask(guard(quart.asgi_app, health_path="/ws-health"), path)

        answers.append((await asked("/ws-health")).status)
        assert answers == [200]
        requested: Awaitable[object] = quart.test_client().get("/ws-health")
        assert (await quart_status(requested)) == 404

    asyncio.run(main())


async def quart_status(requested: Awaitable[Any]) -> int:
    return int((await requested).status_code)
