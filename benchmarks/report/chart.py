"""Draw bars as SVG: the same numbers give the same bytes, and it is readable on a dark page as on a light one."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 860, 330, 110, 26, 64
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 11px; fill: #57606a }
.ours { fill: #2f6fbd } .theirs { fill: #9a6a3a } .reference { fill: #8c959f }
.spread { stroke: #24292f; stroke-width: 1.5 } .grid { stroke: #d0d7de }
.budget { stroke: #cf222e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #8d96a0 } .ours { fill: #58a6ff } .theirs { fill: #d29a5c }
  .reference { fill: #6e7681 } .spread { stroke: #e6edf3 } .grid { stroke: #30363d } .budget { stroke: #ff7b72 }
}
"""


class Bar(NamedTuple):
    """
    One bar.

    Attributes:
        label: What it is of.
        value: Its length, with the quartiles beside it.
        low: The lower one.
        high: The upper one.
        kind: ``"ours"``, ``"theirs"`` or ``"reference"``.
    """

    label: str
    value: float
    low: float
    high: float
    kind: str


def bars(title: str, note: str, found: Sequence[Bar], *, log: bool = False, budget: float | None = None) -> str:
    """
    Draw a chart of horizontal bars.

    Args:
        title: Above it.
        note: What the numbers are, below the title.
        found: The bars, from top to bottom.
        log: Use a logarithmic axis, from the power of ten below the smallest value above 0.
        budget: Draw a line here; None: none.

    Returns:
        An SVG document. What is not above 0 has no length: in a short run noise may be more than what was measured.
    """
    least = min((one.value for one in found if one.value > 0), default=budget or 1.0)
    most = max([*(one.high for one in found), budget or 0.0, least])
    floor = 10.0 ** math.floor(math.log10(least)) if log else 0.0

    def x(value: float) -> float:
        if log:
            share = math.log10(max(value, floor) / floor) / math.log10(most * 1.05 / floor)
        else:
            share = max(value, 0.0) / (most * 1.05)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + len(found) * _ROW + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="24">{html.escape(title)}</text>',
        f'<text class="note" x="12" y="44">{html.escape(note)}</text>',
    ]
    for tick in _ticks(floor, most, log=log):
        at = f"{x(tick):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP - 6}" y2="{height - 20}"/>')
        parts.append(f'<text class="note" x="{at}" y="{height - 6}" text-anchor="middle">{figure(tick)}</text>')
    for row, one in enumerate(found):
        parts += _bar(_TOP + row * _ROW, one, x(floor), [x(one.value), x(one.low), x(one.high)])
    if budget is not None:
        at = f"{x(budget):.1f}"
        parts.append(f'<line class="budget" x1="{at}" x2="{at}" y1="{_TOP - 6}" y2="{height - 20}"/>')
    return "\n".join([*parts, "</svg>", ""])


def figure(value: float) -> str:
    """Write a number as short as it is exact."""
    if value and abs(value) < 0.995:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 and value != round(value) else f"{value:,.0f}"


def _bar(y: int, one: Bar, start: float, ends: Sequence[float]) -> list[str]:
    value, low, high = ends
    middle = y + 9
    return [
        f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(one.label)}</text>',
        f'<rect class="{one.kind}" x="{start:.1f}" y="{y}" width="{max(value - start, 1):.1f}" height="18" rx="2"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(value, high) + 6:.1f}" y="{y + 14}">{figure(one.value)}</text>',
    ]


def _ticks(floor: float, most: float, *, log: bool) -> list[float]:
    if log:
        return [floor * 10**power for power in range(math.floor(math.log10(most / floor)) + 1)]
    step = 10.0 ** math.floor(math.log10(most))
    step = next(part for part in (step, step / 2, step / 5) if most / part >= 3 or part == step / 5)
    return [step * number for number in range(math.floor(most / step) + 1)]
