"""
Generate the Grafana dashboard for the metrics of the guard.

``python examples/monitoring/dashboard.py`` writes dashboard.json; with ``--check`` it writes nothing and exits with 1
when the file is not what it would write. It needs ``grafana-foundation-sdk``, which needs Python 3.11. It knows the
series by the names that opentelemetry-exporter-prometheus gives them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import DataSourceRef, GraphThresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TARGET = Path(__file__).with_name("dashboard.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
PANEL_HEIGHT = 8
GRID_WIDTH = 24
SUCCESS_OBJECTIVE = 0.995
"""The same as in alerts.yml."""

SELECTED = 'job=~"$job", http_route=~"$route"'
RATE = "[$__rate_interval]"
CONNECTION_BUCKETS = f"websocket_server_connection_duration_seconds_bucket{{{SELECTED}}}"
CONNECTION_COUNT = f"websocket_server_connection_duration_seconds_count{{{SELECTED}}}"
HANDSHAKE_BUCKETS = f"websocket_server_handshake_duration_seconds_bucket{{{SELECTED}}}"
SENDS = f"sum by (http_route) (rate(asgi_ws_guard_sends_total{{{SELECTED}}}{RATE}))"
LOST_SENDS = f'sum by (http_route) (rate(asgi_ws_guard_sends_total{{{SELECTED}, result!="forwarded"}}{RATE}))'


def rate(series: str, *labels: str, matchers: str = "") -> str:
    """Return the rate per second of a counter, summed by *labels*."""
    return f"sum by ({', '.join(labels)}) (rate({series}{{{SELECTED}{matchers}}}{RATE}))"


def quantile(q: float, buckets: str) -> str:
    """Return the quantile of a histogram over all selected routes."""
    return f"histogram_quantile({q}, sum by (le) (rate({buckets}{RATE})))"


def lines(
    title: str, description: str, unit: str, queries: dict[str, str], *, span: int, zero: bool = True
) -> timeseries.Panel:
    """
    Return a panel of lines.

    Args:
        title: What it shows.
        description: What to read from it.
        unit: Grafana's name of the unit.
        queries: dict: legend -> PromQL.
        span: Width, of 24.
        zero: Whether the axis begins at zero.
    """
    panel = timeseries.Panel().title(title).description(description).unit(unit).datasource(SOURCE)
    panel.span(span).height(PANEL_HEIGHT).fill_opacity(10).legend(common_builders.VizLegendOptions().show_legend(True))
    if zero:
        panel.min(0)
    for ref, (legend, expression) in zip("ABCDEFG", queries.items(), strict=False):
        panel.with_target(Dataquery().ref_id(ref).datasource(SOURCE).expr(expression).legend_format(legend).range())
    return panel


def duration_heatmap() -> heatmap.Panel:
    """Return the heatmap of how long the connections lasted that ended in each interval."""
    query = Dataquery().ref_id("A").datasource(SOURCE).range().format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
    query.expr(f"sum by (le) (increase({CONNECTION_BUCKETS}{RATE}))")
    panel = heatmap.Panel().title("Duration of the connections that ended").datasource(SOURCE)
    panel.description("A band near zero is a client that connects, fails and connects again.")
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    axis = heatmap.YAxisConfig().unit(units.Seconds)
    return panel.span(GRID_WIDTH // 2).height(PANEL_HEIGHT).y_axis(axis).with_target(query)


def success() -> timeseries.Panel:
    """Return the share of sends that the server took, with the objective as a line."""
    share = f"1 - ({LOST_SENDS} or 0 * {SENDS}) / ({SENDS} > 0)"
    text = "Forwarded sends, of all that the application attempted. Nothing is drawn while nothing is sent."
    steps = [Threshold(value=None, color="red"), Threshold(value=SUCCESS_OBJECTIVE, color="green")]
    panel = lines("Send success", text, units.PercentUnit, {"{{http_route}}": share}, span=12, zero=False).max(1)
    panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))


def connections() -> list[timeseries.Panel | heatmap.Panel]:
    """Return the panels about how many connections there are, and how long they last."""
    active = f"sum by (http_route) (websocket_server_connection_active{{{SELECTED}}})"
    opened = rate("websocket_server_connections_total", "websocket_connection_result")
    quantiles = {f"p{round(q * 100)}": quantile(q, CONNECTION_BUCKETS) for q in (0.5, 0.9, 0.99)}
    return [
        lines("Active by route", "Open connections now.", units.Short, {"{{http_route}}": active}, span=12),
        lines(
            "Opened by result",
            "denied: by the application. aborted: the client left before the accept.",
            units.CountsPerSecond,
            {"{{websocket_connection_result}}": opened},
            span=12,
        ),
        duration_heatmap(),
        lines("Duration quantiles", "Of the connections that ended.", units.Seconds, quantiles, span=12),
    ]


def traffic() -> list[timeseries.Panel | heatmap.Panel]:
    """Return the panels about messages and bytes."""
    messages = rate("websocket_server_messages_total", "network_io_direction", "websocket_message_type")
    volume = rate("websocket_server_io_bytes_total", "network_io_direction")
    legend = "{{network_io_direction}} {{websocket_message_type}}"
    text = "Seen from the application: receive is what the client sent."
    return [
        lines("Messages", text, units.MessagesPerSecond, {legend: messages}, span=12),
        lines("Bytes", text, units.BytesPerSecondSI, {"{{network_io_direction}}": volume}, span=12),
    ]


def ends() -> list[timeseries.Panel | heatmap.Panel]:
    """Return the panels about how connections end."""
    by = {
        name: f"sum by (websocket_{name}) (rate({CONNECTION_COUNT}{RATE}))"
        for name in ("connection_status", "close_code", "close_initiator")
    }
    return [
        lines(
            "Ends by status",
            "transport_error, protocol_error, app_error, slow_consumer and timeout are abnormal.",
            units.CountsPerSecond,
            {"{{websocket_connection_status}}": by["connection_status"]},
            span=8,
        ),
        lines(
            "Ends by close code",
            "1005 and 1006 depend on the server: read the status first.",
            units.CountsPerSecond,
            {"{{websocket_close_code}}": by["close_code"]},
            span=8,
        ),
        lines(
            "Ends by initiator",
            "Who ended the connection.",
            units.CountsPerSecond,
            {"{{websocket_close_initiator}}": by["close_initiator"]},
            span=8,
        ),
    ]


def sends() -> list[timeseries.Panel | heatmap.Panel]:
    """Return the panels about what became of the application's sends."""
    result = rate("asgi_ws_guard_sends_total", "result")
    reason = rate("asgi_ws_guard_sends_total", "reason", matchers=', result="dropped"')
    zombies = f"sum by (http_route) (asgi_ws_guard_zombies{{{SELECTED}}})"
    return [
        lines(
            "Sends by result",
            "dropped: after the end. failed: the server raised. refused: the application broke the protocol.",
            units.MessagesPerSecond,
            {"{{result}}": result},
            span=12,
        ),
        lines("Drops by reason", "Late sends.", units.MessagesPerSecond, {"{{reason}}": reason}, span=12),
        success(),
        lines(
            "Zombie handlers",
            "Handlers that run although their connection has ended.",
            units.Short,
            {"{{http_route}}": zombies},
            span=12,
        ),
    ]


