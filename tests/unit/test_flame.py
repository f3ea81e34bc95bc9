"""Flame graphs: samplers' output becomes stacks, and stacks become boxes as wide as their share."""

from __future__ import annotations

import re
from collections import Counter

from loadtest.benchmarks import flame, plot


def test_folded_lines_are_added_up() -> None:
    assert flame.folded(["a;b 2", "a;b 3", "a 1", "broken"]) == Counter({("a", "b"): 5, ("a",): 1})


def test_what_perf_prints_is_read_from_the_inside_out() -> None:
    text = (
        "nginx \n\tffff81 do_read+0x10 ([kernel])\n\t55e0 main+0x1 (/usr/sbin/nginx)\n\nnginx \n\t55e0 main+0x1 (x)\n"
    )
    assert flame.from_perf(text) == Counter({("main", "do_read"): 1, ("main",): 1})


def test_width_is_the_share_of_the_samples() -> None:
    drawn = flame.svg("title <1>", Counter({("a", "b"): 3, ("c",): 1}))
    found = dict(re.findall(r'<title>(\w): .*?</title><rect x="[\d.]+" y="\d+" width="([\d.]+)"', drawn))
    assert found == {"a": "900.0", "b": "900.0", "c": "300.0"}
    assert "title &lt;1&gt;" in drawn


def test_shares_count_a_function_once_a_stack() -> None:
    assert flame.largest(Counter({("a", "a", "b"): 1, ("a",): 1})) == [("a", 1.0), ("b", 0.5)]


def test_a_plot_has_a_line_for_each_series() -> None:
    drawn = plot.lines("t", [10, 100], {"x": [1.0, 10.0], "y": [0.0, 1.0]}, "ms")
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 4
