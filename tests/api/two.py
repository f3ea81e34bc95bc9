"""A gateway with two storages that can be down, and lie; a blob's replica may be on both."""

from __future__ import annotations

from datetime import timedelta

from api.core.config import load
from api.core.errors import StorageUnavailable
from api.jobs import rows as jobs
from api.storage.base import Reader
from api.storage.memory import MemoryStorage
from tests.api.conftest import Content, Gateway

DAY = 86_400


class Failing(MemoryStorage):
    """Can be down, and can return wrong bytes once."""

    away = False
    lies = 0
    reads = 0

    def check(self) -> None:
        if self.away:
            raise StorageUnavailable("away")

    def open(self, object_key: str, offset: int = 0, length: int | None = None) -> Reader:
        self.check()
        self.reads += 1
        if self.lies:
            self.lies -= 1
            return super().open(object_key, offset + 1, length)
        return super().open(object_key, offset, length)


class Two(Gateway):
    """A gateway with two storages; ``copy`` puts a blob's replica on the second."""

    storage: Failing

    def __init__(self, environ: dict[str, str]) -> None:
        config = load(environ)
        self.second = Failing()
        super().__init__(config, Failing(), {"second": self.second})

    def copy(self, data: bytes) -> str:
        """The key of a copy of the blob of this content on the second storage."""
        ((blob, key),) = self.rows(
            "SELECT b.id, r.object_key FROM replica r JOIN `blob` b ON b.id = r.blob_id WHERE b.digest = UNHEX(%s)",
            Content(data).digest,
        )
        self.second.objects[f"{key}-2"] = self.storage.objects[key]
        insert = "INSERT INTO replica (blob_id, storage, object_key, created_at) VALUES (%s, 'second', %s, NOW(6))"
        self.db.execute(insert, (blob, f"{key}-2"))
        return f"{key}-2"

    def key(self, storage: str = "local") -> str:
        ((key,),) = self.rows("SELECT object_key FROM replica WHERE storage = %s", storage)
        return str(key)

    def scrub(self) -> None:
        """Runs a scrub a month later, when every replica is due."""
        self.clock.turn(31 * DAY)
        self.services.jobs["scrub"].plan()  # type: ignore[attr-defined]
        for _ in range(20):
            due = jobs.due(self.db, "scrub", self.clock() + timedelta(seconds=1), timedelta(0), 10)
            if not due:
                return
            for blob in due:
                self.services.runner.run("scrub", blob)

    def states(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM `blob`")]
