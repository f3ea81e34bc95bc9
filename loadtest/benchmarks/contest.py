"""A program's runs: its wall, its memory, and the CPU seconds of itself and of every server."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.benchmarks.measure import cpu_seconds


@dataclass
class Run:
    """What one run of a program took: wall, memory, and CPU seconds of itself ("client") and of each server."""

    seconds: float
    peak: int
    cpu: dict[str, float]


@dataclass
class Contest:
    """One amount, one direction: every program's runs."""

    title: str
    size: int
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def median(self, who: str) -> float:
        return statistics.median(run.seconds for run in self.runs[who])

    def cpu(self, who: str, pieces: int) -> str:
        """CPU a piece of work by whose processes, in ms."""
        runs = self.runs[who]
        used = {name: 1e3 * statistics.median(run.cpu[name] for run in runs) / pieces for name in runs[0].cpu}
        shares = ", ".join(f"{name} {ms:.2f}" for name, ms in used.items())
        return f"{self.title}, {who}: {sum(used.values()):.2f} ms CPU a piece: {shares}"

    def line(self, who: str) -> str:
        seconds, runs = self.median(who), self.runs[who]
        peak = max(run.peak for run in runs) / 1024**2
        speed, ratio = self.size / seconds / 1e6, self.median("curl") / seconds
        spread = f"{min(run.seconds for run in runs):.2f} to {max(run.seconds for run in runs):.2f}"
        return f"| {self.title} | {who} | {seconds:.2f} ({spread}) | {speed:.0f} | {ratio:.2f} | {peak:.0f} |"


def measured(command: Sequence[str], environment: dict[str, str], folder: Path, servers: dict[str, list[int]]) -> Run:
    """Runs a program to its end.

    Its peak is asked for while it runs: what wait4(2) tells of a child begins with the memory of its parent.
    """
    log = folder / "last.log"
    before, times = {name: cpu_seconds(pids) for name, pids in servers.items()}, os.times()
    begun = time.monotonic()
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        peak = Peak(process.pid)
        peak.start()
        status = process.wait()
    seconds, after = time.monotonic() - begun, os.times()
    peak.join()
    if status:
        raise SystemExit(f"{command[0]} ended with {status}:\n{log.read_text()[-2000:]}")
    own = after.children_user + after.children_system - times.children_user - times.children_system
    return Run(
        seconds, peak.found, {"client": own} | {name: cpu_seconds(servers[name]) - before[name] for name in servers}
    )


class Peak(threading.Thread):
    """The most memory that a process has held (VmHWM, proc_pid_status(5)), up to a moment before its end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._path = Path(f"/proc/{pid}/status")
        self.found = 0

    def run(self) -> None:
        try:
            while match := re.search(r"^VmHWM:\s+(\d+)", self._path.read_text(), re.M):
                self.found = int(match[1]) * 1024
                time.sleep(0.02)
        except OSError:
            return
