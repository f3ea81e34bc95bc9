"""One run from its seed to its report."""

from __future__ import annotations

import statistics
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.client import Client, await_end
from tests.chaos.conductor import Conductor
from tests.chaos.content import Content
from tests.chaos.ledger import FINDINGS, Ledger
from tests.chaos.schedule import draw
from tests.chaos.stand import Stand
from tests.chaos.uploading import Bell
from tests.chaos.verdict import Verdict

CLIENTS: Final = 6

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        findings: (kind, text) of each; empty in a good run.
        counts: number by name.
        report: the summary, as text.
    """

    findings: list[tuple[str, str]]
    counts: Counter[str]
    report: str


def run(
    data: Path,
    storage: str,
    seed: int,
    seconds: float,
    say: Say,
    clients: int = CLIENTS,
    only: tuple[str, ...] = (),
    meddle: Callable[[Stand, Ledger], None] | None = None,
) -> Result:
    """Starts a stack, injects faults, and checks the result.

    Args:
        data: an empty folder that the servers' user may enter.
        storage: "local" or "ceph".
        seconds: duration of the faults, without start and verdict.
        say: called with each line of progress.
        only: targets; no faults for others.
        meddle: breaks data on purpose after the population has ended: the verdict has to find it.
    """
    schedule = draw(seed, storage, seconds, only)
    say(f"seed {seed}, storage {storage}, {seconds:.0f} s, {len(schedule)} faults:")
    for fault in schedule:
        say(f"  {fault}")
    stand = Stand(data, storage)
    try:
        ledger, bell, over, known = Ledger(say), Bell(), threading.Event(), list[Content]()
        conductor = Conductor(stand, ledger, bell, say)
        population = [Client(stand.address, ledger, bell, seed, n, known, over) for n in range(clients)]
        for client in population:
            client.start()
        played = conductor.play(schedule, seconds)
        over.set()
        for left in await_end(population, 90):
            ledger.find("stuck", f"{left.name} does not end")
        if stand.runs:
            if meddle:
                meddle(stand, ledger)
            Verdict(stand, ledger, say).reach()
            stand.stop()
        else:
            ledger.find("stuck", "scripts/run has ended")
        return Result(ledger.findings, ledger.counts, summary(seed, storage, played, ledger, conductor))
    finally:
        stand.close()


def summary(seed: int, storage: str, played: int, ledger: Ledger, conductor: Conductor) -> str:
    """The run as a table."""
    counts = ledger.counts
    lines = [f"seed {seed}, storage {storage}: {played} faults, {len(ledger.accounts)} accounts"]
    lines += [f"  {name:<14}{counts[name]:>7}" for name in ("requests", "no answer", "repeats")]
    lines += [
        f"  {name:<14}{counts[name]:>7}" for name in ("acknowledged", "in doubt", "in doubt, there", "whole", "objects")
    ]
    lines += [f"  {kind:<14}{ledger.found(kind):>7}" for kind in FINDINGS]
    lines.append("  recovery, s                n  median     max")
    for name, times in sorted(conductor.recoveries.items()):
        lines.append(f"  {name:<24}{len(times):>4}{statistics.median(times):>8.1f}{max(times):>8.1f}")
    rest = [f"{name} {count}" for name, count in sorted(counts.items()) if name[:3].isdecimal() or " " in name]
    return "\n".join([*lines, "  " + ", ".join(rest)])
