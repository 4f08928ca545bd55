"""G9: nothing else is touched: other scopes, a guard inside a guard, and the guard's own construction."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_ws_guard import (
    Allow,
    ConfigurationError,
    ConnectionHandle,
    Deny,
    Drop,
    Handshake,
    WebSocketGuardMiddleware,
    current_connection,
)
from asgi_ws_guard._types import Message, Receive, Scope, Send
from asgi_ws_guard.testing import Recorder, ScriptedServer, run

ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}


@pytest.mark.parametrize("scope", [{"type": "http", "path": "/"}, {"type": "lifespan"}, {"type": "new"}, {}])
def test_other_scopes_get_the_servers_own_objects(scope: dict[str, Any]) -> None:
    """The very scope, receive and send reach the application, nothing is told, and no connection is counted."""

    async def main() -> None:
        server, seen, calls = ScriptedServer(), Recorder(), []
        receive, send = server.receive, server.send

        async def app(got_scope: Scope, got_receive: Receive, got_send: Send) -> None:
            assert got_scope is scope
            assert got_receive is receive
            assert got_send is send
            with pytest.raises(LookupError):
                current_connection()
            calls.append(guard.connections)
            raise ConnectionResetError("as it is")

        guard = WebSocketGuardMiddleware(app, observers=(seen,))
        before = dict(scope)
        with pytest.raises(ConnectionResetError, match="as it is"):
            await guard(scope, receive, send)
        assert calls == [0]
        assert scope == before
        assert seen.events == []

    run(main)


def test_a_guard_inside_a_guard_does_nothing() -> None:
    """Two guards without policies: the inner passes the same callables on, and each fact is told once."""

    async def main() -> None:
        server, outer_seen, inner_seen = ScriptedServer(), Recorder(), Recorder()
        received: list[tuple[Scope, Receive, Send]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            received.append((scope, receive, send))
            await receive()
            await send(ACCEPT)
            await send(TEXT)
            assert scope["asgi_ws_guard.connection"] is current_connection()

        inner = WebSocketGuardMiddleware(app, observers=(inner_seen,))

        async def between(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)
            assert received == [(scope, receive, send)]

        outer = WebSocketGuardMiddleware(between, observers=(outer_seen,))
        server.connect()
        await server.call(outer)
        assert outer_seen.names() == ["Opened", "Accepted", "Ended", "Closed"]
        assert inner_seen.events == []
        assert server.types() == ["websocket.accept", "websocket.send", "websocket.close"]
        assert (outer.totals().attempted, inner.totals().attempted) == (2, 0)

    run(main)


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail, for a policy denied."""
    raise AssertionError("a stranger came in")


class Shut:
    """A policy that lets nobody in."""

    def admit(self, handshake: Handshake) -> Deny:
        """Deny."""
        return Deny(401, reason="shut")


class Mute:
    """A policy that loses whatever the client says."""

    def message(self, connection_id: str, direction: str, size: int) -> Allow | Drop:
        """Drop what is received."""
        return Drop("mute") if direction == "received" else Allow()


def test_a_guard_inside_a_guard_asks_its_policies() -> None:
    """One around a mounted application, say: whoever installs another one outside does not open it to everybody."""

    async def main() -> None:
        server, seen = ScriptedServer(), Recorder()
        inner = WebSocketGuardMiddleware(unreachable, policies=[Shut()], observers=[seen])
        server.connect()
        await server.call(WebSocketGuardMiddleware(inner, observers=()))
        assert [message.get("status") for message in server.sent] == [401, None]
        assert seen.names() == ["Opened", "PolicyApplied", "Ended", "Rejected"]

    run(main)


def test_a_guard_inside_a_guard_asks_about_messages() -> None:
    """A policy that is asked about messages alone counts too, and both guards keep their promises."""

    async def main() -> None:
        server, outer_seen, inner_seen = ScriptedServer(), Recorder(), Recorder()
        heard: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["asgi_ws_guard.connection"] is current_connection()
            await send(ACCEPT)
            while (message := await receive())["type"] != "websocket.disconnect":
                heard.append(message["type"])
            while True:
                await send(TEXT)
                await asyncio.sleep(1)

        inner = WebSocketGuardMiddleware(app, policies=[Mute()], observers=[inner_seen])
        outer = WebSocketGuardMiddleware(inner, observers=[outer_seen])
        server.connect()
        server.text("hello")
        server.disconnect(1001)
        await server.call(outer)
        assert heard == ["websocket.connect"]
        assert (inner.totals().dropped, outer.totals().received) == ({"client_disconnected": 11}, 1)
        assert outer_seen.names() == ["Opened", "Accepted", "Ended", "Closed"]
        assert inner_seen.names()[-2:] == ["HandlerStopped", "Closed"]

    run(main)


