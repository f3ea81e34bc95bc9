"""Measurements: CPU seconds of processes, pairs of samples, and the rows made of them."""

from __future__ import annotations

import mmap
import os
import statistics
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class LeftOut(Exception):
    """A row cannot be measured here; the message says why."""


def failure(ex: BaseException) -> str:
    """The error, in one line; the traceback goes to the terminal."""
    traceback.print_exception(ex)
    return " ".join(f"it failed: {type(ex).__name__} {ex}".split())[:300]


@contextmanager
def kept(what: str, failures: list[str]) -> Iterator[None]:
    """Turns an exception in the block into a line of `failures`; earlier measurements are kept."""
    try:
        yield
    except (Exception, SystemExit) as ex:
        failures.append(f"**{what} is left out**: {failure(ex)}")


@dataclass(frozen=True)
class Spread:
    """The median of some figures, with the smallest and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        speed: units of work per second; more is better.
        cpu: CPU seconds of the server's processes per unit of work.
        peak: peak memory of a program in bytes, if measured.
        shares: `cpu` split by server, if measured.
    """

    speed: float
    cpu: float
    peak: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours, peer: speed of Sluice and of the peer, in `unit`.
        ratio: Sluice's speed divided by the peer's, for each pair of neighbouring samples.
        cpu_ours, cpu_peer: medians, in `cpu_unit`; cpu_ratio like ratio.
        limit: the required value, as text; `holds` says whether it was met.
        when: date of the measurement and number of rounds.
    """

    name: str
    what: str
    unit: str
    ours: Spread
    peer: Spread | None = None
    ratio: Spread | None = None
    cpu_unit: str = ""
    cpu_ours: float | None = None
    cpu_peer: float | None = None
    cpu_ratio: Spread | None = None
    limit: str = ""
    holds: bool | None = None
    notes: str = ""
    when: str = ""


@dataclass(frozen=True)
class CallRow:
    """The database statements of one call.

    Attributes:
        count: statements, BEGIN and COMMIT included.
        kinds: number of statements of each kind, named like MariaDB's Com_ counters.
    """

    name: str
    call: str
    count: int
    kinds: dict[str, int] = field(default_factory=dict)
    limit: int | None = None

    @property
    def holds(self) -> bool | None:
        return None if self.limit is None else self.count <= self.limit


@dataclass(frozen=True)
class Pairs:
    """Samples of Sluice and of the peer, taken in turns."""

    ours: list[Sample]
    peer: list[Sample]

    @classmethod
    def take(cls, rounds: int, ours: Callable[[], Sample], peer: Callable[[], Sample]) -> Pairs:
        """A B, then B A, …: a drift of the machine favours neither. The first pair warms up and is dropped."""
        ours()
        peer()
        pairs = cls([], [])
        for number in range(rounds):
            turns = [(pairs.ours, ours), (pairs.peer, peer)]
            for samples, measure in turns if number % 2 == 0 else reversed(turns):
                samples.append(measure())
        return pairs

    @classmethod
    def in_turns(cls, rounds: int, arms: Mapping[str, Callable[[], Sample]]) -> dict[str, Pairs]:
        """The first arm is Sluice; it is paired with each of the others, round by round.

        The order rotates every round. The first sample of each warms up and is dropped.
        """
        found: dict[str, list[Sample]] = {name: [] for name in arms}
        names = list(arms)
        ours = names[0]
        for number in range(rounds + 1):
            for name in names:
                sample = arms[name]()
                if number:
                    found[name].append(sample)
            names.append(names.pop(0))
        return {name: cls(found[ours], samples) for name, samples in found.items() if name != ours}

    @property
    def ratio(self) -> Spread:
        return Spread.of([a.speed / b.speed for a, b in zip(self.ours, self.peer, strict=True)])

    @property
    def cpu_ratio(self) -> Spread | None:
        """The ratio of CPU; None if a run was too short for a clock tick."""
        if any(sample.cpu == 0 for sample in self.peer):
            return None
        return Spread.of([a.cpu / b.cpu for a, b in zip(self.ours, self.peer, strict=True)])

    def row(self, name: str, what: str, unit: str, cpu_unit: str, cpu_scale: float) -> Row:
        """The row without its limit; `cpu_scale` turns seconds per unit of work into `cpu_unit`."""
        return Row(
            name=name,
            what=what,
            unit=unit,
            ours=Spread.of([sample.speed for sample in self.ours]),
            peer=Spread.of([sample.speed for sample in self.peer]),
            ratio=self.ratio,
            cpu_unit=cpu_unit,
            cpu_ours=cpu_scale * statistics.median(sample.cpu for sample in self.ours),
            cpu_peer=cpu_scale * statistics.median(sample.cpu for sample in self.peer),
            cpu_ratio=self.cpu_ratio,
        )


def family(pid: int) -> list[int]:
    """A process and its children, for example a master and its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes (proc(5), /proc/pid/stat, fields 14 and 15)."""
    total = 0
    for pid in pids:
        # the command's name, in brackets, may contain spaces
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (field 2 of /proc/pid/statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Growth:
    """Bytes by which processes grew together: the sum of each one's peak minus its start."""

    total: int = 0


@contextmanager
def memory_growth(pids: Sequence[int], every: float = 0.02) -> Iterator[Growth]:
    """Samples the memory of processes while the block runs."""
    begin = {pid: resident_bytes(pid) for pid in pids}
    peak, growth, done = dict(begin), Growth(), threading.Event()

    def sample() -> None:
        while True:
            for pid in pids:
                peak[pid] = max(peak[pid], resident_bytes(pid))
            if done.wait(every):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield growth
    finally:
        done.set()
        thread.join()
        growth.total = sum(peak[pid] - begin[pid] for pid in pids)


def settle(size: int) -> None:
    """Gives both sides of a comparison the same state of disk and memory.

    Earlier writes are synced first. A virtual machine's host takes free pages back, and the first use of such a
    page costs more than copying it. So `size` bytes are touched and freed.
    """
    os.sync()
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
