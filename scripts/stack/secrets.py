"""What a stack must keep to itself: made at the first start, kept for good, for their owner's eyes only."""

import os
import secrets
from pathlib import Path


class Secrets:
    """The files of the secrets' folder.

    Attributes:
        token_keys: keys that sign tokens, a line each, oldest first.
        edge_key: what nginx shows to the API's internal calls.
        admin: the first account's password until it was shown, then empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token_keys = folder / "token_keys"
        self.edge_key = folder / "edge_key"
        self.admin = folder / "admin"

    def make(self) -> None:
        """Make what is missing."""
        for path in (self.token_keys, self.edge_key):
            if not path.exists():
                write_secret(path, secrets.token_hex(32) + "\n")
        if not self.admin.exists():
            write_secret(self.admin, secrets.token_urlsafe(15) + "\n")

    def admin_password(self) -> str | None:
        """The first account's password, while nobody has seen it."""
        return self.admin.read_text().strip() or None

    def forget_admin_password(self) -> None:
        write_secret(self.admin, "")


def write_secret(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone from the first byte on."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)