def test_a_guard_around_a_guarded_server_task_keeps_the_outer_connection() -> None:
    """A connection served inside the handler of another one: each sees its own, and the outer one's comes back."""

    async def main() -> None:
        inner_server, outer_server = ScriptedServer(), ScriptedServer()
        handles: list[ConnectionHandle] = []

        async def inner_app(scope: Scope, receive: Receive, send: Send) -> None:
            handles.append(current_connection())

        inner = WebSocketGuardMiddleware(inner_app, observers=())

        async def outer_app(scope: Scope, receive: Receive, send: Send) -> None:
            mine = current_connection()
            await inner(inner_server.scope, inner_server.receive, inner_server.send)
            assert handles[0] is not mine
            assert current_connection() is mine

        await WebSocketGuardMiddleware(outer_app, observers=())(
            outer_server.scope, outer_server.receive, outer_server.send
        )
        with pytest.raises(LookupError):
            current_connection()

    run(main)


def test_an_application_of_asgi_2_is_wrapped() -> None:
    """A double callable is made a single one; a class whose instances are awaited is one already."""

    async def main() -> None:
        calls: list[str] = []

        def double(scope: Scope) -> Any:
            async def instance(receive: Receive, send: Send) -> None:
                calls.append("double")

            return instance

        class Endpoint:
            def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
                self.send = send

            def __await__(self) -> Any:
                calls.append("awaited")
                return asyncio.sleep(0).__await__()

        for app in (double, Endpoint):
            server = ScriptedServer()
            await server.call(WebSocketGuardMiddleware(app, observers=()))
        assert calls == ["double", "awaited"]

    run(main)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("late_sends", "ignore"),
        ("late_sends", None),
        ("linger_s", -1),
        ("linger_s", None),
        ("linger_s", "10"),
        ("linger_s", True),
        ("linger_s", float("nan")),
        ("linger_s", float("inf")),
        ("cancel_after_s", -0.1),
        ("cancel_after_s", "x"),
        ("watch", 1),
        ("watch", None),
        ("send_timeout_s", 0),
        ("send_timeout_s", -1),
        ("send_timeout_s", float("inf")),
        ("close_on_return", 1005),
        ("close_on_return", 1006),
        ("close_on_return", 999),
        ("close_on_return", 5000),
        ("close_on_return", 2000),
        ("close_on_return", True),
        ("close_on_error", "1011"),
        ("close_on_error", 1015),
        ("observers", 5),
        ("observers", "text"),
        ("observers", [5]),
        ("observers", [Recorder]),
        ("policies", 5),
        ("policies", "text"),
        ("policies", [5]),
        ("policies", [Recorder()]),
        ("adapters", "some"),
        ("adapters", 5),
        ("adapters", [5]),
    ],
)
def test_a_wrong_option_is_refused_when_the_guard_is_built(option: str, value: object) -> None:
    """A `ConfigurationError` names the option, the value and what is allowed, and is a `ValueError`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError) as caught:
        WebSocketGuardMiddleware(app, **options)
    assert caught.value.option == option
    assert option in str(caught.value)
    assert repr(caught.value.value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("app", [None, 5, "package:app"])
def test_what_cannot_be_called_is_no_application(app: Any) -> None:
    """The application is checked like an option."""
    with pytest.raises(ConfigurationError, match="app="):
        WebSocketGuardMiddleware(app)


def test_policies_that_are_classes_are_refused() -> None:
    """Who forgot to make an instance is told so at once."""

    class Policy:
        def message(self, connection_id: str, direction: str, size: int) -> None: ...

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigurationError, match="policies"):
        WebSocketGuardMiddleware(app, policies=(Policy,))  # type: ignore[arg-type]


def test_adapters_are_called_once_when_the_guard_is_built() -> None:
    """Adapters act on frameworks, not on connections."""
    calls: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    WebSocketGuardMiddleware(app, observers=(), adapters=[lambda: calls.append(1), lambda: calls.append(2)])
    assert calls == [1, 2]
    WebSocketGuardMiddleware(app, observers=(), adapters=())
    assert calls == [1, 2]


def test_the_default_observer_is_structlog() -> None:
    """Built without observers the guard works and logs; nothing of a payload is needed for it."""

    async def main() -> None:
        server = ScriptedServer()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()

        server.connect()
        guard = WebSocketGuardMiddleware(app)
        await server.call(guard)
        assert guard.observer_failures == {}

    run(main)
