"""Receivers of OTLP for the tests: over HTTP and over gRPC, on a free port of the loopback, decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from otlp_decoded import Metric, Span, metrics_of, spans_of

_Self = TypeVar("_Self", bound="Receiver")


class Receiver:
    """
    What both receivers have in common; used as a context manager.

    Attributes:
        endpoint: What to give to an exporter.
        headers: Of every request so far, also of those that failed. Each: dict of lower-case name -> value.
    """

    endpoint: str

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self._metrics: list[Metric] = []
        self._requests = 0
        self._is_failing = False
        self._goes_on = threading.Event()
        self._goes_on.set()

    def __enter__(self: _Self) -> _Self:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._goes_on.set()
        self._close()

    def spans(self, name: str | None = None) -> list[Span]:
        """List the spans received so far, with a name if one is given."""
        with self._changed:
            return [one for one in self._spans if name in (None, one.name)]

    def metrics(self, name: str | None = None) -> list[Metric]:
        """List the collections received so far, of one metric if a name is given; the last one is the newest."""
        with self._changed:
            return [one for one in self._metrics if name in (None, one.name)]

    def wait_for(self, count: int, timeout_s: float = 10.0, *, name: str | None = None) -> list[Span]:
        """Wait until there are so many spans, and list them; fail when they do not come."""
        self.wait_until(lambda: len(self.spans(name)) >= count, timeout_s)
        return self.spans(name)

    def wait_for_metric(self, name: str, timeout_s: float = 10.0) -> Metric:
        """Wait for a metric and give its newest collection; fail when it does not come."""
        self.wait_until(lambda: bool(self.metrics(name)), timeout_s)
        return self.metrics(name)[-1]

    def wait_for_requests(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until so many requests have come, whatever was answered."""
        self.wait_until(lambda: self._requests >= count, timeout_s)

    def wait_until(self, is_true: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until something is true of what has come; asks again at every request."""
        with self._changed:
            assert self._changed.wait_for(is_true, timeout_s), (
                f"not within {timeout_s} s: {self._requests} requests, spans {[one.name for one in self._spans]}, "
                f"metrics {sorted({one.name for one in self._metrics})}"
            )

    def fail(self) -> None:
        """Answer with an error that is no invitation to try again: 500, INTERNAL."""
        self._is_failing = True

    def hang(self) -> None:
        """Take requests and do not answer."""
        self._goes_on.clear()

    def recover(self) -> None:
        """Work again."""
        self._is_failing = False
        self._goes_on.set()

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _receive(self, request: Any, headers: dict[str, str]) -> bool:
        with self._changed:
            self._requests += 1
            self.headers.append(headers)
            self._changed.notify_all()
        self._goes_on.wait(60)
        with self._changed:
            if not self._is_failing:
                if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
                    self._spans += spans_of(request)
                else:
                    self._metrics += metrics_of(request)
            self._changed.notify_all()
            return not self._is_failing


class HttpReceiver(Receiver):
    """
    OTLP over HTTP with protobuf, plain or gzip.

    Attributes:
        paths: Of every request so far.

    Args:
        port: Port to listen on, 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.paths: list[str] = []
        self._port = port

    def _open(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                request: Any = _REQUESTS[self.path.rsplit("/", 1)[-1]]()
                request.ParseFromString(body)
                receiver.paths.append(self.path)
                is_good = receiver._receive(request, {name.lower(): value for name, value in self.headers.items()})
                try:
                    self.send_response(200 if is_good else 500)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    self.close_connection = True  # who asked has gone

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class GrpcReceiver(Receiver):
    """
    OTLP over gRPC.

    Args:
        port: Port to listen on, 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self._port = port

    def _open(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
        add_traces(_Servicer(self, trace_service_pb2.ExportTraceServiceResponse), self._server)
        add_metrics(_Servicer(self, metrics_service_pb2.ExportMetricsServiceResponse), self._server)
        port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server.start()

    def _close(self) -> None:
        self._server.stop(None).wait(10)


class _Servicer:
    def __init__(self, receiver: GrpcReceiver, response: Callable[[], Any]) -> None:
        self._receiver = receiver
        self._response = response

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        if not self._receiver._receive(request, headers):
            context.abort(grpc.StatusCode.INTERNAL, "the receiver was told to fail")
        return self._response()


_REQUESTS: dict[str, Callable[[], Any]] = {
    "traces": trace_service_pb2.ExportTraceServiceRequest,
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
}
