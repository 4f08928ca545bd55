"""
Metrics: what the ledger of a guard has counted, read when somebody collects, and two histograms once per connection.

Nothing of OpenTelemetry runs per message. Every observable instrument reads one pass over the ledger, so that the
numbers of one collection belong together. Instruments are one set per meter provider however many guards there are:
the SDK takes a name once and leaves out the callbacks of a second registration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from ..._events import Abandoned, Accepted, Closed, Event, HandlerOutlived, Rejected, Terminal
from ..._plugin import Statistics, Tally
from . import attributes as names
from . import describe
from .readings import Labels, Values, active, connections, decided, io, messages, sends, zombies

CONNECTION_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 900, 3600, 14400, 86400)
"""From a page that was left at once to a connection that lives for a day."""
HANDSHAKE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Those of ``http.server.request.duration`` in the HTTP conventions."""
MAX_LABEL_SETS = 1000
"""Label sets of one histogram; clients choose close codes. What comes later is one set marked `names.OVERFLOW`."""
STALE_S = 1.0
"""Seconds after which one pass over the ledger serves no further instrument."""


class MetricsObserver:
    """Hears the events that end a handshake or a connection, and gives the instruments what the guard has counted."""

    def __init__(self, meter_provider: metrics.MeterProvider | None = None, *, sizes: bool = True) -> None:
        """
        Measure with a provider.

        Args:
            meter_provider: None: the global one, also when it is set later.
            sizes: Count bytes, and text and binary messages apart. It makes each message a little slower.
        """
        self._provider = meter_provider
        self._sizes = sizes
        self._instruments = _instruments_of(meter_provider)
        self._outlived: set[str] = set()

    @property
    def wants_sizes(self) -> bool:
        """Whether the guard shall count bytes: without an SDK nobody would read them."""
        provider = self._provider or metrics.get_meter_provider()
        return self._sizes and not type(provider).__module__.startswith("opentelemetry.metrics")

    def attach(self, statistics: Statistics) -> None:
        """
        Read the statistics of one more guard.

        Args:
            statistics: Those of a guard that has this observer.
        """
        self._instruments.add(statistics)

    def __call__(self, event: Event, /) -> None:
        """
        Hear one event.

        Args:
            event: Any event; those that end nothing are passed over.
        """
        if isinstance(event, Accepted):
            self._instruments.handshake(event.handshake_s, {names.HTTP_STATUS: 101, **describe.route(event.route)})
        elif isinstance(event, HandlerOutlived):
            if event.accepted:  # else only the terminal event knows how long the handshake took
                self._outlived.add(event.connection_id)
                self._over(event)
        elif isinstance(event, Terminal):
            if event.connection_id in self._outlived:
                self._outlived.remove(event.connection_id)
            else:
                self._over(event)

    def _over(self, event: HandlerOutlived | Terminal) -> None:
        labels = describe.route(event.route)
        error = describe.error(event)
        if error is not None:
            labels[names.ERROR_TYPE] = error
        if isinstance(event, (Closed, HandlerOutlived)):
            labels[names.CONNECTION_STATUS] = str(event.status)
            labels[names.CLOSE_INITIATOR] = str(event.initiator)
            if event.code is not None:
                labels[names.CLOSE_CODE] = event.code
            self._instruments.connection(event.duration_s, labels)
        elif isinstance(event, (Abandoned, Rejected)):
            if isinstance(event, Rejected) and event.response_status is not None:
                labels[names.HTTP_STATUS] = event.response_status
            self._instruments.handshake(event.handshake_s, labels)


class _Histogram:
    """A histogram whose label sets are bounded."""

    def __init__(self, meter: metrics.Meter, name: str, description: str, buckets: tuple[float, ...]) -> None:
        self._histogram = meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=buckets
        )
        self._seen: set[frozenset[tuple[str, Any]]] = set()

    def __call__(self, value_s: float, labels: Labels) -> None:
        key = frozenset(labels.items())
        if key not in self._seen:
            if len(self._seen) >= MAX_LABEL_SETS:
                labels = {names.OVERFLOW: True}
            else:
                self._seen.add(key)
        self._histogram.record(value_s, labels)


