"""The monitoring example: its rules fire when they should, its names are the exporter's, its dashboard is current."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from websockets.sync.client import connect

from asgi_ws_guard._close import CloseStatus
from asgi_ws_guard.cli._server import running_server

MONITORING = Path(__file__).resolve().parents[2] / "examples" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())
CASES = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())
PROMTOOL_TIMEOUT_S = 60.0

ROUTE = "http.route"
DURATION = {ROUTE, "websocket.connection.status", "websocket.close.code", "websocket.close.initiator", "error.type"}


class Instrument(NamedTuple):
    """A metric as DESIGN.md has it, and the series that the exporter makes of it."""

    kind: str
    name: str
    unit: str
    attributes: set[str]
    series: set[str]


def histogram(series: str) -> set[str]:
    """Return the names of the three series of a histogram."""
    return {f"{series}_bucket", f"{series}_count", f"{series}_sum"}


INSTRUMENTS = [
    Instrument(
        "observable_up_down_counter",
        "websocket.server.connection.active",
        "{connection}",
        {ROUTE, "url.scheme"},
        {"websocket_server_connection_active"},
    ),
    Instrument(
        "histogram",
        "websocket.server.connection.duration",
        "s",
        DURATION,
        histogram("websocket_server_connection_duration_seconds"),
    ),
    Instrument(
        "histogram",
        "websocket.server.handshake.duration",
        "s",
        {ROUTE, "http.response.status_code", "error.type"},
        histogram("websocket_server_handshake_duration_seconds"),
    ),
    Instrument(
        "observable_counter",
        "websocket.server.connections",
        "{connection}",
        {ROUTE, "websocket.connection.result"},
        {"websocket_server_connections_total"},
    ),
    Instrument(
        "observable_counter",
        "websocket.server.messages",
        "{message}",
        {ROUTE, "network.io.direction", "websocket.message.type"},
        {"websocket_server_messages_total"},
    ),
    Instrument(
        "observable_counter",
        "websocket.server.io",
        "By",
        {ROUTE, "network.io.direction"},
        {"websocket_server_io_bytes_total"},
    ),
    Instrument(
        "observable_counter",
        "asgi_ws_guard.sends",
        "{message}",
        {ROUTE, "result", "reason"},
        {"asgi_ws_guard_sends_total"},
    ),
    Instrument(
        "observable_up_down_counter",
        "asgi_ws_guard.zombies",
        "{handler}",
        {ROUTE},
        {"asgi_ws_guard_zombies"},
    ),
]

SCRAPED = {"job", "instance"}
RECORDED = {rule["record"] for rule in RULES["groups"][0]["rules"] if "record" in rule}
LABELS = {
    **{
        series: {attribute.replace(".", "_") for attribute in instrument.attributes}
        | SCRAPED
        | ({"le"} if series.endswith("_bucket") else set())
        for instrument in INSTRUMENTS
        for series in instrument.series
    },
    **{name: {"job", "http_route"} for name in RECORDED},
    "up": SCRAPED,
}
VALUES = {
    "websocket_connection_status": {str(status) for status in CloseStatus},
    "websocket_connection_result": {"accepted", "denied", "aborted"},
    "result": {"forwarded", "dropped", "failed", "refused"},
}
WORDS = {"and", "or", "unless", "offset"}


def rule_named(document: Any, name: str) -> dict[str, Any]:
    """Return a rule by the name of its alert or of the series that it records."""
    rules: list[dict[str, Any]] = document["groups"][0]["rules"]
    return next(rule for rule in rules if name in (rule.get("alert"), rule.get("record")))


def dashboard_expressions() -> Iterator[str]:
    """Give every PromQL expression of the dashboard, with values in the place of Grafana's variables."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield re.sub(r"\$\w+", ".*", target["expr"].replace("$__rate_interval", "5m"))


