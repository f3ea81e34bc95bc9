"""A line chart as SVG, with two logarithmic axes, without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#17becf",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
)
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _LEGEND = 860, 460, 60, 34, 44, 250


def lines(title: str, across: Sequence[int], series: Mapping[str, Sequence[float]], unit: str) -> str:
    """The chart of `series` over `across`, with a dot per point."""
    figures = [max(value, 1e-3) for values in series.values() for value in values]
    low, high = math.floor(math.log10(min(figures))), math.ceil(math.log10(max(figures)))
    first, last = math.log10(min(across)), math.log10(max(across))

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - first) / max(last - first, 1e-9) * (_WIDTH - _LEFT - _LEGEND)

    def y(value: float) -> float:
        share = (math.log10(max(value, 1e-3)) - low) / max(high - low, 1)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def stroke(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'

    right, bottom, grid = _WIDTH - _LEGEND, _HEIGHT - _BOTTOM, 'stroke="#ddd"'
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect {size} fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        level = y(10**power)
        out.append(stroke(_LEFT, level, right, level, grid))
        out.append(f'<text x="{_LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{10.0**power:g} {unit}</text>')
    for value in across:
        out.append(stroke(x(value), _TOP, x(value), bottom, grid))
        out.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:,} files</text>')
    for number, (name, values) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        style = f'stroke="{colour}" stroke-width="2"' + (' stroke-dasharray="5 3"' if number >= len(_COLOURS) else "")
        dots = [(x(a), y(b)) for a, b in zip(across, values, strict=False)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in dots)
        out.append(f'<polyline points="{points}" fill="none" {style}/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in dots]
        at = _TOP + 14 + number * 18
        out.append(stroke(right + 14, at - 4, right + 34, at - 4, style))
        out.append(f'<text x="{right + 40}" y="{at}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])
