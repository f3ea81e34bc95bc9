"""Where everything of one stack lies: the data folder's layout, and the checkout."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]

# sockaddr_un.sun_path has 108 bytes with the closing zero (unix(7)).
SOCKET_PATH_MAX = 107
_LONGEST_SOCKET = "/run/api.sock.internal"


@dataclass(frozen=True)
class Paths:
    """The folders of one stack.

    Attributes:
        data: the data folder (`--data`, ./var by default).
        run: sockets, pids and the lock; elsewhere when the data folder's path is too long for a socket.
    """

    data: Path
    run: Path

    @classmethod
    def of(cls, data: Path) -> "Paths":
        """The layout below `data`, whose sockets move to /tmp when their paths would be too long."""
        data = data.resolve()
        if len(os.fsencode(data)) + len(_LONGEST_SOCKET) > SOCKET_PATH_MAX:
            return cls(data, _short_run_folder(data))
        return cls(data, data / "run")

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
        """Make the folders that are missing, for their owner only."""
        for folder in (self.data, self.run, self.pids, self.log, self.secrets, self.storage, self.nginx):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _short_run_folder(data: Path) -> Path:
    """A private folder under /tmp, the same for the same user and data folder at every start.

    Raises:
        PermissionError: somebody else made a folder of that name.
    """
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    folder = Path("/tmp") / f"sluice-{os.geteuid()}-{name}"  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of ours")
    return folder
