"""Write the page and its pictures from raw results; it measures nothing, and the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .chart import Bar, bars, figure
from .results import Results, Summary, ratios, summary
from .subjects import BARE, DEFAULTS, EVERYTHING, GUARD, NO_SIZES, OTEL, PASSED, SERVED, SUBJECTS

_HEAD = """# Benchmarks

Written by `make bench` on {date}; [performance.md](performance.md) says what the figures mean, and where a budget is
missed, why. All of a table are measured in one run, in interleaved rounds; a ratio is taken within a round, and the
median over the rounds stands here with its quartiles. Absolute times depend on the machine, ratios much less. In
process it is the CPU time of the measuring thread, which busy neighbours do not lengthen but for their use of the
caches; what exporters do in threads of their own is not in it. On real servers it is the clock on the wall.

- **Machine:** {cpu}, {cores} cores, {memory_gib} GiB, {system}; shared with others
- **Python:** {python}
- **Versions:** {versions}
"""
_MESSAGE = """\
One receive and one send of an open connection, over a server that never suspends. Each subject has a process of its
own, which measures the bare application and the pass-through beside it in every round. It is the added cost, in units
of what a pass-through of two coroutines adds.
"""
_CONNECTION = """\
Connect, one message in each direction, close, over a server that never suspends. In units of one empty span of the
OpenTelemetry SDK (start and end), measured in the same round.
"""
_MEMORY = "What `tracemalloc` counts for one connection whose handler waits in `receive`, over the pass-through.\n"
_ECHO = """\
Echoes of one text message at a time over each connection, from clients in a second process, on real servers with one
worker and otherwise their defaults. Round trips per second as a ratio to the bare application in the same round;
latency in milliseconds. "OpenTelemetry's" is opentelemetry-instrumentation-asgi with its defaults.
"""
_CHURN = "20 clients connect, echo once and close, again and again.\n"
_RESIDENT = """\
Resident memory of the server's processes for each connection that is open and idle, in KiB, each subject in a server of
its own. The difference to the bare application is what a subject costs.
"""
_GROWTH = """\
An echo on each of the live connections in turn, each in a task of its own, in nanoseconds; the waking of the task is in
it, and so is what the guard does from time to time. The ratio is to the bare application with as many connections.
"""
_COLLECTION = "One collection of all metrics with so many live connections, with all telemetry.\n"


class _Line(NamedTuple):
    subject: str
    found: Summary
    more: tuple[str, ...] = ()


def write(results: Results, docs: Path) -> list[Path]:
    """
    Write everything.

    Args:
        results: What was measured; parts may be missing.
        docs: The folder for ``benchmarks.md``; the pictures get a folder beside it.

    Returns:
        The files.
    """
    pictures: dict[str, str] = {}
    conditions = dict(results.conditions)
    conditions["versions"] = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    sections = [
        _HEAD.format(**conditions),
        _budgets(results),
        *_message(results, pictures),
        *_connection(results, pictures),
        *_memory(results, pictures),
        *_echo(results, pictures),
        *_resident(results, pictures),
        *_growth(results, pictures),
    ]
    page = docs / "benchmarks.md"
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(sections), "utf-8")
    for name, picture in pictures.items():
        (folder / name).write_text(picture, "utf-8")
    return [page, *(folder / name for name in pictures)]


def added(results: Results, subject: str) -> Summary | None:
    """Give what a subject adds per message, in units of the pass-through's; None when either was not measured."""
    series = results.tables.get(f"message/{subject}")
    if series is None:
        return None
    rounds = zip(series[subject], series[BARE], series[PASSED], strict=True)
    found = [(own - bare) / (passed - bare) for own, bare, passed in rounds if passed != bare]
    return summary(found) if found else None


def in_spans(results: Results, subject: str) -> Summary | None:
    """Give the cost of a connection, in empty spans; None when it was not measured."""
    series = results.tables.get(f"connection/{subject}")
    return None if series is None else summary(ratios(series, subject, "span"))


def idle_bytes(results: Results, subject: str) -> Summary | None:
    """Give the memory of an idle connection over the pass-through; None when it was not measured."""
    series = results.tables.get(f"memory/{subject}")
    if series is None:
        return None
    return summary([own - passed for own, passed in zip(series[subject], series[PASSED], strict=True)])


