"""The logs: shown while the stack runs, quoted when a server fails, and kept from filling the disk."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LOG_MAX = 100 * 1024**2


def follow(logs: Iterable[Path]) -> "subprocess.Popen[bytes]":
    """Show what is added to the logs, until we end."""
    paths = list(logs)
    for path in paths:
        with suppress(OSError):  # a full disk: tail waits for it
            path.touch()
    command = ["setpriv", "--pdeathsig", "KILL", "--", "tail", "-q", "-n", "0", "-F", *map(str, paths)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def last_lines(log: Path, count: int = 10) -> list[str]:
    """The end of a log; at most its last 16 KiB are read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def cap(folder: Path) -> None:
    """Copy and empty each log that has grown too large; the one before it goes.

    The servers append to files that they keep open, so a log cannot be moved away from under them. Lines
    written between the copy and the cut are lost: with 100 MiB kept, that is a fair price for no signals. On a disk
    without room for the copy, the log is cut all the same.
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
