"""The faults, their targets and times: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["kill", "stop", "restart", "empty"]

EVERYTHING: Final = "everything"
LOCAL_TARGETS: Final = {
    "nginx": 2,
    "nginx worker": 2,
    "api": 3,
    "api worker": 3,
    "worker": 3,
    "mariadb": 3,
    "redis": 3,
    EVERYTHING: 1,
}
"""The weight of each process. Masters and their children are separate targets."""

CEPH_TARGETS: Final = {"radosgw": 14, "ceph-osd": 2, "ceph-mon": 1}
KINDS: Final[dict[Kind, int]] = {"kill": 6, "stop": 3, "restart": 2}

FIRST_AFTER: Final = 3.0
PAUSES: Final = (1.5, 5.0)  # seconds from one fault to the next
STOPS: Final = (0.3, 8.0)  # seconds that a process is stopped
DELAYS: Final = (0.001, 0.040)  # seconds from the requests of completes to the kill aimed at them


@dataclass(frozen=True)
class Fault:
    """One line of the schedule.

    Attributes:
        at: seconds after the start of the run; later if earlier recoveries took longer.
        seconds: how long a stopped process stays stopped.
        delay: seconds after completes of multipart uploads were sent; None: at `at`, independent of requests.
        pick: selects one of several equal processes, modulo their number.
    """

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    delay: float | None = None
    pick: int = 0

    @property
    def service(self) -> str:
        """The server that the process belongs to."""
        return self.target.partition(" ")[0]

    def __str__(self) -> str:
        how = f" for {self.seconds:.1f} s" if self.kind == "stop" else ""
        aim = "" if self.delay is None else f", {self.delay * 1000:.0f} ms after completes"
        return f"{self.at:7.1f} s  {self.kind} {self.target}{how}{aim}"


def targets(storage: str) -> dict[str, int]:
    """The possible targets with a storage, and their weights."""
    return {**LOCAL_TARGETS, **(CEPH_TARGETS if storage == "ceph" else {})}


def draw(seed: int, storage: str, seconds: float, only: Iterable[str] = ()) -> list[Fault]:
    """The schedule of a run; it depends only on the arguments.

    Args:
        storage: "local" or "ceph".
        seconds: duration of the run.
        only: draws only these targets.
    """
    noise = random.Random(f"{seed} {storage}")
    weights = {name: weight for name, weight in targets(storage).items() if not only or name in only}
    schedule: list[Fault] = []
    at = FIRST_AFTER
    while at < seconds:
        schedule.append(_draw_one(noise, weights, round(at, 1)))
        at += noise.uniform(*PAUSES)
    return schedule


def _draw_one(noise: random.Random, weights: dict[str, int], at: float) -> Fault:
    (target,) = noise.choices(list(weights), list(weights.values()))
    (kind,) = noise.choices(list(KINDS), list(KINDS.values()))
    pick, seconds, delay = noise.randrange(16), round(noise.uniform(*STOPS), 1), round(noise.uniform(*DELAYS), 3)
    if target == "redis" and noise.random() < 0.5:
        return Fault(at, "empty", target)
    if target == EVERYTHING:
        return Fault(at, "kill", target, delay=delay)
    if kind == "stop":
        return Fault(at, kind, target, seconds=seconds, pick=pick)
    aimed = kind == "kill" and noise.random() < (0.8 if target == "radosgw" else 0.3)
    return Fault(at, kind, target, delay=delay if aimed else None, pick=pick)