def _budgets(results: Results) -> str:
    rows = []
    send_deadline = "guard, send deadline"
    for what, found, limit, most in (
        ("added per message, no observer", added(results, GUARD), 1.5, True),
        ("added per message, defaults, no SDK", added(results, DEFAULTS), 1.5, True),
        ("the same with the SDK exporting", added(results, EVERYTHING), 1.7, True),
        ("the same without byte counts", added(results, NO_SIZES), 1.7, True),
        ("a send deadline", added(results, send_deadline), 2.0, True),
        ("idle connection, no observer (KiB)", _kib(idle_bytes(results, GUARD)), 1.5, True),
        ("idle connection, all telemetry (KiB)", _kib(idle_bytes(results, EVERYTHING)), 2.0, True),
        ("uvicorn echo, defaults, over the pass-through", _rate(results, "uvicorn", DEFAULTS), 0.97, False),
        ("connect + close, all telemetry (spans)", in_spans(results, EVERYTHING), 5.0, True),
        ("collection over the most connections (ms)", _collection_ms(results), 20.0, True),
    ):
        if found is not None:
            is_met = found.median <= limit if most else found.median >= limit
            rows.append((what, _spread(found), f"{'≤' if most else '≥'} {limit:g}", "met" if is_met else "**missed**"))
    return "## Budgets\n\n" + _table(("what", "measured: median (quartiles)", "budget", ""), rows)


