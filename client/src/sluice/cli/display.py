"""Progress on a terminal: a bar for each large file on its way, and one for all.

rich is imported only if bars are drawn. Otherwise this saves a fifth of the command's start time.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from sluice.cli.streams import one_line
from sluice.digest import SMALLEST_PART
from sluice.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_STAGES = {"hashing": "hashing", "sending": "", "receiving": "", "finishing": "finishing", "done": ""}
_NAME_WIDTH = 32


class Display:
    """See the module's docstring. If stderr is no terminal, it does nothing.

    Args:
        many: whether a line for all files together is worth it.
    """

    def __init__(self, *, off: bool, many: bool) -> None:
        self._bars = None if off or not sys.stderr.isatty() else _bars()
        self._tasks: dict[int, TaskID] = {}
        self._last: dict[int, int] = {}
        self._lock = threading.Lock()
        self._total = self._bars.add_task("total", total=0, note="") if many and self._bars else None
        self._known = 0
        self._count = 0

    def __enter__(self) -> Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def expect(self, size: int) -> None:
        """One more file of that size is to come."""
        if self._bars is None or self._total is None:
            return
        with self._lock:
            self._known += size
            self._bars.update(self._total, total=self._known)

    def on_progress(self, key: int, progress: Progress) -> None:
        """Shows the progress that a transfer reports."""
        if self._bars is None:
            return
        done = progress.moved + progress.kept
        if progress.stage == "done":
            done = progress.size
        with self._lock:
            if self._total is not None:
                self._bars.update(self._total, advance=done - self._last.get(key, 0))
                self._last[key] = done
            if progress.size > SMALLEST_PART or self._total is None:
                self._show(self._bars, key, progress, done)
            if progress.stage == "done":
                self._end(self._bars, key)

    def _show(self, bars: Bars, key: int, progress: Progress, done: int) -> None:
        if key not in self._tasks:
            name = one_line(progress.name)
            name = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
            self._tasks[key] = bars.add_task(name, total=progress.size, note="")
        shown = progress.hashed if progress.stage == "hashing" else done
        note = progress.waiting or _STAGES[progress.stage]
        bars.update(self._tasks[key], completed=shown, note=one_line(note)[:60])

    def _end(self, bars: Bars, key: int) -> None:
        if key in self._tasks:
            bars.remove_task(self._tasks.pop(key))
        self._last.pop(key, None)
        self._count += 1
        if self._total is not None:
            bars.update(self._total, note=f"{self._count} files")


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=None),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # rich sends stdout to the stream of the bars: right if both are the terminal, wrong for a file or a pipe
        redirect_stdout=sys.stdout.isatty(),
    )