def handshakes() -> list[timeseries.Panel | heatmap.Panel]:
    """Return the panel about how long the opening handshake takes."""
    quantiles = {f"p{round(q * 100)}": quantile(q, HANDSHAKE_BUCKETS) for q in (0.5, 0.99)}
    text = "From the request to the accept or the denial: the application's own checks."
    return [lines("Handshake duration", text, units.Seconds, quantiles, span=GRID_WIDTH)]


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """Return a variable that takes several of the values of a label, or all, also series without the label."""
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query).definition(query)
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    everything = VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def build() -> dashboard.Dashboard:
    """Return the whole dashboard; panel ids count from 1, in the order of the screen."""
    board = dashboard.Dashboard("WebSockets (asgi-ws-guard)").uid("asgi-ws-guard").tags(["websocket", "asgi"])
    board.description("Generated by dashboard.py: change that, not this.").editable()
    board.time("now-1h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    board.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    board.with_variable(choice("job", "Job", "label_values(websocket_server_connections_total, job)"))
    route = 'label_values(websocket_server_connections_total{job=~"$job"}, http_route)'
    board.with_variable(choice("route", "Route", route))
    rows = {
        "Connections": connections(),
        "Messages and bytes": traffic(),
        "Ends": ends(),
        "Sends": sends(),
        "Handshakes": handshakes(),
    }
    number = 0
    for title, panels in rows.items():
        number += 1
        board.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            board.with_panel(panel.id(number))
    return board


def main() -> int:
    """Write the dashboard, or check the file; return the exit code."""
    parser = argparse.ArgumentParser(description="Generate the Grafana dashboard.")
    parser.add_argument("path", nargs="?", type=Path, default=TARGET, help="the file, dashboard.json by default")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the file is out of date")
    options = parser.parse_args()
    text = json.dumps(build().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
    if not options.check:
        options.path.write_text(text)
        return 0
    if options.path.is_file() and options.path.read_text() == text:
        return 0
    print(f"{options.path} is out of date: run {Path(__file__).name}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
