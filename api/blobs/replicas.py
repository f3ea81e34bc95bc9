"""Which replica of a blob the edge reads, and what happens once an edge says that it could not.

An edge that cannot read a replica asks for another one, and says why in the same call. The replica is then *suspect*:
others are named before it, and a job (`api.blobs.mend`) looks at it. An edge is never believed beyond that, for it
may be the edge's network that failed. If the job finds the replica bad, it is *missing*, and no edge reads it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from api.blobs import replica_rows as rows
from api.context import Context
from api.core import errors, metrics
from api.core.errors import Problem, StorageUnavailable
from api.db.pool import Statements
from api.jobs import rows as jobs

MEND: Final = "mend"
"""The kind of the job that looks at a blob's replicas."""

DEFINITE: Final = frozenset(["missing", "length", "cut"])
"""Reasons that are about the object: not there, of another length, ended early."""
REASONS: Final = DEFINITE | {"error", "timeout"}

_AGAIN_SECONDS: Final = 60.0
"""Seconds until a requested lost blob is checked again: its storage may have it back."""
_MOST_KEPT: Final = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The replica to read.

    Attributes:
        others: whether another one can be tried if this one fails.
    """

    storage: str
    object_key: str
    others: bool


class Replicas:
    """See the module's docstring."""

    def __init__(self, context: Context) -> None:
        self._db = context.db
        self._stores = context.stores
        self._queue = context.queue
        self._clock = context.clock
        self._lock = threading.Lock()
        self._looked: dict[bytes, float] = {}

    def choose(
        self, blob_id: bytes, failed: Collection[str] = (), known: Collection[rows.Replica] | None = None
    ) -> Choice:
        """The best replica of a blob: sound before suspect, of a storage that answers, in the storages' order.

        Args:
            failed: storages that were tried in vain: named again only if there is no other.
            known: the blob's replicas, if they were read just now.

        Raises:
            Problem: CONTENT_LOST.
            StorageUnavailable: no replica's storage is configured.
        """
        found = rows.of_blob(self._db, blob_id) if known is None else known
        left = [replica for replica in found if not replica.is_missing]
        if not left:
            self._look_again(blob_id)
            raise Problem(errors.CONTENT_LOST)
        suspects = {replica.storage for replica in left if replica.suspect}
        ordered = self._stores.in_order([(replica.storage, replica.object_key) for replica in left], suspects)
        if not ordered:
            raise StorageUnavailable(f"none of {[replica.storage for replica in left]} is configured")
        untried = [place for place in ordered if place[0] not in failed]
        return Choice(*(untried or ordered)[0], others=len(untried) > 1)

    def report(self, blob_id: bytes, storage: str, reason: str) -> None:
        """Takes an edge's word that it could not read a replica: a job looks at it now.

        Nothing is written if that was said already, or if the whole storage is known to be away.

        Args:
            reason: one of `REASONS`.
        """
        metrics.REPLICA_REPORTS.labels(storage, reason).inc()
        if reason not in DEFINITE and not self._stores.answers(storage):
            return

        def body(tx: Statements) -> bool:
            marked = rows.suspect(tx, blob_id, storage, reason)
            if marked:
                jobs.insert(tx, MEND, blob_id, self._clock())
            return marked

        if self._db.transaction(body):
            extra = {"blob": blob_id.hex(), "storage": storage, "reason": reason}
            _log.warning("an edge could not read a replica", extra=extra)
            self._queue.enqueue(MEND, [blob_id])

    def _look_again(self, blob_id: bytes) -> None:
        now = time.monotonic()
        with self._lock:
            if now < self._looked.get(blob_id, float("-inf")) + _AGAIN_SECONDS:
                return
            if len(self._looked) >= _MOST_KEPT:
                self._looked.clear()
            self._looked[blob_id] = now
        jobs.insert(self._db, MEND, blob_id, self._clock())
        self._queue.enqueue(MEND, [blob_id])
