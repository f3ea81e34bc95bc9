"""The progress that a transfer reports while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """How far one file is.

    Attributes:
        name: the file's.
        size: its bytes.
        hashed: bytes that were hashed.
        moved: bytes that were sent, or received.
        kept: bytes that an earlier run had moved already.
        stage: hashing, sending, receiving, finishing, or done.
        instant: the server had the content: nothing was sent.
        waiting: the reason why it waits now, in a few words; empty if it does not wait.
    """

    name: str
    size: int
    hashed: int = 0
    moved: int = 0
    kept: int = 0
    stage: str = "hashing"
    instant: bool = False
    waiting: str = ""


OnProgress = Callable[[Progress], None]
"""Called from the worker threads, by one thread at a time for one file; it should be quick."""


class Reporter:
    """Adds up what threads report of one file, and passes it on."""

    def __init__(self, name: str, size: int, on_progress: OnProgress | None) -> None:
        self._progress = Progress(name, size)
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def hashed(self, count: int) -> None:
        with self._lock:
            self._tell(replace(self._progress, hashed=self._progress.hashed + count))

    def moved(self, count: int) -> None:
        """Bytes went over the wire; a negative count takes back what was cut off."""
        with self._lock:
            self._tell(replace(self._progress, moved=self._progress.moved + count, waiting=""))

    def kept(self, count: int) -> None:
        with self._lock:
            self._tell(replace(self._progress, kept=self._progress.kept + count))

    def stage(self, stage: str, *, instant: bool = False) -> None:
        with self._lock:
            self._tell(replace(self._progress, stage=stage, instant=instant, waiting=""))

    def again(self) -> None:
        """Resets the progress: the transfer starts again."""
        with self._lock:
            self._tell(Progress(self._progress.name, self._progress.size))

    def waiting(self, text: str) -> None:
        with self._lock:
            self._tell(replace(self._progress, waiting=text))

    @property
    def now(self) -> Progress:
        return self._progress

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)
