"""Flame graphs as SVG from folded stacks, one ``outer;inner;innermost COUNT`` per line. Hover for names and shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Self

_WIDTH, _ROW, _TOP, _LEAST = 1200, 16, 40, 0.4
"""Width in pixels; narrower frames are left out."""


@dataclass
class _Frame:
    """One function under one caller."""

    count: int = 0
    below: dict[str, Self] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((frame.depth() for frame in self.below.values()), default=0)


def folded(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Reads folded stacks: each stack with its count."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        if stack and count.isdigit():
            found[tuple(stack.split(";"))] += int(count)
    return found


def from_perf(text: str) -> Counter[tuple[str, ...]]:
    """Reads stacks from the output of ``perf script``: each stack with its count."""
    found: Counter[tuple[str, ...]] = Counter()
    stack: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith(("\t", " ")) and line.strip():
            _, _, symbol = line.strip().partition(" ")
            stack.append(symbol.rpartition(" (")[0].rpartition("+0x")[0] or symbol)
        elif not line.strip() and stack:
            found[tuple(reversed(stack))] += 1
            stack = []
    return found


def svg(title: str, stacks: Counter[tuple[str, ...]]) -> str:
    """The graph: width is time, callers are below the functions that they call."""
    root = _Frame()
    for stack, count in stacks.items():
        frame = root
        frame.count += count
        for name in stack:
            frame = frame.below.setdefault(name, _Frame())
            frame.count += count
    height = _TOP + _ROW * (root.depth() + 1)
    size = f'width="{_WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="11">'
    caption = f'<text x="8" y="22" font-size="15">{escape(title)}, {root.count} samples</text>'
    return "\n".join(
        [head, f'<rect {size} fill="#fffdf5"/>', caption, *_boxes(root, root.count, 0, height), "</svg>", ""]
    )


def _boxes(frame: _Frame, total: int, start: float, height: int, level: int = 0) -> Iterator[str]:
    for name, inner in sorted(frame.below.items()):
        width = inner.count / max(total, 1) * _WIDTH
        if width >= _LEAST:
            y = height - _ROW * (level + 2)
            share = f"{escape(name)}: {inner.count / max(total, 1):.1%}"
            colour = f"hsl({20 + hash(name) % 40}, 85%, {60 + hash(name) // 40 % 15}%)"
            text = escape(name[: int(width / 6.7)]) if width > 20 else ""
            yield (
                f'<g><title>{share}</title><rect x="{start:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" '
                f'fill="{colour}"/><text x="{start + 2:.1f}" y="{y + 11}">{text}</text></g>'
            )
            yield from _boxes(inner, total, start, height, level + 1)
        start += width


def largest(stacks: Counter[tuple[str, ...]], most: int = 12) -> list[tuple[str, float]]:
    """The functions with the largest share of time, including the functions that they call."""
    total, found = sum(stacks.values()), Counter[str]()
    for stack, count in stacks.items():
        for name in set(stack):
            found[name] += count
    return [(name, count / max(total, 1)) for name, count in found.most_common(most)]
