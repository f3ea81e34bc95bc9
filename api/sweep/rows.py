"""Rows of the sweep: its position in each storage's list, sightings of orphans, and doubts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.db.pool import Statements, placeholders
from api.db.records import record, records
from api.db.times import from_row, to_row

_LISTING = "storage, pass AS number, cursor_key AS `cursor`, begun, begun_at, ended_at, trusted, objects, missing"
_GET = f"SELECT {_LISTING} FROM listing WHERE storage = %s"
_BEGIN = (
    "INSERT INTO listing (storage, pass, cursor_key, begun, begun_at) VALUES (%s, 1, '', %s, %s) ON DUPLICATE KEY "
    "UPDATE pass = pass + 1, cursor_key = '', begun = %s, begun_at = %s, ended_at = NULL, trusted = %s, objects = 0, "
    "missing = 0"
)
_ADVANCE = (
    "UPDATE listing SET cursor_key = %s, objects = objects + %s, missing = missing + %s "
    "WHERE storage = %s AND pass = %s AND cursor_key = %s"
)
_END = "UPDATE listing SET cursor_key = NULL, ended_at = %s WHERE storage = %s AND pass = %s"

_SEE = "INSERT INTO sighting (storage, kind, object_key, made_at, first_seen_at, last_seen_at, pass) VALUES "  # rows
_SEE_AGAIN = (
    " ON DUPLICATE KEY UPDATE seconds = seconds + IF(sighting.pass = %s, 0, "
    "LEAST(%s, GREATEST(0, TIMESTAMPDIFF(SECOND, last_seen_at, %s)))), times = times + IF(sighting.pass = %s, 0, 1), "
    "last_seen_at = %s, pass = %s"
)
_FORGET_UNSEEN = "DELETE FROM sighting WHERE storage = %s AND pass < %s"
_FORGET = "DELETE FROM sighting WHERE storage = %s AND kind = %s AND object_key = %s"
_COUNT = "SELECT COUNT(*) FROM sighting WHERE storage = %s AND kind = %s AND accepted = 0"
_MADE_WITHIN = (
    "SELECT kind, object_key FROM sighting WHERE storage = %s AND accepted = 0 AND made_at >= %s AND made_at <= %s "
    "ORDER BY made_at DESC LIMIT 100"
)
_OLD = (
    "SELECT object_key FROM sighting WHERE storage = %s AND kind = %s AND object_key > %s AND seconds >= %s "
    "AND times > 1 ORDER BY object_key LIMIT 1000"
)
_SIGHTINGS = (
    "SELECT storage, kind, object_key, first_seen_at, seconds, accepted FROM sighting WHERE storage = %s "
    "ORDER BY kind, object_key LIMIT %s"
)
_ACCEPT = "UPDATE sighting SET accepted = 1 WHERE storage = %s AND accepted = 0"

_DOUBT = (
    "INSERT INTO doubt (kind, storage, message, from_at, until_at, noted_at) VALUES (%s, %s, %s, %s, %s, %s) "
    "ON DUPLICATE KEY UPDATE message = %s, from_at = LEAST(COALESCE(from_at, %s), %s), until_at = %s, noted_at = %s"
)
_DOUBTS = "SELECT kind, storage, message, from_at, until_at, noted_at FROM doubt ORDER BY kind, storage"
_SETTLE = "DELETE FROM doubt WHERE kind = %s AND storage = %s"

_REPLICAS = (
    "SELECT object_key, blob_id, missing_at FROM replica FORCE INDEX (replica_object) WHERE storage = %s "
    "AND object_key > %s AND object_key <= %s ORDER BY object_key LIMIT 1000"
)
_SET_MISSING = "UPDATE replica SET missing_at = %s WHERE blob_id = %s AND storage = %s AND object_key = %s"
_MISSING = (
    "SELECT r.storage, r.object_key, r.blob_id, r.missing_at FROM replica r FORCE INDEX (replica_missing) "
    "WHERE r.missing_at IS NOT NULL ORDER BY r.missing_at LIMIT %s"
)
_NEWEST_UPLOAD = "SELECT MAX(id) FROM upload"
_NEWEST_BLOB = "SELECT MAX(id) FROM `blob`"


@dataclass(frozen=True, slots=True)
class Listing:
    """A pass through a storage's objects; see the table's comment.

    Attributes:
        begun: the clocks at its start, as JSON from `api.sweep.moments`.
    """

    storage: str
    number: int
    cursor: str | None
    begun: str
    begun_at: datetime
    ended_at: datetime | None
    trusted: int
    objects: int
    missing: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason why the sweep deletes no content."""

    kind: str
    storage: str
    message: str
    from_at: datetime | None
    until_at: datetime | None
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class Sighting:
    """An object or a multipart upload without a row."""

    storage: str
    kind: str
    object_key: str
    first_seen_at: datetime
    seconds: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica's row."""

    object_key: str
    blob_id: bytes
    missing_at: datetime | None


def get(db: Statements, storage: str) -> Listing | None:
    """The pass in progress, or the last one."""
    row = db.one(_GET, (storage,))
    return None if row is None else record(Listing, row)


