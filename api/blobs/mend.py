"""Checks a blob's replicas as soon as one of them is suspect, and replaces broken ones.

A replica is missing if its storage says twice, some seconds apart, that the object is not there or has another length.
An I/O error, a time-out and a storage that is away declare nothing: they are looked at again later. A missing replica
is written anew from a sound one, under a new key. If there is no sound one, the content is lost: downloads say so, and
so do the log, the metrics, /readyz and ``python -m api lost``. Content that is back is served again.

A replica that an edge found cut or missing, and that looks whole, is in doubt: every byte of it is compared.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Final

from api.blobs import replica_rows as replicas
from api.blobs import scrub_rows as scrubs
from api.blobs.replicas import DEFINITE, MEND
from api.blobs.scrub import Away, Pause, Scrubber
from api.blobs.scrub_rows import Stored, Subject
from api.context import Context
from api.core import metrics
from api.core.errors import StorageError
from api.db.pool import Statements
from api.jobs.base import Lease, Outcome
from api.storage.wholeness import is_whole

_SECOND_LOOK: Final = 2.0
"""Seconds between the two looks that declare a replica missing."""
_AWAY: Final = 300.0
"""Seconds until a replica whose storage does not answer is looked at again."""

_log = logging.getLogger(__name__)


@dataclass
class _Found:
    """The replicas of a blob by the check's result.

    Attributes:
        once: missing at the first look.
        away: could not be looked at.
    """

    sound: list[Stored] = field(default_factory=list)
    missing: list[Stored] = field(default_factory=list)
    once: list[Stored] = field(default_factory=list)
    away: list[Stored] = field(default_factory=list)


class Mender:
    """See the module's docstring; the job of kind ``mend``, whose subject is a blob."""

    kind = MEND

    def __init__(self, context: Context, scrubber: Scrubber) -> None:
        self._db = context.db
        self._stores = context.stores
        self._scrubber = scrubber
        self._clock = context.clock

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        """See `api.jobs.base.Job`."""
        blob = scrubs.load(self._db, subject)
        if blob is None or blob.state not in ("verified", "unverified"):
            return Outcome.DONE
        try:
            found = self._look(blob, lease)
            if found.once:
                lease.save(0, ",".join(stored.storage for stored in found.once).encode())
                return Outcome.later(_SECOND_LOOK)
            if found.missing:
                self._mend(blob, found, lease)
        except Pause:
            return Outcome.MORE
        except Away:
            return Outcome.later(_AWAY)
        if any(stored.suspect or stored.is_missing for stored in found.away):
            return Outcome.later(_AWAY)
        return self._end(subject, lease)

    def _end(self, subject: bytes, lease: Lease) -> Outcome:
        """Ends the job, unless an edge has suspected a replica meanwhile: its report counts on this row."""

        def body(tx: Statements) -> bool:
            if replicas.lock_suspects(tx, subject):
                return False
            lease.end(tx)
            return True

        return Outcome.DONE if self._db.transaction(body) else Outcome.MORE

    def _look(self, blob: Subject, lease: Lease) -> _Found:
        found = _Found()
        seen_before = (lease.memo or b"").split(b",")
        for stored in blob.replicas:
            lease.keep()
            try:
                whole = is_whole(self._stores.named(stored.storage), stored.object_key, blob.size)
            except StorageError as ex:
                extra = {"blob": blob.blob_id.hex(), "storage": stored.storage, "error": str(ex)}
                _log.warning("a replica cannot be looked at", extra=extra)
                found.away.append(stored)
                continue
            if whole:
                self._settle(blob, stored, lease)
                found.sound.append(stored)
            elif stored.is_missing or stored.storage.encode() in seen_before:
                found.missing.append(stored)
            else:
                found.once.append(stored)
        return found

    def _settle(self, blob: Subject, stored: Stored, lease: Lease) -> None:
        """A replica looks whole: it is read again, after every byte was compared if there is reason to doubt it."""
        if stored.suspect in DEFINITE and blob.state == "verified":
            self._scrubber.look(blob, stored, lease)
        elif stored.suspect or stored.is_missing:
            replicas.clear(self._db, blob.blob_id, stored.storage, stored.object_key)
        if stored.is_missing:
            extra = {"blob": blob.blob_id.hex(), "storage": stored.storage, "key": stored.object_key}
            _log.warning("a replica is back", extra=extra)

    def _mend(self, blob: Subject, found: _Found, lease: Lease) -> None:
        fresh = [stored for stored in found.missing if not stored.is_missing]
        for stored in fresh:
            extra = {"blob": blob.blob_id.hex(), "storage": stored.storage, "key": stored.object_key}
            _log.error("a replica is missing", extra=extra)
            metrics.REPLICAS_LOST.labels(stored.storage).inc()
            replicas.set_missing(self._db, blob.blob_id, stored.storage, stored.object_key, self._clock())
        if not found.sound and not found.away:
            if fresh:
                places = [f"{stored.storage}/{stored.object_key}" for stored in found.missing]
                extra_lost = {"blob": blob.blob_id.hex(), "bytes": blob.size, "places": places}
                _log.error("a blob's content is lost: no storage has it; see python -m api lost", extra=extra_lost)
            return
        if blob.state != "verified":
            return
        for stored in found.missing:
            sources = (*found.sound, *found.away)
            self._scrubber.mend(replace(blob, replicas=(stored, *sources)), stored, lease, "gone")
            lease.save(0, None)
