"""What a killed nginx worker leaves of bodies that were on their way: files that no process has open any more."""

import os
import time
from contextlib import suppress
from pathlib import Path

_STILL_FOR = 60.0


def drop_dead_bodies(folder: Path, session: int) -> int:
    """Delete files that nobody of nginx' session has open, and that have not changed for a minute.

    nginx keeps a body's file open until its request ends, so this does not depend on how slowly a client sends.

    Args:
        folder: nginx' client_body_temp_path, used by this nginx alone.
        session: whose processes may have them open.

    Returns:
        How many were deleted; 0 if it cannot be known which are open.
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
    """What the processes of a session have open.

    Raises:
        OSError: one of them cannot be looked into.
    """
    found: set[Path] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
            if os.getsid(int(entry)) == session:
                for descriptor in os.listdir(f"/proc/{entry}/fd"):
                    with suppress(FileNotFoundError):  # it was just closed
                        found.add(Path(os.readlink(f"/proc/{entry}/fd/{descriptor}")))
    return found
