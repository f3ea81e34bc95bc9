"""The table: on the terminal, between the markers of loadtest/results/results.md, and as JSON beside it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.benchmarks.measure import CallRow, Row, Spread

_PACKAGES = ("nginx", "libnginx-mod-http-lua", "mariadb-server-core", "redis-tools", "wrk")
_VERDICT = {None: "", True: "yes", False: "**no**"}


@dataclass(frozen=True)
class Report:
    """The results of one run, and the machine they come from.

    Attributes:
        load: the load average of the minute before, a measure of other work.
        left_out: rows that could not be measured here, with the reason.
        ended: benchmarks that finished; their earlier failures are removed from the page.
    """

    rows: list[Row]
    calls: list[CallRow]
    rounds: int
    seconds: int
    load: float
    left_out: list[tuple[str, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def blocks(self) -> dict[str, str]:
        """Markdown by the marker's name."""
        return {"machine": self._machine_text(), "rows": self._rows_text(), "statements": self._calls_text()}

    def add(self, row: Row | CallRow) -> None:
        if isinstance(row, CallRow):
            self.calls.append(row)
        else:
            self.rows.append(row)

    def verdicts(self) -> list[bool | None]:
        """Whether every limit was met; None if there is none."""
        return [*(row.holds for row in self.rows), *(call.holds for call in self.calls)]

    def _rows_text(self) -> str:
        head = [
            "row",
            "what; its peer",
            "Sluice",
            "peer",
            "ratio",
            "CPU Sluice",
            "CPU peer",
            "CPU ratio",
            "limit",
            "held",
        ]
        notes = [f"- {row.name}: {row.notes}" for row in self.rows if row.notes]
        notes += [f"- **{name} is left out**: {why}" for name, why in self.left_out]
        return "\n".join([_table(head, (_cells(row) for row in self.rows)), *([""] if notes else []), *notes])

    def _calls_text(self) -> str:
        cells = (
            [c.call, str(c.count), _kinds(c.kinds), f"≤ {c.limit}" if c.limit else "", _VERDICT[c.holds]]
            for c in self.calls
        )
        return _table(["call", "statements", "of which", "limit", "held"], cells)

    def _machine_text(self) -> str:
        machine = _machine()
        versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
        return (
            f"{datetime.now(UTC):%Y-%m-%d}, {self.rounds} rounds, {self.seconds} s per sample under load; "
            f"load average before: {self.load:.1f}. {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, {machine['system']}. {versions}."
        )

    def as_json(self) -> str:
        content = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "load_before": round(self.load, 2),
            "machine": _machine(),
            "versions": _versions(),
            "rows": [asdict(row) for row in self.rows],
            "statements": [{**asdict(call), "holds": call.holds} for call in self.calls],
            "left_out": self.left_out,
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def write(self, page: Path, anew: bool = True) -> None:
        """Replaces the text between the page's markers, `<!-- bench:NAME -->` and `<!-- /bench -->`.

        Args:
            anew: drops the rows of earlier runs. Without it, rows that were not measured now stay.
        """
        text, whole = page.read_text(), self._dated()
        if not anew and page.with_suffix(".json").exists():
            whole = whole._over(json.loads(page.with_suffix(".json").read_text()))
        for name, block in whole.blocks().items():
            begin, end = f"<!-- bench:{name} -->", "<!-- /bench -->"
            pattern = re.compile(rf"({re.escape(begin)}\n).*?({re.escape(end)})", re.S)
            text, count = pattern.subn(lambda found, block=block: found[1] + block + "\n" + found[2], text)  # type: ignore[misc]
            if count != 1:
                raise SystemExit(f"{page.name} has no place {begin} … {end}")
        page.write_text(text)
        page.with_suffix(".json").write_text(whole.as_json())

    def _dated(self) -> Report:
        """Each row says when it was measured, because later runs may keep it."""
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M}, {self.rounds} rounds, load {self.load:.1f}"
        return replace(self, rows=[replace(row, when=when) for row in self.rows])

    def _over(self, earlier: dict[str, Any]) -> Report:
        """Replaces the rows of an earlier run by rows with the same names."""
        rows = {row["name"]: _row(row) for row in earlier["rows"]} | {row.name: row for row in self.rows}
        calls = {call["name"]: _call(call) for call in earlier["statements"]} | {c.name: c for c in self.calls}
        measured = {*self.ended, *(row.name for row in self.rows)}
        left_out = {name: why for name, why in earlier.get("left_out", ()) if name not in measured}
        left_out |= dict(self.left_out)
        return replace(self, rows=[*rows.values()], calls=[*calls.values()], left_out=[*left_out.items()])


def _row(members: dict[str, Any]) -> Row:
    spreads = {n: Spread(**members[n]) for n in ("ours", "peer", "ratio", "cpu_ratio") if members.get(n)}
    return Row(**{**members, **spreads})


def _call(members: dict[str, Any]) -> CallRow:
    return CallRow(**{name: value for name, value in members.items() if name != "holds"})


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        row.what,
        f"{_spread(row.ours)} {row.unit}",
        _spread(row.peer),
        _spread(row.ratio),
        "" if row.cpu_ours is None else f"{_figure(row.cpu_ours)} {row.cpu_unit}",
        "" if row.cpu_peer is None else f"{_figure(row.cpu_peer)} {row.cpu_unit}",
        _spread(row.cpu_ratio),
        row.limit,
        _VERDICT[row.holds],
    ]


def _figure(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_figure(spread.median)} ({_figure(spread.least)} to {_figure(spread.most)})"


def _kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ').upper()}" for name, count in kinds.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _machine() -> dict[str, str | int]:
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3),
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
    }


def _versions() -> dict[str, str]:
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    versions = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    return {"Python": platform.python_version(), **versions}
