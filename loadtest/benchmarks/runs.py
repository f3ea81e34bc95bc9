"""A program's run: its wall time, its memory, and the CPU seconds of itself and of every server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.benchmarks.measure import Sample, cpu_seconds


@dataclass
class Run:
    """One run of a program: wall time, memory, CPU seconds of the program ("client") and of each server."""

    seconds: float
    peak: int
    cpu: dict[str, float]

    def sample(self, amount: float, pieces: int) -> Sample:
        """`amount` per second; CPU of all processes per unit of work."""
        shares = {name: seconds / pieces for name, seconds in self.cpu.items()}
        return Sample(amount / self.seconds, sum(shares.values()), peak=self.peak, shares=shares)


def measured(
    command: Sequence[str | Path], environment: Mapping[str, str], log: Path, servers: Mapping[str, Sequence[int]]
) -> Run:
    """Runs a program to its end; its output goes to `log`. Raises SystemExit if it fails.

    Its peak memory is polled while it runs: wait4(2) reports a child's peak including the memory of its parent.
    """
    before, times = {name: cpu_seconds(pids) for name, pids in servers.items()}, os.times()
    begun = time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True) as process,
    ):
        try:
            peak = _Peak(process.pid)
            peak.start()
            status = process.wait()
        except BaseException:
            # if the bench ends for any reason, the program and its children end too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    seconds, after = time.monotonic() - begun, os.times()
    peak.join()
    if status:
        raise SystemExit(f"{command[0]} ended with {status}: {log.read_text(errors='replace').strip()[-2000:]}")
    own = after.children_user + after.children_system - times.children_user - times.children_system
    return Run(
        seconds, peak.found, {"client": own} | {name: cpu_seconds(servers[name]) - before[name] for name in servers}
    )


class _Peak(threading.Thread):
    """The peak memory of a program (VmHWM, proc_pid_status(5)), read until shortly before its end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._path = Path(f"/proc/{pid}/status")
        self.found = 0

    def run(self) -> None:
        try:
            while match := re.search(r"^VmHWM:\s+(\d+)", self._path.read_text(), re.M):
                self.found = int(match[1]) * 1024
                time.sleep(0.02)  # between two samples
        except OSError:
            return
