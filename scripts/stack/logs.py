"""The logs: shown while the stack runs, quoted when a server fails, and capped in size."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LOG_MAX = 100 * 1024**2


def follow(logs: Iterable[Path]) -> "subprocess.Popen[bytes]":
    """Show lines as they are added to the logs, until this process ends."""
    paths = list(logs)
    for path in paths:
        with suppress(OSError):  # if the disk is full, tail waits for the file
            path.touch()
    command = ["setpriv", "--pdeathsig", "KILL", "--", "tail", "-q", "-n", "0", "-F", *map(str, paths)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def last_lines(log: Path, count: int = 10) -> list[str]:
    """The last lines of a log. Reads at most its last 16 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def cap(folder: Path) -> None:
    """Copy and empty each log that is larger than the limit. The previous copy is replaced.

    The servers keep their log files open for appending, so a log cannot be renamed. Lines written between the
    copy and the truncation are lost: with 100 MiB kept, this is acceptable, and no server needs a signal. If the
    disk has no space for the copy, the log is truncated without one.
    """
    for log in folder.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > LOG_MAX:
                copy = log.with_suffix(".log.1")
                try:
                    shutil.copyfile(log, copy)
                except OSError:
                    copy.unlink(missing_ok=True)
                os.truncate(log, 0)
