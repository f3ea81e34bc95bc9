"""What a job is: the contract between a kind of background work and whatever runs it.

A row of the table ``job`` says that something is to do for a subject (an upload, a blob, a transfer's item). It is
inserted in the transaction that causes the work. A worker takes a lease on the row, calls `Job.run`, and deletes the
row when the answer is `Outcome.DONE`. The queue only says which row to look at next: a message that is lost, or comes
twice, changes nothing but the moment.

A run is a segment: at most about `SEGMENT_BYTES` or `SEGMENT_SECONDS` of work, then it saves its place and answers
`Outcome.MORE`. It is idempotent: killed after its last commit it runs again and finds everything done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from api.core.errors import SluiceError
from api.db.pool import Statements

SEGMENT_BYTES: Final = 1024**3
SEGMENT_SECONDS: Final = 300.0
"""What one run does at most, roughly: no time limit of a queue (10 and 30 minutes by default) is ever near."""


class GiveUp(SluiceError):
    """Trying again helps nobody: the job is dead at once.

    Args:
        reason: UPPER_SNAKE, what programs compare.
        message: one line for people, without secrets.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Busy(SluiceError):
    """Somebody else is at it: tried again in a few seconds, and not counted as a failure."""


class LeaseLost(SluiceError):
    """Another process has taken the job over; nothing more may be written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: done (the row is deleted), more (again at once), later (again after ``seconds``).
    """

    name: str
    seconds: float = 0.0

    DONE: ClassVar[Outcome]
    MORE: ClassVar[Outcome]

    @classmethod
    def later(cls, seconds: float) -> Outcome:
        """Again, not before so many seconds have passed."""
        return cls("later", seconds)


Outcome.DONE = Outcome("done")
Outcome.MORE = Outcome("more")


class Lease(Protocol):
    """What a run holds of its row.

    Attributes:
        place: where the last segment stopped, 0 at first.
        memo: what the last segment left for this one, at most 255 bytes.
        moved: bytes that the run has read or written so far; it counts them itself, for the log.
    """

    place: int
    memo: bytes | None
    moved: int

    @property
    def stopping(self) -> bool:
        """The worker was told to stop, or the segment's time is over: save, and answer MORE soon."""

    @property
    def leaving(self) -> bool:
        """The worker was told to stop: work that cannot be cut into segments is given up, to be begun again."""

    def save(self, place: int, memo: bytes | None = None) -> None:
        """Keeps the place and extends the lease; failures before are forgotten. Raises LeaseLost."""

    def keep(self) -> None:
        """Extends the lease when it is time to; cheap to call often. Raises LeaseLost."""

    def end(self, tx: Statements) -> None:
        """Deletes the row in the transaction that has the job's effect, so that both happen or none; raises LeaseLost.

        A job need not call it: the runner deletes the row of a job that is done.
        """


class Job(Protocol):
    """A kind of background work.

    Attributes:
        kind: its name in rows, messages and logs; at most 16 of [a-z_].
    """

    @property
    def kind(self) -> str: ...

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """Does a segment of the work.

        Raises:
            StorageError, DatabaseUnavailable: counted, and tried again later, each time after a longer pause.
            GiveUp, Busy, LeaseLost: see there. Anything else is a fault of ours: logged, counted, tried again.
        """
