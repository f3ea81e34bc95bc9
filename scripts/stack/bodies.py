"""Deletes the body files that a killed nginx worker left: half-received bodies that no process has open."""

import os
import time
from contextlib import suppress
from pathlib import Path

_STILL_FOR = 60.0


def drop_dead_bodies(folder: Path, session: int) -> int:
    """Delete files that no process of nginx's session has open, and that have not changed for a minute.

    nginx keeps a body's file open until its request ends, so a slow client's body is never deleted.

    Args:
        folder: nginx's client_body_temp_path, used by this nginx alone.
        session: the session id of nginx; only its processes can have these files open.

    Returns:
        Number of deleted files; 0 if it cannot be known which files are open.
    """
    before = time.time() - _STILL_FOR
    try:
        still = {path for path in folder.iterdir() if path.stat().st_mtime < before}
        if still:
            still -= _open_files(session)
    except OSError:
        return 0
    for path in still:
        with suppress(OSError):
            path.unlink()
    return len(still)


def _open_files(session: int) -> set[Path]:
    """The files that the processes of a session have open.

    Raises:
        OSError: the files of one process could not be listed.
    """
    found: set[Path] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(ProcessLookupError, FileNotFoundError):  # the process has just ended
            if os.getsid(int(entry)) == session:
                for descriptor in os.listdir(f"/proc/{entry}/fd"):
                    with suppress(FileNotFoundError):  # the file was just closed
                        found.add(Path(os.readlink(f"/proc/{entry}/fd/{descriptor}")))
    return found
