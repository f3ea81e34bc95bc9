"""Where the files of one stack are: the layout of the data folder, and the checkout."""

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scripts.stack.process import give_to_server, server_uid

CODE = Path(__file__).resolve().parents[2]

# sockaddr_un.sun_path has 108 bytes, including the final zero (unix(7)).
SOCKET_PATH_MAX = 107
_LONGEST_SOCKET = "/run/api.sock.internal"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made there, and checked
_MEMORY_ROOM = 32 * 1024**2  # enough for the files there, with a margin


@dataclass(frozen=True)
class Paths:
    """The folders of one stack.

    Attributes:
        data: the data folder (`--data`, ./var by default).
        run: sockets, pids and the lock; outside `data` if its path is too long for a socket.
    """

    data: Path
    run: Path

    @classmethod
    def of(cls, data: Path) -> "Paths":
        """The layout below `data`. Sockets move to /tmp if their paths would be too long."""
        data = data.resolve()
        if len(os.fsencode(data)) + len(_LONGEST_SOCKET) > SOCKET_PATH_MAX:
            return cls(data, _short_run_folder(data))
        return cls(data, data / "run")

    @cached_property
    def memory(self) -> Path:
        """A private folder in memory, for files that must be writable on a full disk; `run` if there is none.

        It may vanish while the stack runs (systemd-logind's RemoveIPC), so call `make_memory` before each start
        of a server.
        """
        folder = _SHARED_MEMORY / _private_name(self.data)
        try:
            if shutil.disk_usage(_SHARED_MEMORY).free < _MEMORY_ROOM:
                return self.run
            _make_private(folder)
        except OSError:
            return self.run
        return folder

    @property
    def in_memory(self) -> bool:
        """Whether `memory` is a folder in memory."""
        return self.memory != self.run

    def make_memory(self) -> None:
        """Make `memory` again if it has vanished."""
        if self.in_memory:
            _make_private(self.memory)

    def free_memory(self) -> None:
        """Remove the folder in memory after all servers have ended. As root, also remove that of the servers' user."""
        digest = _private_name(self.data).rpartition("-")[2]
        for folder in _SHARED_MEMORY.glob(f"sluice-*-{digest}"):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def pids(self) -> Path:
        return self.run / "pids"

    @property
    def log(self) -> Path:
        return self.data / "log"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def storage(self) -> Path:
        return self.data / "storage"

    @property
    def nginx(self) -> Path:
        return self.data / "nginx"

    def make(self) -> None:
        """Make the missing folders, with access for their owner only."""
        for folder in (self.data, self.run, self.pids, self.log, self.secrets, self.storage, self.nginx):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _private_name(data: Path) -> str:
    """A path that depends on the user and the data folder only, so every start finds it."""
    return f"sluice-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"


def _short_run_folder(data: Path) -> Path:
    """A private folder under /tmp.

    Raises:
        PermissionError: another user made a folder of that name.
    """
    folder = Path("/tmp") / _private_name(data)  # noqa: S108 - checked below
    _make_private(folder)
    return folder


def _make_private(folder: Path) -> None:
    """Make a private folder inside a folder that every user can write to.

    Raises:
        PermissionError: another user made a folder of that name.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid not in (os.geteuid(), server_uid())
            or status.st_mode & 0o077
        ):
            raise PermissionError(f"{folder} is not a private folder of this user") from None
    give_to_server(folder)
