"""
A real Prometheus server on a free loopback port, with its data in a temporary folder.

It scrapes one target. Values are read back over its HTTP API.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .programs import find_program
from .servers import HOST, free_port

INSTALL = "apt-get install prometheus"
START_TIMEOUT_S = 20.0
SCRAPE_INTERVAL_S = 1

Series = dict[frozenset[tuple[str, str]], float]
"""Labels, those of the scrape and of the scope left out -> value."""


class Prometheus:
    """
    A running Prometheus.

    Args:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}"

    def query(self, expression: str) -> Series:
        """
        Evaluate an instant query.

        Args:
            expression: PromQL whose result is a vector.
        """
        address = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        return {frozenset(_labels(one["metric"])): float(one["value"][1]) for one in found}

    def wait_for(self, expression: str, expected: Series, timeout_s: float = 20.0) -> Series:
        """
        Evaluate a query until it gives what is expected.

        Args:
            expression: PromQL whose result is a vector.
            expected: What is waited for.
            timeout_s: Seconds after which the last result is given, whatever it is.
        """
        deadline = time.monotonic() + timeout_s
        while (found := self.query(expression)) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _labels(metric: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in metric.items():
        if name not in ("__name__", "instance", "job") and not name.startswith("otel_scope_"):
            yield name, value


@contextlib.contextmanager
def running_prometheus(folder: Path, target_port: int) -> Iterator[Prometheus]:
    """
    Run a Prometheus that scrapes one target every second.

    Args:
        folder: Existing folder for configuration, data and log.
        target_port: Port on 127.0.0.1 that serves ``/metrics/``.
    """
    port = free_port()
    configuration = folder / "prometheus.yml"
    interval = f"{SCRAPE_INTERVAL_S}s"
    target = {
        "job_name": "guard",
        "metrics_path": "/metrics/",
        "static_configs": [{"targets": [f"{HOST}:{target_port}"]}],
    }
    configuration.write_text(
        json.dumps({"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [target]})
    )
    command = [
        find_program("prometheus", INSTALL),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    log_path = folder / "prometheus.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        prometheus, deadline = Prometheus(port), time.monotonic() + START_TIMEOUT_S
        while not prometheus.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus does not answer:\n{log_path.read_text()}")
            time.sleep(0.05)
        yield prometheus
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
