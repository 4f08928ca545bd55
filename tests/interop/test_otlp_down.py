"""What an exporter costs that is down: nothing but one line in the log."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from otlp_receiver import GrpcReceiver, HttpReceiver, Receiver

from asgi_ws_guard.plugins.otel.exporters import Providers

from .telemetry import closed_port, record

FLUSH_S = 0.5
SLACK_S = 1.0  # for a busy machine: the bound is about what would be 10 s or for ever
EXIT_S = 5.0


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """List who logged what, without what HTTP clients say for themselves when asked to."""
    return [(one.name, one.levelno) for one in caplog.records if one.name != "urllib3.connectionpool"]


def test_a_closed_port_costs_one_warning(
    otlp_name: str, build: Callable[..., Providers], caplog: pytest.LogCaptureFixture
) -> None:
    """Flushes end within their bound, nothing is raised, and one warning is all that is heard, with no address."""
    caplog.set_level(logging.DEBUG)
    port = closed_port()
    providers = build([otlp_name], endpoint=f"http://127.0.0.1:{port}", export_interval_s=0.05)
    for _ in range(3):
        record(providers, 5)
        began = time.monotonic()
        assert providers.flush(FLUSH_S) is False
        assert time.monotonic() - began < FLUSH_S + SLACK_S
    providers.shutdown()
    assert lines(caplog) == [("asgi_ws_guard", logging.WARNING)]
    assert otlp_name in caplog.text
    assert str(port) not in "".join(one.getMessage() for one in caplog.records if one.name == "asgi_ws_guard")


def test_errors_cost_one_warning_and_the_end_is_said(
    otlp_name: str, receiver: Receiver, build: Callable[..., Providers], caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that answers with errors: one warning; one line when it works again, and what comes then arrives."""
    caplog.set_level(logging.DEBUG)
    providers = build([otlp_name], endpoint=receiver.endpoint)
    receiver.fail()
    for _ in range(3):
        record(providers)
        assert providers.flush(10) is False
    assert lines(caplog) == [("asgi_ws_guard", logging.WARNING)]
    said = next(one.getMessage() for one in caplog.records if one.name == "asgi_ws_guard")
    what = "status 500" if otlp_name.endswith("http") else "INTERNAL"
    assert re.fullmatch(rf"telemetry exporter {otlp_name} fails \((spans|metrics): {what}\); .*", said)
    receiver.recover()
    for _ in range(2):
        record(providers)
        assert providers.flush(10) is True
    assert lines(caplog) == [("asgi_ws_guard", logging.WARNING), ("asgi_ws_guard", logging.INFO)]
    assert len(receiver.spans("one")) == 2


def test_a_receiver_that_hangs_costs_one_warning(
    otlp_name: str, receiver: Receiver, build: Callable[..., Providers], caplog: pytest.LogCaptureFixture
) -> None:
    """Flush and shutdown end within their bounds; a span is made at once meanwhile."""
    caplog.set_level(logging.DEBUG)
    providers = build([otlp_name], endpoint=receiver.endpoint)
    receiver.hang()
    for _ in range(3):
        record(providers)
        began = time.monotonic()
        assert providers.flush(FLUSH_S) is False
        assert time.monotonic() - began < FLUSH_S + SLACK_S
    began = time.monotonic()
    providers.shutdown()
    assert time.monotonic() - began < EXIT_S
    assert lines(caplog) == [("asgi_ws_guard", logging.WARNING)]


def test_what_hung_and_recovers_goes_on(otlp_name: str, receiver: Receiver, build: Callable[..., Providers]) -> None:
    """A flush that could not wait any longer loses nothing: what was under way arrives."""
    providers = build([otlp_name], endpoint=receiver.endpoint)
    receiver.hang()
    record(providers)
    assert providers.flush(FLUSH_S) is False
    receiver.recover()
    receiver.wait_for(1, name="one")
    assert providers.flush(10) is True


def test_memory_is_bounded(
    receiver: Receiver,
    otlp_name: str,
    build: Callable[..., Providers],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the receiver hangs no more spans are kept than the queue and one batch; no one is told of each dropped."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    caplog.set_level(logging.DEBUG)
    providers = build([otlp_name], endpoint=receiver.endpoint)
    receiver.hang()
    began = time.monotonic()
    record(providers, 3000)
    assert time.monotonic() - began < 5
    gc.collect()
    everything = gc.get_objects()  # not asked for their class: a lazy object of Django's would look for its settings
    kept = sum(one.name == "one" for one in everything if issubclass(type(one), ReadableSpan))
    assert 16 <= kept <= 64 + 2 * 16
    assert [one for one in lines(caplog) if one[0] != "asgi_ws_guard"] == []


def test_one_exporter_that_is_down_holds_up_no_other(build: Callable[..., Providers]) -> None:
    """In one flush the healthy receiver gets everything while the other hangs."""
    with HttpReceiver() as dead, GrpcReceiver() as well:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        dead.hang()
        providers = build(["otlp_proto_grpc", OTLPSpanExporter(f"{dead.endpoint}/v1/traces")], endpoint=well.endpoint)
        record(providers)
        assert providers.flush(FLUSH_S) is False
        assert len(well.spans("one")) == 1
        assert len(well.metrics("ones")) == 1
        dead.recover()
        assert len(dead.wait_for(1)) == 1


# --- the end of the process ----------------------------------------------------------------------

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("urllib3").setLevel(logging.INFO)
from asgi_ws_guard.plugins.otel.exporters import build_providers
providers = build_providers([sys.argv[1]], endpoint=sys.argv[2])
for _ in range(int(sys.argv[3])):
    providers.tracer_provider.get_tracer("test").start_span("one").end()
providers.meter_provider.get_meter("test").create_counter("ones").add(1)
"""


FORKS = """
import os
child = os.fork()
providers.tracer_provider.get_tracer("test").start_span("of the parent" if child else "of the child").end()
if child:
    os.waitpid(child, 0)
"""


def run(name: str, endpoint: str, spans: int, program: str = PROGRAM) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a process that makes telemetry and ends. Gives its seconds, with those of starting it, and its outcome."""
    began = time.monotonic()
    command = [sys.executable, "-c", program, name, endpoint, str(spans)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return time.monotonic() - began, done


def test_everything_is_sent_before_the_process_ends(otlp_name: str, receiver: Receiver) -> None:
    """Neither a flush nor a shutdown is called, and more than one batch waits: all of it arrives, in silence."""
    _, done = run(otlp_name, receiver.endpoint, 1500)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert len(receiver.spans("one")) == 1500
    assert receiver.metrics("ones")[-1].points[0].value == 1


@pytest.mark.parametrize("how", ["closed", "hangs", "fails"])
def test_a_process_ends_soon_when_the_exporter_is_down(otlp_name: str, receiver: Receiver, how: str) -> None:
    """Within seconds, with one warning and no traceback."""
    endpoint = receiver.endpoint
    if how == "closed":
        endpoint = f"http://127.0.0.1:{closed_port()}"
    else:
        (receiver.hang if how == "hangs" else receiver.fail)()
    took_s, done = run(otlp_name, endpoint, 1500)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"asgi_ws_guard WARNING telemetry exporter {otlp_name} fails (")
    assert took_s < EXIT_S + 2


def test_a_forked_worker_sends_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers made before a server forks its workers: both processes send, each at its end."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    with HttpReceiver() as receiver:
        _, done = run("otlp_proto_http", receiver.endpoint, 0, PROGRAM + FORKS)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(one.name for one in receiver.spans()) == ["of the child", "of the parent"]