def variable_expressions() -> Iterator[str]:
    """Give what the variables of the dashboard ask for, as PromQL: ``label_values(series, label)``."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            yield f"count by ({label}) ({re.sub(r'[$][a-z]+', '.*', series)})"


EXPRESSIONS = [
    *(rule["expr"] for rule in RULES["groups"][0]["rules"]),
    *dashboard_expressions(),
    *variable_expressions(),
]


def series_of(expression: str) -> set[str]:
    """Return the names of the series that an expression reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on)\s*\([^)]*\)", " ", re.sub(r'"[^"]*"', '""', expression))
    return set(re.findall(r"(?<![\w:])[a-zA-Z_][\w:]*(?![\w:]|\s*\()", bare)) - WORDS


def labels_of(expression: str) -> dict[str, set[str]]:
    """Return the labels that an expression names; dict: label -> set of values that it is compared with."""
    labels: dict[str, set[str]] = {}
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        for label in group.split(","):
            labels.setdefault(label.strip(), set())
    for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', expression):
        labels.setdefault(label, set()).update(value.split("|"))
    return labels


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of promtool; a skip where it is missing, a failure in CI."""
    path = shutil.which("promtool")
    if path is None:
        reason = "promtool is missing: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the example."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=PROMTOOL_TIMEOUT_S,
        check=False,
    )


def test_the_configuration_is_valid(promtool: str) -> None:
    """Prometheus takes prometheus.yml and the rules that it names."""
    done = run(promtool, "check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_the_rules_are_valid(promtool: str) -> None:
    """Prometheus takes every rule."""
    done = run(promtool, "check", "rules", "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES['groups'][0]['rules'])} rules found" in done.stdout


def test_the_alerts_fire_when_they_should(promtool: str) -> None:
    """Every case of alerts_test.yml passes."""
    done = run(promtool, "test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_near_misses() -> None:
    """Each alert fires in one case at least, and has cases of its own in which it does not."""
    for rule in RULES["groups"][0]["rules"]:
        if "alert" not in rule:
            continue
        fires = {
            bool(check["exp_alerts"])
            for case in CASES["tests"]
            if case["name"].startswith(f"{rule['alert']}: ")
            for check in case["alert_rule_test"]
        }
        assert fires == {True, False}, rule["alert"]
        assert rule["for"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


class Mutation(NamedTuple):
    """A fault in a rule, and the cases that must notice it."""

    rule: str
    old: str
    new: str
    cases: tuple[str, ...]
    key: str = "expr"


DISCONNECTS = "WebSocketDisconnectRateHigh"
ABNORMAL = "WebSocketAbnormalEnds"
HANDSHAKES = "WebSocketHandshakesFailing"
SENDS = "WebSocketSendSuccessLow"
ZOMBIES = "WebSocketZombieHandlers"
DROPPED = "WebSocketConnectionsDropped"
ALERTS = (DISCONNECTS, ABNORMAL, HANDSHAKES, SENDS, ZOMBIES, DROPPED)

ENDS_RATE = "job_route:websocket_server_ends:rate5m"
ABNORMAL_RATE = "job_route:websocket_server_abnormal_ends:rate5m"
FAILED_RATE = "job_route:websocket_server_failed_handshakes:rate5m"
LOST_RATE = "job_route:asgi_ws_guard_lost_sends:rate5m"
ACTIVE = "job_route:websocket_server_connection_active:sum"

RESTARTS = "one of two instances restarts every four minutes, its counters begin again"
RATE_OF_SUM = r"(?s)sum by (\(.*?\)) \(\s*rate\((.*)\[5m\]\)\s*\)"
SUM_FIRST = r"rate((sum by \1 (\2))[5m:])"
"""The classic mistake: the counter of one instance begins again, and the sum looks as if all did."""

MUTATIONS = [
    *(
        Mutation(alert, r"(?s)^(.*)$", r"(\1) or on() vector(1)", ("no data", "series without traffic"))
        for alert in ALERTS
    ),
    Mutation(DISCONNECTS, "> 0.2", "> 2.2", ("two instances, from 0.1 to 2 per second",)),
    Mutation(DISCONNECTS, r"> 3 \*", "> 1.5 *", ("twice the rate of the hour before",)),
    Mutation(DISCONNECTS, "> 0.2", "> 0.01", ("tiny traffic, from nothing to 0.1 per second",)),
    Mutation(DISCONNECTS, "10m", "5m", ("a burst of three minutes",), "for"),
    Mutation(DISCONNECTS, "offset 70m", "offset 1m", ("an application that has just started",)),
    Mutation(ENDS_RATE, RATE_OF_SUM, SUM_FIRST, (RESTARTS,)),
    Mutation(ENDS_RATE, r"\{.*\}", "", ("many denied handshakes are no connections",)),
    *(
        Mutation(ABNORMAL_RATE, status, "none", ("a fifth, of five statuses",))
        for status in ("transport_error", "protocol_error", "app_error", "slow_consumer", "timeout")
    ),
    Mutation(ABNORMAL, r"> 0.1\)", "> 0.6)", ("nothing but transport errors",)),
    Mutation(ABNORMAL, r"> 0.1\s*$", "> 0.05", ("one in twelve",)),
    Mutation(ABNORMAL, r"> 0.1\)", "> 0)", ("tiny traffic, one end in two minutes, abnormal",)),
    Mutation(ABNORMAL_RATE, "timeout", "going_away", ("a deployment, everyone is sent away",)),
    Mutation(ABNORMAL_RATE, "timeout", "shutdown", ("a deployment, everyone is sent away",)),
    Mutation(ABNORMAL, "10m", "5m", ("only for three minutes",), "for"),
    Mutation(ABNORMAL_RATE, RATE_OF_SUM, SUM_FIRST, (RESTARTS,)),
    Mutation(FAILED_RATE, r"denied\|", "", ("a third is denied or aborted", "no handshake was ever accepted")),
    Mutation(FAILED_RATE, r"\|aborted", "", ("a third is denied or aborted",)),
    Mutation(HANDSHAKES, r"> 0.1\s*$", "> 0.05", ("one in twelve",)),
    Mutation(HANDSHAKES, r"> 0.1\)", "> 0)", ("tiny traffic, one handshake in two minutes, denied",)),
    Mutation(HANDSHAKES, "10m", "5m", ("only for three minutes",), "for"),
    Mutation(FAILED_RATE, RATE_OF_SUM, SUM_FIRST, (RESTARTS,)),
    *(
        Mutation(LOST_RATE, '!="forwarded"', f'!~"forwarded|{result}"', ("one per cent is dropped, failed or refused",))
        for result in ("dropped", "failed", "refused")
    ),
    Mutation(SENDS, r"> 1\)", "> 2)", ("nothing was ever forwarded",)),
    Mutation(SENDS, "0.995", "0.997", ("99.6 per cent",)),
    Mutation(SENDS, r"> 1\)", "> 0)", ("tiny traffic, half of one send in two seconds is dropped",)),
    Mutation(SENDS, "10m", "5m", ("only for three minutes",), "for"),
    Mutation(LOST_RATE, RATE_OF_SUM, SUM_FIRST, (RESTARTS,)),
    Mutation(ZOMBIES, "^sum", "max", ("one on each of two instances, for ten minutes",)),
    Mutation(ZOMBIES, "5m", "3m", ("gone after four minutes",), "for"),
    Mutation(ZOMBIES, "> 0", ">= 0", ("gone after four minutes",)),
    Mutation(ZOMBIES, "asgi_ws_guard_zombies", "max_over_time(asgi_ws_guard_zombies[15m])", ("the process restarts",)),
    Mutation(DROPPED, ">= 20", ">= 200", ("from 100 to 45 on two instances",)),
    Mutation(DROPPED, "0 \\* ", "0 * none:", ("the process has restarted, and nobody came back",)),
    Mutation(DROPPED, r"\(up\) > 0", "(up) >= 0", ("the target does not answer",)),
    Mutation(DROPPED, "0.5", "0.7", ("from 100 to 60",)),
    Mutation(DROPPED, ">= 20", ">= 5", ("from 10 to none, under the floor",)),
    Mutation(DROPPED, "2m", "1m", ("everyone is back within two minutes",), "for"),
    Mutation(ACTIVE, r"\((web.*)\)", r"(min_over_time(\1[4m]))", ("everyone is back within two minutes",)),
    Mutation(DROPPED, "offset 5m", "offset 15m", ("half an hour of slow decline",)),
    Mutation(ACTIVE, "http_route", "http_route, instance", ("the load moves to another instance",)),
]

ALERT_OF = {
    ENDS_RATE: DISCONNECTS,
    ABNORMAL_RATE: ABNORMAL,
    FAILED_RATE: HANDSHAKES,
    LOST_RATE: SENDS,
    ACTIVE: DROPPED,
}
Check = tuple[str, str, str]
"""A case, an alert and a time."""


def minutes(text: str) -> str:
    """Return a duration of promtool (1h40m, 14m) in minutes, as the cases write it."""
    hours, rest = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:0s)?", text).groups(default="0")  # type: ignore[union-attr]
    return f"{int(hours) * 60 + int(rest)}m"


def failing(promtool: str, folder: Path, mutation: Mutation) -> set[Check]:
    """Return which checks of the cases of a mutation fail when its rule is mutated."""
    rules, cases = copy.deepcopy(RULES), copy.deepcopy(CASES)
    rule = rule_named(rules, mutation.rule)
    mutated = re.sub(mutation.old, mutation.new, rule[mutation.key])
    assert mutated != rule[mutation.key]
    rule[mutation.key] = mutated
    alert = ALERT_OF.get(mutation.rule, mutation.rule)
    names = {f"{prefix}: {case}" for case in mutation.cases for prefix in (alert, "all")}
    cases["tests"] = [case for case in cases["tests"] if case["name"] in names]
    assert len(cases["tests"]) == len(mutation.cases)
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    (folder / "alerts_test.yml").write_text(yaml.safe_dump(cases))
    assert run(promtool, "check", "rules", folder / "alerts.yml").returncode == 0
    output = run(promtool, "test", "rules", folder / "alerts_test.yml").stderr
    found = re.findall(r"name: (.+),\n\s*alertname: (\w+), time: (\w+),", output)
    return {(name, alertname, minutes(time)) for name, alertname, time in found}


def test_every_check_of_the_cases_can_fail(promtool: str, tmp_path: Path) -> None:
    """Each mutation is noticed in each case that it names, and each check of each case notices one."""
    noticed: set[Check] = set()
    for mutation in MUTATIONS:
        found = failing(promtool, tmp_path, mutation)
        assert {name.partition(": ")[2] for name, _, _ in found} == set(mutation.cases), mutation
        noticed |= found
    checks = {
        (case["name"], check["alertname"], check["eval_time"])
        for case in CASES["tests"]
        for check in case["alert_rule_test"]
    }
    assert checks - noticed == set()


def test_every_expression_of_the_dashboard_parses(promtool: str, tmp_path: Path) -> None:
    """Prometheus takes each expression of a panel or a variable as a rule."""
    expressions = [*dashboard_expressions(), *variable_expressions()]
    assert len(expressions) > 15
    rules = [{"record": f"dashboard:{number}", "expr": text} for number, text in enumerate(expressions)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_is_one_that_the_exporter_makes(expression: str) -> None:
    """An expression reads series, labels and values that exist."""
    names = series_of(expression)
    assert names
    assert names <= set(LABELS)
    allowed = set().union(*(LABELS[name] for name in names))
    for label, values in labels_of(expression).items():
        assert label in allowed
        assert values <= VALUES.get(label, {".*"})


def test_every_metric_is_watched() -> None:
    """Each metric is on the dashboard."""
    shown = set().union(*(series_of(expression) for expression in dashboard_expressions()))
    for instrument in INSTRUMENTS:
        assert instrument.series & shown, instrument.name


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_the_exporter_makes_these_series(instrument: Instrument) -> None:
    """The real exporter gives the series and labels of the table, and puts none but its scope's beside them."""
    registry = CollectorRegistry()
    provider = MeterProvider(metric_readers=[PrometheusMetricReader(disable_target_info=True, registry=registry)])
    attributes = dict.fromkeys(instrument.attributes, "value")

    def observe(options: CallbackOptions) -> list[Observation]:
        return [Observation(1, attributes)]

    meter = provider.get_meter("asgi_ws_guard", "0.1.0", schema_url="https://example.org/1")
    if instrument.kind == "histogram":
        meter.create_histogram(instrument.name, unit=instrument.unit).record(1, attributes)
    else:
        getattr(meter, f"create_{instrument.kind}")(instrument.name, [observe], unit=instrument.unit)
    samples = [sample for family in registry.collect() for sample in family.samples]
    provider.shutdown()
    assert {sample.name for sample in samples} == instrument.series
    for sample in samples:
        labels = {label for label in sample.labels if not label.startswith("otel_scope_")}
        assert labels == LABELS[sample.name] - SCRAPED
        assert "otel_scope_version" in sample.labels


def test_the_dashboard_is_current(tmp_path: Path) -> None:
    """The committed file is what the script writes, and the check notices when it is not."""
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("grafana-foundation-sdk is missing: it needs Python 3.11")
    done = run(sys.executable, "dashboard.py", "--check")
    assert done.returncode == 0, done.stderr
    stale = tmp_path / "dashboard.json"
    assert run(sys.executable, "dashboard.py", "--check", stale).returncode == 1
    assert run(sys.executable, "dashboard.py", stale).returncode == 0
    assert stale.read_bytes() == (MONITORING / "dashboard.json").read_bytes()
    stale.write_text(stale.read_text().replace("Zombie handlers", "Zombies"))
    assert run(sys.executable, "dashboard.py", "--check", stale).returncode == 1


def test_the_dashboard_and_the_alert_have_one_objective() -> None:
    """The line in the panel about sends is where the alert begins."""
    panel = next(panel for panel in DASHBOARD["panels"] if panel["title"] == "Send success")
    objective = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    assert rule_named(RULES, SENDS)["expr"].split()[-2:] == ["<", str(objective)]


def test_the_application_echoes_and_can_be_scraped(tmp_path: Path) -> None:
    """The example serves its room, and the exporter's text at the path of prometheus.yml."""
    path = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]["metrics_path"]
    with running_server("examples.monitoring.app:app", log=tmp_path / "log") as server:
        with connect(f"ws://127.0.0.1:{server.port}/rooms/red") as page:
            page.send("hello")
            assert page.recv() == "red: hello"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
    assert "\ntarget_info{" in text
    served = {line.partition("{")[0] for line in text.splitlines() if 'http_route="/rooms/{room}"' in line}
    assert served == {name for instrument in INSTRUMENTS for name in instrument.series}
    assert "ERROR" not in (tmp_path / "log").read_text()
