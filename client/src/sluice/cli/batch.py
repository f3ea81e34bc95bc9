"""Transfers many files: small ones concurrently, large ones one after another in parallel to those."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sluice.errors import Cancelled, LocalError, NetworkError, SignInNeeded, SluiceError, SomeFailed


@dataclass(frozen=True)
class Task:
    """One file to move.

    Attributes:
        large: of several parts: it keeps the network busy by itself.
        counted: False if the task holds several files: then ``run`` counts them (`Batch.attempt`, `Batch.went_well`).
    """

    name: str
    large: bool
    run: Callable[[], None]
    counted: bool = True


class Batch:
    """Runs tasks.

    If one file fails, the error is reported and counted, and the other files continue. An error that concerns all files
    (no session, the server is away, the disk is full) ends the batch.

    Args:
        on_failure: called for each file that failed.
    """

    def __init__(self, parallel: int, on_failure: Callable[[str, SluiceError], None]) -> None:
        self._parallel = parallel
        self._on_failure = on_failure
        self._small: queue.Queue[Task | None] = queue.Queue(parallel * 4)
        self._large: queue.Queue[Task | None] = queue.Queue()
        self._fatal: BaseException | None = None
        self.failures: list[SluiceError] = []
        self.done = 0
        self._counting = threading.Lock()

    def run(self, tasks: Iterable[Task]) -> None:
        """Runs them all. Raises what ends the whole."""
        small = [threading.Thread(target=self._work, args=(self._small,), daemon=True) for _ in range(self._parallel)]
        large = threading.Thread(target=self._work, args=(self._large,), daemon=True)
        for thread in (*small, large):
            thread.start()
        try:
            for task in tasks:
                if self._fatal is not None:
                    break
                (self._large if task.large else self._small).put(task)
            for _ in small:
                self._small.put(None)
            self._large.put(None)
            for thread in (*small, large):
                thread.join()
        except BaseException as ex:  # Ctrl-C comes to the thread that waits
            self._fatal = self._fatal or ex
            raise
        if self._fatal is not None:
            raise self._fatal

    def _work(self, tasks: queue.Queue[Task | None]) -> None:
        while (task := tasks.get()) is not None:
            self.attempt(task)

    def attempt(self, task: Task) -> None:
        """Runs a task. If the batch has ended, the task is only dropped, so that the producer does not block."""
        if self._fatal is not None:
            return
        try:
            task.run()
            if task.counted:
                self.went_well()
        except (SignInNeeded, NetworkError, Cancelled) as ex:
            self._fatal = self._fatal or ex
        except SluiceError as ex:
            if isinstance(ex, LocalError) and ex.exit_code == 11:
                self._fatal = self._fatal or ex
                return
            self.fail(task.name, ex)
        except BaseException as ex:
            self._fatal = self._fatal or ex

    def fail(self, name: str, ex: SluiceError) -> None:
        """One file failed."""
        with self._counting:
            self.failures.append(ex)
        self._on_failure(name, ex)

    def end(self) -> None:
        """Raises SomeFailed if some did."""
        if self.failures:
            raise SomeFailed(f"{len(self.failures)} of {len(self.failures) + self.done} files failed")

    def went_well(self) -> None:
        """One more file is done."""
        with self._counting:
            self.done += 1
