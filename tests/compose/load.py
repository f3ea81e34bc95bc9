"""A steady load of uploads, downloads and calls without retries: every failure is recorded."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.e2e.client import Client
from tests.e2e.leaks import Secrets
from tests.e2e.sources import Source

_PAUSE = 0.05


class Load:
    """Runs inside a `with` block.

    Attributes:
        done: number of successes by name.
        failures: every failure.
    """

    def __init__(self, address: str, secrets: Secrets, folder: Path) -> None:
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._folder = folder
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._client = Client(address, secrets)

    def __enter__(self) -> Load:
        client = self._client.sign_up()
        path = self._folder / "kept"
        path.write_bytes(os.urandom(3_000_000))
        kept = Source(path, 3_000_000)
        link = client.link(client.upload(kept))
        for number in range(2):
            user = client.another_machine()
            self._start("upload", lambda user=user, number=number: self._upload(user, number))
        self._start("download", lambda: self._download(client, link, kept))
        other = client.another_machine()
        self._start("list", lambda: other.want(200, "GET", "/files"))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self._client.close()

    def _start(self, name: str, act: object) -> None:
        thread = threading.Thread(target=self._repeat, args=(name, act), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _repeat(self, name: str, act: object) -> None:
        while not self._stop.is_set():
            try:
                act()  # type: ignore[operator]
                self.done[name] += 1
            except (AssertionError, httpx.HTTPError, OSError) as ex:
                self.failures.append(f"{time.strftime('%X')} {name}: {type(ex).__name__} {ex}"[:500])
            self._stop.wait(_PAUSE)

    def _upload(self, user: Client, number: int) -> None:
        """Two parts that no other user has: every POST of an upload."""
        path = self._folder / f"load{number}"
        path.write_bytes(os.urandom(8 * 1024**2 + 100_000))
        user.upload(Source(path, path.stat().st_size))

    def _download(self, client: Client, link: str, kept: Source) -> None:
        assert client.sha256_of(link) == kept.sha256