def _message(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    lines = []
    for name in _subjects(results, "message"):
        found, series = added(results, name), results.tables[f"message/{name}"]
        if found is not None:
            over = [own - bare for own, bare in zip(series[name], series[BARE], strict=True)]
            lines.append(_Line(name, found, (figure(summary(over).median),)))
    if lines:
        note = "added, in units of what the pass-through adds; logarithmic axis; the dashed line is the budget"
        yield from _section("Per message", _MESSAGE, lines, ("in units", "added ns"), pictures)
        pictures["per-message.svg"] = bars("Per message", note, _bars(lines), log=True, budget=1.5)


def _connection(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    lines = []
    for name in _subjects(results, "connection"):
        found, series = in_spans(results, name), results.tables[f"connection/{name}"]
        if found is not None:
            lines.append(_Line(name, found, (f"{1e9 / summary(series[name]).median:,.0f}",)))
    if lines:
        note = "in units of one empty span of the SDK; the dashed line is the budget for all telemetry"
        yield from _section("Per connection", _CONNECTION, lines, ("in spans", "per second of CPU"), pictures)
        pictures["per-connection.svg"] = bars("Per connection", note, _bars(lines), budget=5.0)


def _memory(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    lines = [
        _Line(name, found) for name in _subjects(results, "memory") if (found := idle_bytes(results, name)) is not None
    ]
    if lines:
        yield from _section("Memory of an idle connection", _MEMORY, lines, ("bytes over the pass-through",), pictures)
        title = "Memory of an idle connection"
        pictures["memory-of-an-idle-connection.svg"] = bars(title, "bytes over the pass-through", _bars(lines))


def _echo(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    cases = [name.split("/")[1:4] for name in results.tables if name.startswith("echo/") and name.endswith("/rate")]
    if not cases:
        return
    rows: list[tuple[str, ...]] = []
    drawn: list[Bar] = []
    drawn_of = max(count for _, count, _ in cases if count != "1000")
    for server, count, size in cases:
        table = f"echo/{server}/{count}/{size}"
        rates = results.tables[f"{table}/rate"]
        for name in rates:
            ratio = summary(ratios(rates, name, BARE))
            times = [figure(summary(results.tables[f"{table}/{one}"][name]).median) for one in ("p50", "p99")]
            rate = f"{summary(rates[name]).median:,.0f}"
            rows.append((f"{server}, {count}, {int(size):,} B", _short(name), rate, _spread(ratio), *times))
            if count == drawn_of:
                drawn.append(Bar(f"{server}, {size} B: {_short(name)}", *ratio, _kind(name)))
    title, note = "Round trips per second", f"ratio to the bare application; {drawn_of} connections"
    pictures["echo.svg"] = bars(title, note, drawn)
    head = ("server, connections, message", "subject", "per second", "to bare", "p50 ms", "p99 ms")
    yield f"## On real servers\n\n{_ECHO}\n![Round trips per second](benchmarks/echo.svg)\n\n" + _table(head, rows)
    rows = [
        (
            table.split("/")[1],
            _short(name),
            f"{summary(rates).median:,.0f}",
            _spread(summary(ratios(series, name, BARE))),
        )
        for table, series in results.tables.items()
        if table.startswith("churn/")
        for name, rates in series.items()
    ]
    yield f"### Connect and close\n\n{_CHURN}\n" + _table(("server", "subject", "per second", "to bare"), rows)


def _resident(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    rows, drawn = [], []
    for table, series in results.tables.items():
        if table.startswith("resident/"):
            server = table.split("/")[1]
            for name, values in series.items():
                one = summary([value / 1024 for value in values])
                over = one.median - summary(series[BARE]).median / 1024
                rows.append((server, _short(name), _spread(one), f"{over:+.1f}"))
                drawn.append(Bar(f"{server}: {_short(name)}", *one, _kind(name)))
    if rows:
        pictures["resident.svg"] = bars("Resident memory per idle connection", "KiB", drawn)
        image = "![Resident memory](benchmarks/resident.svg)"
        head = ("server", "subject", "KiB per connection", "over bare")
        yield f"### Memory of a real server\n\n{_RESIDENT}\n{image}\n\n" + _table(head, rows)


def _growth(results: Results, pictures: dict[str, str]) -> Iterable[str]:
    rows, drawn = [], []
    for table, series in results.tables.items():
        if table.startswith("crowd/"):
            _, count, name = table.split("/", 2)
            ratio = summary(ratios(series, name, BARE))
            rows.append((f"{int(count):,}", _short(name), f"{summary(series[name]).median:,.0f}", _spread(ratio)))
            drawn.append(Bar(f"{int(count):,} live: {_short(name)}", *ratio, _kind(name)))
    if rows:
        pictures["growth.svg"] = bars(
            "An echo among live connections", "ratio to the bare application", drawn, log=True
        )
        head = ("live connections", "subject", "ns per echo", "to bare")
        image = "![An echo among live connections](benchmarks/growth.svg)"
        yield f"## Growth\n\n{_GROWTH}\n{image}\n\n" + _table(head, rows)
    collected = [
        (f"{int(table.split('/')[1]):,}", _spread(summary(series[EVERYTHING])))
        for table, series in results.tables.items()
        if table.startswith("collection/")
    ]
    if collected:
        yield f"{_COLLECTION}\n" + _table(("live connections", "ms"), collected)


def _section(
    title: str, text: str, lines: Sequence[_Line], columns: tuple[str, ...], pictures: dict[str, str]
) -> Iterable[str]:
    name = title.lower().replace(" ", "-")
    rows = [(line.subject, _spread(line.found), *line.more) for line in lines]
    yield f"## {title}\n\n{text}\n![{title}](benchmarks/{name}.svg)\n\n" + _table(("subject", *columns), rows)


def _subjects(results: Results, what: str) -> list[str]:
    return [name for name in SUBJECTS if f"{what}/{name}" in results.tables]


def _rate(results: Results, server: str, name: str) -> Summary | None:
    tables = [one for one in results.tables if one.startswith(f"echo/{server}/") and one.endswith("/10/rate")]
    found = [ratio for table in tables for ratio in ratios(results.tables[table], name, PASSED)]
    return summary(found) if found else None


def _collection_ms(results: Results) -> Summary | None:
    counts = [int(one.split("/")[1]) for one in results.tables if one.startswith("collection/")]
    return summary(results.tables[f"collection/{max(counts)}"][EVERYTHING]) if counts else None


def _kib(found: Summary | None) -> Summary | None:
    return None if found is None else Summary(*(value / 1024 for value in found))


def _bars(lines: Iterable[_Line]) -> list[Bar]:
    return [Bar(_short(line.subject), *line.found, _kind(line.subject)) for line in lines]


def _kind(name: str) -> str:
    return "ours" if name.startswith("guard") else "reference" if name in (BARE, PASSED) else "theirs"


def _short(name: str) -> str:
    return (
        name.replace("opentelemetry-instrumentation-asgi", "OpenTelemetry's")
        if name in SERVED or OTEL in name
        else name
    )


def _spread(found: Summary) -> str:
    return f"{_number(found.median)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
