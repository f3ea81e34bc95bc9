"""The contract between a kind of background job and the runner.

A row of the table ``job`` means that there is work for a subject (an upload, a blob, a transfer's item). It is inserted
in the transaction that causes the work. A worker takes a lease on the row, calls `Job.run`, and deletes the row if the
result is `Outcome.DONE`. The queue only tells a worker which row to look at next. If a message is lost or delivered
twice, only the time of the work changes.

A run is one segment: about `SEGMENT_BYTES` or `SEGMENT_SECONDS` of work at most. Then it saves its position and returns
`Outcome.MORE`. A run is idempotent: if it is killed after its last commit, the next run finds that everything is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from api.core.errors import SluiceError
from api.db.pool import Statements

SEGMENT_BYTES: Final = 1024**3
SEGMENT_SECONDS: Final = 300.0
"""Rough limits of one run. They stay far below the queues' time limits (10 and 30 minutes by default)."""


class GiveUp(SluiceError):
    """Another try cannot succeed: the job becomes dead immediately.

    Args:
        reason: UPPER_SNAKE, for programs.
        message: one line for people, without secrets.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Busy(SluiceError):
    """Another process works on it: the job is tried again in a few seconds, without counting a failure."""


class LeaseLost(SluiceError):
    """Another process has taken over the job: this run must not write anything more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: done (the row is deleted), more (run again immediately), later (run again after ``seconds``).
    """

    name: str
    seconds: float = 0.0

    DONE: ClassVar[Outcome]
    MORE: ClassVar[Outcome]

    @classmethod
    def later(cls, seconds: float) -> Outcome:
        """Run again, after ``seconds`` at the earliest."""
        return cls("later", seconds)


Outcome.DONE = Outcome("done")
Outcome.MORE = Outcome("more")


class Lease(Protocol):
    """A run's lease on its row.

    Attributes:
        place: the position where the last segment stopped; 0 at first.
        memo: data that the last segment saved for this one, at most 255 bytes.
        moved: bytes that this run has read or written. The job itself counts them, for the log.
    """

    place: int
    memo: bytes | None
    moved: int

    @property
    def stopping(self) -> bool:
        """The worker was told to stop, or the segment's time has passed: save, and return MORE soon."""

    @property
    def leaving(self) -> bool:
        """The worker was told to stop: give up work that cannot be split into segments. It starts again later."""

    def save(self, place: int, memo: bytes | None = None) -> None:
        """Saves the position, extends the lease, and resets the count of failures. Raises LeaseLost."""

    def keep(self) -> None:
        """Extends the lease if it is due; cheap to call often. Raises LeaseLost."""

    def end(self, tx: Statements) -> None:
        """Deletes the row in the same transaction as the job's effect. Raises LeaseLost.

        Calling it is optional: the runner deletes the row of a job that is done.
        """


class Job(Protocol):
    """A kind of background work.

    Attributes:
        kind: its name in rows, messages and logs; at most 16 characters of [a-z_].
    """

    @property
    def kind(self) -> str: ...

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """Does one segment of the work.

        Raises:
            StorageError, DatabaseUnavailable: the failure is counted; the job is tried again after a growing pause.
            GiveUp, Busy, LeaseLost: see there. Any other exception is a bug: it is logged, counted, and tried again.
        """
