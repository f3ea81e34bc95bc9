"""The files that the server has, so that a second `put` of a folder stores nothing twice."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sluice.models import File

if TYPE_CHECKING:
    from sluice.client import Client


class Known:
    """See the module's docstring.

    Args:
        whole: all files are listed once, at the first question; else each name is asked for.
    """

    def __init__(self, client: Client, *, whole: bool) -> None:
        self._client = client
        self._whole = whole
        self._listed: dict[str, list[File]] | None = None
        self._lock = threading.Lock()

    def of(self, name: str) -> list[File]:
        """The files of a name."""
        if not self._whole:
            return [file for file in self._client.files(name) if file.name == name]
        with self._lock:
            if self._listed is None:
                self._listed = {}
                for file in self._client.files():
                    self._listed.setdefault(file.name, []).append(file)
        return self._listed.get(name, [])
