"""The instrumentation: put into the servers and taken out again, once, and whatever their version."""

from __future__ import annotations

import importlib
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from asgi_ws_guard import WebSocketGuardMiddleware
from asgi_ws_guard._hooks import HOOKS
from asgi_ws_guard._types import Receive, Scope, Send
from asgi_ws_guard.instrumentor import WebSocketGuardInstrumentor

HERE = __name__
ASGIWrapper: Any = importlib.import_module("hypercorn.app_wrappers").ASGIWrapper  # its types are its own
wrap_app: Any = importlib.import_module("hypercorn.utils").wrap_app


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""


def create_app() -> Any:
    """Make one."""
    return app


def asgi2(scope: Scope) -> Any:
    """Be an application of ASGI 2."""


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Be an application of the other kind."""
    return []


@pytest.fixture
def instrumentor() -> Iterator[WebSocketGuardInstrumentor]:
    """Instrument, and take everything back."""
    instrumentor = WebSocketGuardInstrumentor()
    instrumentor.instrument()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def loaded(application: Any, **options: Any) -> Any:
    """Let uvicorn load an application; return what it will call."""
    config = uvicorn.Config(application, log_config=None, **options)
    config.load()
    return config.loaded_app


def test_the_entry_point_is_there() -> None:
    """`opentelemetry-instrument` finds the class, by the name that disables it."""
    (entry_point,) = entry_points(group="opentelemetry_instrumentor", name="asgi_ws_guard")
    assert entry_point.load() is WebSocketGuardInstrumentor
    assert WebSocketGuardInstrumentor().instrumentation_dependencies() == ()


def test_uvicorn_guards_what_it_has_loaded(instrumentor: WebSocketGuardInstrumentor) -> None:
    """The guard stands inside of what uvicorn adds itself, so that it sees the client behind a proxy."""
    outer = loaded(f"{HERE}:app")
    assert type(outer) is ProxyHeadersMiddleware
    guard: Any = outer.app
    assert type(guard) is WebSocketGuardMiddleware
    assert guard.app is app
    assert type(loaded(app, proxy_headers=False)) is WebSocketGuardMiddleware


def test_uvicorn_logs_the_servers_messages(instrumentor: WebSocketGuardInstrumentor) -> None:
    """With log level trace, its logger stays between the server and the guard."""
    logger = logging.getLogger("uvicorn.error")
    try:
        outer = loaded(app, log_level="trace")
    finally:
        logger.setLevel(logging.NOTSET)
        logging.getLogger("uvicorn.access").setLevel(logging.NOTSET)
        logging.getLogger("uvicorn.asgi").setLevel(logging.NOTSET)
    assert type(outer.app) is MessageLoggerMiddleware
    assert type(outer.app.app) is WebSocketGuardMiddleware


def test_uvicorn_guards_factories_and_older_interfaces(instrumentor: WebSocketGuardInstrumentor) -> None:
    """The factory has been called, ASGI 2 and WSGI have been adapted."""
    assert loaded(f"{HERE}:create_app", factory=True).app.app is app
    assert type(loaded(asgi2).app) is WebSocketGuardMiddleware
    with pytest.warns(DeprecationWarning, match="native WSGI"):
        shimmed = loaded(wsgi, interface="wsgi").app
    assert type(shimmed) is WebSocketGuardMiddleware
    assert type(shimmed.app).__module__ == "uvicorn.middleware.wsgi"


def test_hypercorn_guards_asgi(instrumentor: WebSocketGuardInstrumentor) -> None:
    """Under each of its workers, and for programs that call `serve`; WSGI is left alone."""
    wrapped = wrap_app(app, 100, "asgi")
    assert type(wrapped.app) is WebSocketGuardMiddleware
    assert wrapped.app.app is app
    assert wrap_app(wsgi, 100, "wsgi").app is wsgi


@pytest.mark.parametrize("module", ["granian.server.mp", "granian.server.mt", "granian.server.embed"])
def test_granian_guards_asgi(
    module: str, instrumentor: WebSocketGuardInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of its kinds of workers."""
    seen: list[Any] = []

    async def spy(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    class Protocol:
        receive = send = None

    wrapped = importlib.import_module(module)._asgi_call_wrap(spy, {}, {}, None)
    assert wrapped.__wrapped__.app is spy
    assert type(wrapped.__wrapped__) is WebSocketGuardMiddleware
    wrapped({"type": "lifespan"}, Protocol()).close()


def test_it_can_be_taken_out(instrumentor: WebSocketGuardInstrumentor) -> None:
    """Every server has its own function back, and nothing is guarded any more; then again."""
    for module in {hook.module for hook in HOOKS} - {"daphne.server"}:  # its import installs a reactor
        importlib.import_module(module)
    instrumentor.uninstrument()
    own = originals()
    assert loaded(app, proxy_headers=False) is app
    assert ASGIWrapper(app).app is app
    instrumentor.instrument()
    assert all(now is not before for now, before in zip(originals(), own, strict=True))
    instrumentor.uninstrument()
    assert originals() == own
    assert all(now is before for now, before in zip(originals(), own, strict=True))


def originals() -> list[Any]:
    """List what stands in the servers now."""
    found = []
    for hook in HOOKS:
        if hook.server == "daphne":
            continue
        thing: Any = sys.modules[hook.module]
        *path, name = hook.name.split(".")
        for step in path:
            thing = getattr(thing, step)
        found.append(vars(thing)[name])
    return found


def test_it_is_put_in_once(instrumentor: WebSocketGuardInstrumentor) -> None:
    """However often it was put in and out, one guard is around an application."""
    for _ in range(3):
        instrumentor.uninstrument()
        instrumentor.instrument()
    assert loaded(app).app.app is app
    instrumentor.uninstrument()
    assert loaded(app).app is app


def test_a_guarded_application_is_left_alone(instrumentor: WebSocketGuardInstrumentor) -> None:
    """An application with a guard of its own, however deep, is not wrapped."""
    own = WebSocketGuardMiddleware(app)
    assert loaded(own).app is own
    assert loaded(ProxyHeadersMiddleware(own), proxy_headers=False).app is own


def test_wrong_variables_end_the_process(
    instrumentor: WebSocketGuardInstrumentor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when it is instrumented, which would be lost in OpenTelemetry's log, but when an application is loaded."""
    monkeypatch.setenv("ASGI_WS_GUARD_LINGER_S", "soon")
    with pytest.raises(SystemExit):
        loaded(app)
    assert capsys.readouterr().err.startswith("asgi-ws-guard: ASGI_WS_GUARD_LINGER_S='soon' is not allowed")


def test_an_unknown_version_is_one_warning(
    instrumentor: WebSocketGuardInstrumentor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server whose function has moved can be imported all the same."""
    (hook,) = [hook for hook in HOOKS if hook.server == "daphne"]
    instrumentor._hooks._apply(hook, ModuleType(hook.module))
    (message,) = caplog.messages
    assert message.startswith("daphne 4.")
    assert message.endswith("is not known: its applications are not guarded from outside")


def test_a_server_that_is_imported_later_is_hooked_while_it_is_in(instrumentor: WebSocketGuardInstrumentor) -> None:
    """And left alone once the hooks were taken out, although Python still calls them at its import."""
    (hook,) = [hook for hook in HOOKS if hook.server == "daphne"]

    class Server:
        def __init__(self, application: Any) -> None:
            self.application = application

    module = ModuleType(hook.module)
    module.__dict__["Server"] = Server
    instrumentor._hooks._apply(hook, module)
    assert type(Server(app).application) is WebSocketGuardMiddleware
    instrumentor.uninstrument()
    instrumentor._hooks._apply(hook, module)
    assert Server(app).application is app


def test_a_worker_is_hooked_by_what_it_is_given(instrumentor: WebSocketGuardInstrumentor) -> None:
    """The configuration that uvicorn pickles for a new interpreter puts the hooks in there."""
    config = uvicorn.Config(app, log_config=None)
    given = pickle.dumps(config)
    assert b"asgi_ws_guard.instrumentor" in given
    instrumentor.uninstrument()
    pickle.loads(given)
    assert instrumentor.is_instrumented_by_opentelemetry
    pickle.loads(given)
    instrumentor.uninstrument()
    pickle.loads(pickle.dumps(config))  # made by a process that is not instrumented any more
    assert not instrumentor.is_instrumented_by_opentelemetry


def test_hypercorns_configuration_carries_it_too(
    instrumentor: WebSocketGuardInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker of hypercorn is a new interpreter."""
    from hypercorn.config import Config
    from hypercorn.run import run

    config = Config()
    config.worker_class = "none"
    with pytest.raises(ValueError, match="No worker of class none"):
        run(config)
    assert b"asgi_ws_guard.instrumentor" in pickle.dumps(config)


def test_nothing_of_it_is_needed() -> None:
    """Without opentelemetry-instrumentation and wrapt everything else works; no server is imported by it."""
    code = (
        "import sys; sys.modules.update({'opentelemetry.instrumentation': None, 'wrapt': None});"
        "import os; os.environ['ASGI_WS_GUARD_APP'] = 'tests.unit.test_hooks:app';"
        "sys.modules['tests.unit.test_hooks'] = sys.modules['__main__'];\n"
        "async def app(scope, receive, send): ...\n"
        "import asgi_ws_guard.wrap, asgi_ws_guard.__main__;"
        "print(asgi_ws_guard.wrap.app.app is app, asgi_ws_guard.wrap.create_app() is asgi_ws_guard.wrap.app)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_instrumenting_imports_no_server() -> None:
    """The hooks wait: importing daphne installs a reactor."""
    code = (
        "import sys; from asgi_ws_guard.instrumentor import WebSocketGuardInstrumentor as I; I().instrument();"
        "print({name.partition('.')[0] for name in sys.modules} & {'uvicorn', 'hypercorn', 'daphne', 'granian'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