def begin(db: Statements, storage: str, begun: str, trusted: int, now: datetime) -> Listing:
    """Starts the next pass at the first object."""
    moment = to_row(now)
    db.execute(_BEGIN, (storage, begun, moment, begun, moment, trusted))
    found = get(db, storage)
    assert found is not None
    return found


def advance(db: Statements, listing: Listing, cursor: str, last: str, objects: int, missing: int) -> bool:
    """Saves the position ``last`` and the counts. Returns False if another process has moved on first."""
    return db.execute(_ADVANCE, (last, objects, missing, listing.storage, listing.number, cursor)) == 1


def end(db: Statements, listing: Listing, now: datetime) -> None:
    """Ends the pass."""
    db.execute(_END, (to_row(now), listing.storage, listing.number))


# -- sightings


def see(
    db: Statements, listing: Listing, kind: str, keys: Sequence[tuple[str, datetime | None]], now: datetime
) -> None:
    """Records orphans as (key, creation time by its key). Each counts once per pass."""
    if not keys:
        return
    moment = to_row(now)
    args: list[object] = []
    for key, made_at in keys:
        args += (listing.storage, kind, key, made_at and to_row(made_at), moment, moment, listing.number)
    args += (listing.number, listing.trusted, moment, listing.number, moment, listing.number)
    db.execute(_SEE + placeholders(len(keys), "(%s, %s, %s, %s, %s, %s, %s)") + _SEE_AGAIN, args)


def forget_unseen(db: Statements, listing: Listing) -> None:
    """Deletes sightings that this pass did not repeat: the objects are gone, or have a row now."""
    db.execute(_FORGET_UNSEEN, (listing.storage, listing.number))


def forget(db: Statements, storage: str, kind: str, object_key: str) -> None:
    """Deletes a sighting."""
    db.execute(_FORGET, (storage, kind, object_key))


def count_unknown(db: Statements, storage: str, kind: str) -> int:
    """Number of orphans that no operator has accepted."""
    return int(db.value(_COUNT, (storage, kind)))


def made_within(db: Statements, storage: str, since: datetime, until: datetime) -> list[tuple[str, str]]:
    """Up to 100 orphans that are not accepted and whose keys were made in this time, as (kind, key)."""
    return [(row.kind, row.object_key) for row in db.all(_MADE_WITHIN, (storage, to_row(since), to_row(until)))]


def old(db: Statements, storage: str, kind: str, after: str, seconds: int) -> list[str]:
    """Up to 1,000 keys after ``after``, orphaned for at least ``seconds`` and in more than one pass."""
    return db.column(_OLD, (storage, kind, after, seconds))


def sightings(db: Statements, storage: str, limit: int) -> list[Sighting]:
    """Up to ``limit`` orphans of a storage."""
    return records(Sighting, db.all(_SIGHTINGS, (storage, limit)))


def accept(db: Statements, storage: str) -> int:
    """Accepts all orphans of a storage. Returns how many were not accepted before."""
    return db.execute(_ACCEPT, (storage,))


# -- doubts


def doubt(
    db: Statements,
    kind: str,
    storage: str,
    message: str,
    now: datetime,
    span: tuple[datetime, datetime] | None = None,
) -> None:
    """Records a doubt. Replaces one of the same kind and storage, and extends its time span."""
    since, until = (to_row(span[0]), to_row(span[1])) if span else (None, None)
    moment = to_row(now)
    db.execute(_DOUBT, (kind, storage, message, since, until, moment, message, since, since, until, moment))


def doubts(db: Statements) -> list[Doubt]:
    """Every doubt that is not settled."""
    return records(Doubt, db.all(_DOUBTS))


def settle(db: Statements, kind: str, storage: str) -> None:
    """Deletes a doubt."""
    db.execute(_SETTLE, (kind, storage))


# -- rows without objects


def replicas_between(db: Statements, storage: str, after: str, last: str) -> list[Replica]:
    """Up to 1,000 replicas in order of keys, after ``after`` and up to ``last``."""
    return records(Replica, db.all(_REPLICAS, (storage, after, last)))


def set_missing(db: Statements, storage: str, replica: Replica, now: datetime | None) -> bool:
    """Marks a replica as missing, or as present if ``now`` is None. Returns False if its row changed."""
    moment = None if now is None else to_row(now)
    return db.execute(_SET_MISSING, (moment, replica.blob_id, storage, replica.object_key)) == 1


def missing(db: Statements, limit: int) -> list[tuple[str, str, bytes, datetime]]:
    """Replicas whose objects are gone, as (storage, object key, blob id, missing since)."""
    rows = db.all(_MISSING, (limit,))
    return [(row.storage, row.object_key, row.blob_id, from_row(row.missing_at)) for row in rows]


def newest(db: Statements) -> bytes | None:
    """The newest id of all uploads and blobs."""
    return max(filter(None, (db.value(_NEWEST_UPLOAD), db.value(_NEWEST_BLOB))), default=None)
