"""The summary of a run: a line per route and storage, and whether the limits were met."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

from locust.stats import RequestStats, StatsEntry

from loadtest.locust_users import settings

_HEAD = ("request", "count", "failed", "p50 ms", "p95 ms", "p99 ms", "requests/s", "MB/s down")


def problems(stats: RequestStats, options: Namespace) -> Iterator[str]:
    """Every limit that was exceeded, as text."""
    total = stats.total
    if total.num_requests < int(options.least_requests):
        yield f"{total.num_requests} requests, and {options.least_requests} are the least"
    if total.fail_ratio > float(options.most_failed):
        yield f"{total.fail_ratio:.2%} of the requests failed, and {float(options.most_failed):.2%} may"
    for beginning, limit in (settings.shares(options.p95) if options.p95 else {}).items():
        found = [entry for entry in _entries(stats) if _name(entry).startswith(beginning)]
        if not found:
            yield f"no request's name begins with {beginning!r}"
        for entry in found:
            if (p95 := entry.get_response_time_percentile(0.95)) > limit:
                yield f"{_name(entry)} took {p95:.0f} ms (p95), and {limit:g} is the limit"


def summary(stats: RequestStats) -> str:
    """A table with a line per route and storage."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for entry in [*_entries(stats), stats.total]:
        times = [f"{entry.get_response_time_percentile(share):.0f}" for share in (0.5, 0.95, 0.99)]
        speed = entry.avg_content_length * entry.total_rps / 1e6
        figures = (str(entry.num_requests), str(entry.num_failures), *times, f"{entry.total_rps:.1f}", f"{speed:.2f}")
        lines.append((_name(entry), *figures))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *figures])


def _entries(stats: RequestStats) -> list[StatsEntry]:
    return sorted(stats.entries.values(), key=_name)


def _name(entry: StatsEntry) -> str:
    return str(entry.name)
