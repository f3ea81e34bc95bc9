"""A stack's secrets: made at the first start, kept for later starts, readable by their owner only."""

import os
import secrets
from pathlib import Path


class Secrets:
    """The files of the folder of secrets.

    Attributes:
        token_keys: keys that sign tokens, one per line, oldest first.
        edge_key: the key that nginx sends with internal calls to the API.
        admin: the first account's password until it has been shown, then empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token_keys = folder / "token_keys"
        self.edge_key = folder / "edge_key"
        self.admin = folder / "admin"

    def make(self) -> None:
        """Make the missing secrets."""
        for path in (self.token_keys, self.edge_key):
            if not path.exists():
                write_secret(path, secrets.token_hex(32) + "\n")
        if not self.admin.exists():
            write_secret(self.admin, secrets.token_urlsafe(15) + "\n")

    def admin_password(self) -> str | None:
        """The first account's password; None after it has been shown."""
        return self.admin.read_text().strip() or None

    def forget_admin_password(self) -> None:
        write_secret(self.admin, "")


def write_secret(path: Path, text: str) -> None:
    """Write a file atomically. Only its owner can read it, at any moment."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)
