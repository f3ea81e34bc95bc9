"""A gateway with three storages in memory, and the work of workers on its transfers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.core.config import load
from api.jobs import rows as jobs
from api.storage.memory import MemoryStorage
from tests.api.conftest import Content, Gateway, User, fresh_database, settings
from tests.conftest import Servers

ENDS = {
    "SLUICE_STORAGES": "local,main:s3,archive:oss",
    "SLUICE_S3_ENDPOINT": "http://127.0.0.1:1",
    "SLUICE_S3_BUCKET": "b",
    "SLUICE_S3_ACCESS_KEY": "k",
    "SLUICE_S3_SECRET_KEY": "s",
    "SLUICE_OSS_ENDPOINT": "http://127.0.0.1:1",
    "SLUICE_OSS_BUCKET": "b",
    "SLUICE_OSS_ACCESS_KEY": "k",
    "SLUICE_OSS_SECRET_KEY": "s",
    "SLUICE_OSS_REGION": "cn-hangzhou",
    "SLUICE_TEST_ACCESS_TTL": "86400",
    "SLUICE_LINK_GRACE": "30",
    "SLUICE_TEST_TRANSFER_DRAIN": "600",
}
"""Settings for storages that are never contacted: tests replace them by storages in memory."""


class Moving(Gateway):
    """A gateway with three storages, see the module's docstring.

    Attributes:
        main: like Ceph, it compares a signed hash.
        archive: like OSS, it compares nothing.
    """

    def __init__(self, environ: dict[str, str], **storages: MemoryStorage) -> None:
        self.main = storages.get("main") or MemoryStorage(enforces_sha256=True, compares=False)
        self.archive = storages.get("archive") or MemoryStorage(compares=False)
        super().__init__(load(environ | ENDS), storages.get("local"), {"main": self.main, "archive": self.archive})

    @classmethod
    def over(cls, servers: Servers, folder: Path, **more: str) -> Moving:
        """A gateway with a separate database."""
        return cls(settings(fresh_database(servers), servers, folder) | more)

    def named(self, name: str) -> MemoryStorage:
        found = self.storages[name]
        assert isinstance(found, MemoryStorage)
        return found

    def start(self, source: str, destination: str, keep_for: int | None = None) -> bytes:
        """Starts a transfer."""
        return self.services.transfers.start(source, destination, keep_for)[0].transfer.id

    def turn_until_done(self, rounds: int = 30, seconds: float = 2) -> None:
        """Runs jobs until none is due, and advances the clock in between."""
        for _ in range(rounds):
            self.services.jobs["plan_transfer"].ensure()  # type: ignore[attr-defined]
            busy = False
            for kind in ("plan_transfer", "transfer"):
                for subject in self.due_now(kind):
                    busy |= self.take(kind, subject) and kind == "transfer"
            if not busy and not self.rows("SELECT 1 FROM transfer_item WHERE state = 'queued'"):
                due = self.rows("SELECT MIN(due_at) FROM transfer_item WHERE state = 'waiting'")[0][0]
                if due is None or due > self.clock().replace(tzinfo=None):
                    self.services.jobs["plan_transfer"].ensure()  # type: ignore[attr-defined]
                    for subject in self.due_now("plan_transfer"):
                        self.take("plan_transfer", subject)
                    return
            self.clock.turn(seconds)

    def due_now(self, kind: str) -> list[bytes]:
        from datetime import timedelta

        return jobs.due(self.db, kind, self.clock(), timedelta(seconds=-1), 1000)

    def replicas(self, file: dict[str, Any]) -> dict[str, str]:
        """The places of a file's bytes: key by storage."""
        sql = (
            "SELECT r.storage, r.object_key FROM replica r JOIN file f ON f.blob_id = r.blob_id WHERE f.id = UNHEX(%s)"
        )
        return dict(self.rows(sql, file["id"]))

    def figures(self, transfer_id: bytes) -> dict[str, int]:
        """The counts in a transfer's row."""
        names = (
            "items, bytes, done_items, done_bytes, skipped_items, failed_items, failed_bytes, live_bytes, moved_bytes"
        )
        (row,) = self.rows(f"SELECT {names} FROM transfer WHERE id = %s", transfer_id)  # noqa: S608
        return dict(zip(names.split(", "), row, strict=True))

    def state(self, transfer_id: bytes) -> str:
        return str(self.rows("SELECT state FROM transfer WHERE id = %s", transfer_id)[0][0])

    def upload_all(self, user: User, sizes: Sequence[int], salt: str) -> list[tuple[dict[str, Any], Content]]:
        """Files of these sizes."""
        made = []
        for index, size in enumerate(sizes):
            content = Content((f"{salt} {index} ".encode() * (size // 6 + 1))[:size])
            made.append((user.upload(content, f"{salt}{index}"), content))
        return made

    def nothing_is_lost(self) -> list[str]:
        """Differences between rows and storages: objects without a row, rows without their objects."""
        wrong = []
        for name in self.storages:
            storage = self.named(name)
            named = {key for (key,) in self.rows("SELECT object_key FROM replica WHERE storage = %s", name)}
            doomed = {key for (key,) in self.rows("SELECT object_key FROM doomed WHERE storage = %s", name)}
            items = {key for (key,) in self.rows("SELECT object_key FROM transfer_item WHERE storage = %s", name)}
            wrong += [f"{name}: object {key} of nobody" for key in storage.objects.keys() - named - doomed - items]
            wrong += [f"{name}: no object {key}" for key in named - storage.objects.keys()]
            ids = {key[-32:] for key in items | doomed}
            wrong += [f"{name}: upload {id_} of nobody" for id_ in storage.uploads.keys() - ids]
        return wrong