class Instruments:
    """
    The instruments of one meter provider.

    Attributes:
        connection: Records how long a connection was open: seconds, labels.
        handshake: Records how long an opening handshake took: seconds, labels.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        """
        Make the instruments.

        Args:
            meter: Of the provider.
        """
        self.connection = _Histogram(
            meter,
            "websocket.server.connection.duration",
            "Duration of WebSocket connections, from accept to close.",
            CONNECTION_BUCKETS_S,
        )
        self.handshake = _Histogram(
            meter,
            "websocket.server.handshake.duration",
            "Duration of opening handshakes, until the answer.",
            HANDSHAKE_BUCKETS_S,
        )
        self._lock = Lock()
        self._sources: list[Statistics] = []
        self._tallies: list[Tally] = []
        self._served: set[Any] = set()
        self._read_at_s = float("-inf")
        self._observe_all(meter)

    def add(self, statistics: Statistics) -> None:
        """
        Read one more guard from now on.

        Args:
            statistics: Its statistics.
        """
        with self._lock:
            if statistics not in self._sources:
                self._sources.append(statistics)

    def _observe_all(self, meter: metrics.Meter) -> None:
        counter, gauge = meter.create_observable_counter, meter.create_observable_up_down_counter
        for create, name, unit, description, read in (
            (gauge, "websocket.server.connection.active", "{connection}", "Open WebSocket connections.", active),
            (counter, "websocket.server.connections", "{connection}", "Opening handshakes, by result.", connections),
            (counter, "websocket.server.messages", "{message}", "Messages received and sent.", messages),
            (counter, "websocket.server.io", "By", "Payload bytes received and sent.", io),
            (counter, "asgi_ws_guard.sends", "{message}", "Messages of the application, by outcome.", sends),
            (gauge, "asgi_ws_guard.zombies", "{handler}", "Handlers that outlived their connection.", zombies),
        ):
            create(name, callbacks=[self._callback(read)], unit=unit, description=description)
        counter(
            "asgi_ws_guard.policy.decisions",
            callbacks=[self._decisions],
            unit="{decision}",
            description="What policies decided, but for what they allowed.",
        )

    def _decisions(self, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            sources = tuple(self._sources)
        sums: dict[tuple[str, str, str], int] = {}
        for source in sources:
            for kind, number in source.decisions().items():
                sums[kind] = sums.get(kind, 0) + number
        return [Observation(number, decided(kind)) for kind, number in sums.items()]

    def _callback(self, read: Callable[[Tally], Values]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            sums: dict[tuple[tuple[str, Any], ...], int] = {}
            for tally in self._pass(read):
                for value, labels in read(tally):
                    key = tuple(labels.items())
                    sums[key] = sums.get(key, 0) + value
            return [Observation(value, dict(key)) for key, value in sums.items()]

        return observe

    def _pass(self, reader: object) -> list[Tally]:
        """Give the tallies of this collection: they are read anew when an instrument asks for the second time."""
        with self._lock:
            now_s = time.monotonic()
            if reader in self._served or now_s - self._read_at_s > STALE_S:
                self._served.clear()
                self._read_at_s = now_s
                self._tallies = [tally for source in self._sources for tally in source.tallies()]
            self._served.add(reader)
            return self._tallies


_OF_GLOBAL: list[Instruments] = []
"""Instruments belong to the process, as the global meter provider does; see above."""
_MARK = "_asgi_ws_guard_instruments"
"""Where the instruments of a given provider stand: on itself, for they hold observers, which hold the provider."""


def _instruments_of(provider: metrics.MeterProvider | None) -> Instruments:
    at_large = metrics.get_meter_provider()
    if provider is None or provider is at_large:
        known: Instruments | None = getattr(at_large, _MARK, None)
        if known is not None:  # it was given to somebody before it became the global one
            return known
        if not _OF_GLOBAL:
            _OF_GLOBAL.append(Instruments(metrics.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL)))
        return _OF_GLOBAL[0]
    known = getattr(provider, _MARK, None)
    if known is None:
        known = Instruments(provider.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL))
        setattr(provider, _MARK, known)
    return known
