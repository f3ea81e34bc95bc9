"""Rows of uploads and of their parts' hashes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.core.models import Upload
from api.db.pool import Row, Statements, placeholders
from api.db.times import from_nullable, to_row

AS_VALUE = (
    "JSON_ARRAY(HEX(u.id), HEX(u.user_id), u.state, HEX(u.name), HEX(u.folder_id), HEX(u.content_type), u.size, "
    "HEX(u.digest), u.part_size, u.part_count, u.storage, u.object_key, HEX(u.multipart_id), u.binds_hash, "
    "HEX(u.nonce), u.challenge_expires_at, HEX(u.received), u.received_at, u.completes, u.lease_until, "
    "HEX(u.file_id), u.failure, u.created_at, u.expires_at, u.completes_sent, u.copy_key)"
)
"""One value: PyMySQL spends more on the descriptions of 26 columns than on the rest of the statement."""
_BYTES, _TEXTS, _MOMENTS = (0, 1, 4, 7, 14, 16, 20), (3, 5, 12), (15, 17, 19, 22, 23)
_OPEN = "('proving', 'uploading', 'finalizing')"
_PACKED = (
    "(SELECT GROUP_CONCAT(p.sha256 ORDER BY p.part_number SEPARATOR '') FROM upload_part p WHERE p.upload_id = u.id)"
)
COLUMNS = (
    "id, user_id, state, name, folder_id, content_type, size, digest, part_size, part_count, storage, object_key, "
    "multipart_id, open_key, binds_hash, nonce, challenge_expires_at, file_id, created_at, updated_at, expires_at"
)
"""The columns of a new row, in the order of `row_of`."""
OPEN_TOTALS = (
    "SELECT COUNT(*) AS uploads, COALESCE(SUM(c.part_count), 0) AS parts FROM upload c "
    f"WHERE c.user_id = %s AND c.state IN {_OPEN}"
)
_OPENED = "UPDATE upload SET multipart_id = %s WHERE id = %s AND multipart_id = ''"
_RESIZE = (
    "UPDATE upload u SET u.size = %s, u.part_count = %s, u.updated_at = %s WHERE u.id = %s AND u.state = 'uploading' "
    "AND u.open_key IS NULL AND u.size = %s "
    "AND NOT EXISTS (SELECT 1 FROM upload_part p WHERE p.upload_id = %s AND p.part_number > %s)"
)
_BY_ID = f"SELECT {AS_VALUE} FROM upload u WHERE u.id = %s AND u.user_id = %s"
FEW_PARTS = 64
"""Up to this number of parts, an upload's hashes are read together with its row."""
_FEW_PACKED = f"IF(u.part_count <= {FEW_PARTS}, {_PACKED}, NULL)"
_WITH_FEW_HASHES = f"SELECT {AS_VALUE}, {_FEW_PACKED} FROM upload u WHERE u.id = %s AND u.user_id = %s"
_MANY_WITH_FEW_HASHES = f"SELECT {AS_VALUE}, {_FEW_PACKED} FROM upload u WHERE u.user_id = %s AND u.id IN "
_HASHES = f"SELECT {_PACKED} FROM upload u WHERE u.id = %s"
_LEASED = f"SELECT {AS_VALUE}, {_PACKED} FROM upload u WHERE u.id = %s AND u.lease_owner = %s"
_RECORDED = (
    "GROUP_CONCAT(LPAD(HEX(p.part_number), 4, '0'), LOWER(HEX(p.sha256)), LPAD(HEX(p.signed), 2, '0') SEPARATOR '') "
    "FROM upload_part p"
)
_FOR_SIGNING = f"SELECT {AS_VALUE}, (SELECT {_RECORDED} WHERE p.upload_id = u.id AND p.part_number "
_SIGNED_UPLOAD = ") FROM upload u WHERE u.id = %s AND u.user_id = %s"
_RECORD = "INSERT INTO upload_part (upload_id, part_number, sha256) VALUES "
_RECORD_AGAIN = " ON DUPLICATE KEY UPDATE signed = LEAST(signed, 254) + 1"
_RECORDED_OF = f"SELECT {_RECORDED} WHERE p.upload_id = %s AND p.part_number "
# Left alone, the optimizer may intersect both indexes, and sort all that a user ever uploaded.
_LIST = f"SELECT {AS_VALUE} FROM upload u FORCE INDEX (upload_user) WHERE u.user_id = %s"
_LIST_STATE = f"SELECT {AS_VALUE} FROM upload u FORCE INDEX (upload_user_state) WHERE u.user_id = %s AND u.state = %s"

_CHALLENGE = (
    "UPDATE upload SET nonce = %s, challenge_expires_at = %s, updated_at = %s WHERE id = %s AND state = 'proving'"
)
_CONSUME = (
    "UPDATE upload SET state = 'uploading', nonce = NULL, challenge_expires_at = NULL, updated_at = %s "
    "WHERE id = %s AND state = 'proving' AND nonce = %s"
)
_SKIP_PROOF = (
    "UPDATE upload SET state = 'uploading', nonce = NULL, challenge_expires_at = NULL, updated_at = %s "
    "WHERE id = %s AND state = 'proving'"
)
_ASKED = "UPDATE upload SET received = %s, received_at = %s WHERE id = %s AND state = 'uploading'"
_FINALIZE = (
    "UPDATE upload SET state = 'finalizing', completes = LEAST(completes, 254) + 1, "
    "completes_sent = LEAST(completes_sent, 254) + %s, digest = %s, received = %s, "
    "failure = NULL, lease_owner = %s, lease_until = %s, updated_at = %s WHERE id = %s AND state = 'uploading'"
)
_TAKE_LEASE = (
    "UPDATE upload SET lease_owner = %s, lease_until = %s, completes_sent = LEAST(completes_sent, 254) + 1 "
    "WHERE id = %s AND state = 'finalizing' "
    "AND (lease_until IS NULL OR lease_until < %s)"
)
_EXTEND_LEASE = "UPDATE upload SET lease_until = %s WHERE id = %s AND lease_owner = %s AND state = 'finalizing'"
_RELEASE_LEASE = (
    "UPDATE upload SET lease_owner = NULL, lease_until = NULL WHERE id = %s AND lease_owner = %s "
    "AND state = 'finalizing'"
)
_BEGIN_COPY = (
    "UPDATE upload SET copy_key = %s, lease_owner = %s, lease_until = %s WHERE id = %s AND lease_owner = %s "
    "AND state = 'finalizing'"
)
_COPY_KEY = "SELECT copy_key FROM upload WHERE id = %s"
_IS_FINALIZING = "SELECT 1 FROM upload WHERE id = %s AND state = 'finalizing'"
_STUCK = (
    "SELECT u.id FROM upload u LEFT JOIN job j ON j.subject = u.id AND j.kind = 'finalize' "
    "WHERE u.state = 'finalizing' AND (u.lease_until IS NULL OR u.lease_until < %s) AND j.subject IS NULL "
    "ORDER BY u.expires_at LIMIT 100"
)
_REOPEN = (
    "UPDATE upload SET state = 'uploading', received = %s, received_at = NULL, lease_owner = NULL, "
    # nothing was sent, or it was refused; behind a doubtful complete that is not known
    "completes_sent = IF(copy_key IS NULL, 0, completes_sent), "
    "lease_until = NULL, failure = %s, updated_at = %s WHERE id = %s AND lease_owner = %s AND state = 'finalizing'"
)
_TAKE_BACK = _REOPEN.replace("SET state", "SET completes = completes - 1, state")
_DONE = (
    "UPDATE upload SET state = 'done', file_id = %s, open_key = NULL, lease_owner = NULL, lease_until = NULL, "
    "failure = NULL, updated_at = %s WHERE id = %s AND lease_owner = %s AND state = 'finalizing'"
)
_DONE_INSTANTLY = (
    "UPDATE upload SET state = 'done', file_id = %s, open_key = NULL, updated_at = %s "
    "WHERE id = %s AND state = 'uploading'"
)
_END = (
    "UPDATE upload SET state = %s, failure = %s, open_key = NULL, lease_owner = NULL, lease_until = NULL, "
    "nonce = NULL, updated_at = %s WHERE id = %s AND state IN ('proving', 'uploading')"
)
_FAIL = (
    "UPDATE upload SET state = 'failed', failure = %s, open_key = NULL, lease_owner = NULL, lease_until = NULL, "
    "updated_at = %s WHERE id = %s AND state = 'finalizing' AND lease_owner = %s"
)


def of_value(packed: str) -> Upload:
    """Parses a value of `AS_VALUE`."""
    values = json.loads(packed)
    for place in (*_BYTES, *_TEXTS):
        values[place] = None if values[place] is None else bytes.fromhex(values[place])
    for place in _TEXTS:
        values[place] = values[place].decode()
    values[13] = bool(values[13])
    for place in _MOMENTS:
        values[place] = from_nullable(values[place] and datetime.fromisoformat(values[place]))
    return Upload(*values)


def row_of(upload: Upload, open_key: bytes | None) -> tuple[object, ...]:
    """A new upload's row."""
    u, challenge = upload, upload.challenge_expires_at
    return (
        u.id,
        u.user_id,
        u.state,
        u.name,
        u.folder_id,
        u.content_type,
        u.size,
        u.digest,
        u.part_size,
        u.part_count,
        u.storage,
        u.object_key,
        u.multipart_id,
        open_key,
        u.binds_hash,
        u.nonce,
        challenge and to_row(challenge),
        u.file_id,
        to_row(u.created_at),
        to_row(u.created_at),
        to_row(u.expires_at),
    )


def open_totals(db: Statements, user_id: bytes) -> tuple[int, int]:
    """Number of a user's unfinished uploads, and of their parts."""
    row = db.one(OPEN_TOTALS, (user_id,))
    assert row is not None
    return row.uploads, int(row.parts)


def set_opened(db: Statements, upload_id: bytes, multipart_id: str) -> bool:
    """Saves the id of the storage's multipart upload. Returns False if another call has saved one."""
    return db.execute(_OPENED, (multipart_id, upload_id)) == 1


def set_size(db: Statements, upload: Upload, size: int, count: int, last: int, now: datetime) -> bool:
    """Another size for an upload that nothing names; False if it has parts after ``last``, or another size by now."""
    return db.execute(_RESIZE, (size, count, to_row(now), upload.id, upload.size, upload.id, last)) == 1


def by_id(db: Statements, upload_id: bytes, user_id: bytes) -> Upload | None:
    """An upload of this user."""
    row = db.one(_BY_ID, (upload_id, user_id))
    return of_value(row[0]) if row else None


def with_few_hashes(db: Statements, upload_id: bytes, user_id: bytes) -> tuple[Upload, bytes | None] | None:
    """An upload of this user and its parts' hashes, 32 bytes each in part order; None if it has more than FEW_PARTS.

    The caller may have sent no part yet, so thousands of hashes are read (`hashes`) only after the storage has the
    parts.
    """
    row = db.one(_WITH_FEW_HASHES, (upload_id, user_id))
    return _few(row) if row else None


def many_with_few_hashes(db: Statements, ids: Sequence[bytes], user_id: bytes) -> list[tuple[Upload, bytes | None]]:
    """Several uploads of this user; ids of other users' uploads are ignored."""
    rows = db.all(f"{_MANY_WITH_FEW_HASHES}({placeholders(len(ids))})", [user_id, *ids])
    return [_few(row) for row in rows]


def _few(row: Row) -> tuple[Upload, bytes | None]:
    upload = of_value(row[0])
    return upload, None if upload.part_count > FEW_PARTS else row[1] or b""


def hashes(db: Statements, upload_id: bytes) -> bytes:
    """The hashes recorded for an upload, 32 bytes each in part order."""
    row = db.one(_HASHES, (upload_id,))
    return row[0] or b"" if row else b""


def leased(db: Statements, upload_id: bytes, owner: bytes) -> tuple[Upload, bytes] | None:
    """The hashes, for the process that holds the lease."""
    row = db.one(_LEASED, (upload_id, owner))
    return (of_value(row[0]), row[1] or b"") if row else None


def page(db: Statements, user_id: bytes, after: bytes | None, state: str | None, limit: int) -> list[Upload]:
    """A user's uploads, newest first."""
    sql, args = _LIST, list[object]([user_id])
    if state is not None:
        sql, args = _LIST_STATE, [user_id, state]
    if after is not None:
        sql += " AND u.id < %s"
        args.append(after)
    return [of_value(row[0]) for row in db.all(f"{sql} ORDER BY u.id DESC LIMIT %s", [*args, limit])]


# -- parts


@dataclass(frozen=True, slots=True)
class Recorded:
    """The records of some parts, by number.

    Attributes:
        hashes: hexadecimal.
        signed: how often a URL was given out.
    """

    hashes: dict[int, str]
    signed: dict[int, int]


@dataclass(frozen=True, slots=True)
class Signing:
    """The state of an upload and its parts before parts are signed.

    Attributes:
        recorded: of the numbers asked for.
    """

    upload: Upload
    recorded: Recorded


def _recorded(packed: bytes | str | None) -> Recorded:
    """Parses runs of hexadecimal digits: 4 for the part number, 64 for the hash, 2 for the number of signings."""
    text = packed.decode() if isinstance(packed, bytes) else packed or ""
    hashes, signed = {}, {}
    for i in range(0, len(text), 70):
        number = int(text[i : i + 4], 16)
        hashes[number], signed[number] = text[i + 4 : i + 68], int(text[i + 68 : i + 70], 16)
    return Recorded(hashes, signed)


def _numbers(numbers: Collection[int]) -> tuple[str, list[int]]:
    """A condition for part numbers that reads only a few times as many rows as there are numbers."""
    first, last = min(numbers), max(numbers)
    if last - first < 2 * len(numbers):
        return "BETWEEN %s AND %s", [first, last]
    return f"IN ({placeholders(len(numbers))})", sorted(numbers)


def for_signing(db: Statements, upload_id: bytes, user_id: bytes, numbers: Collection[int]) -> Signing | None:
    """The upload and the records of these parts, perhaps with some between them."""
    condition, args = _numbers(numbers)
    row = db.one(_FOR_SIGNING + condition + _SIGNED_UPLOAD, [*args, upload_id, user_id])
    return Signing(of_value(row[0]), _recorded(row[1])) if row else None


def record_parts(db: Statements, upload_id: bytes, hashes: Mapping[int, str]) -> bool:
    """Writes each part's hash, once: a row that is there keeps its hash and counts one more signing.

    Returns:
        Whether every row was new. (An upsert counts 1 for a new row and 2 for one that was there, or 0 at the 255th
        signing: who has just seen that there were none can rely on it.)
    """
    args: list[object] = []
    for number, sha256 in hashes.items():
        args += (upload_id, number, bytes.fromhex(sha256))
    return db.execute(_RECORD + placeholders(len(hashes), "(%s, %s, %s)") + _RECORD_AGAIN, args) == len(hashes)


def recorded_of(db: Statements, upload_id: bytes, numbers: Collection[int]) -> Recorded:
    """The records of these parts, perhaps with some between them."""
    condition, args = _numbers(numbers)
    row = db.one(_RECORDED_OF + condition, [upload_id, *args])
    assert row is not None
    return _recorded(row[0])


# -- states


def set_challenge(db: Statements, upload_id: bytes, nonce: bytes, expires_at: datetime, now: datetime) -> bool:
    """Sets a new nonce for an upload in the state proving."""
    return db.execute(_CHALLENGE, (nonce, to_row(expires_at), to_row(now), upload_id)) == 1


def consume_challenge(db: Statements, upload_id: bytes, nonce: bytes, now: datetime) -> bool:
    """Uses up a challenge before it is checked. Returns False if another call has used it."""
    return db.execute(_CONSUME, (to_row(now), upload_id, nonce)) == 1


def skip_proof(db: Statements, upload_id: bytes, now: datetime) -> None:
    """proving → uploading: the client uploads instead of proving."""
    db.execute(_SKIP_PROOF, (to_row(now), upload_id))


def set_received(db: Statements, upload_id: bytes, received: bytes, now: datetime) -> None:
    """Saves the storage's list of received parts."""
    db.execute(_ASKED, (received, to_row(now), upload_id))


def begin_finalizing(
    db: Statements,
    upload: Upload,
    received: bytes,
    lease: tuple[bytes, datetime] | None,
    now: datetime,
) -> bool:
    """uploading → finalizing. Returns False if the upload is in another state.

    With a lease, the same statement counts the complete that the lease's holder is about to send.
    """
    owner, until = (lease[0], to_row(lease[1])) if lease else (None, None)
    sent = 1 if lease else 0
    return db.execute(_FINALIZE, (sent, upload.digest, received, owner, until, to_row(now), upload.id)) == 1


def take_lease(db: Statements, upload_id: bytes, owner: bytes, now: datetime, until: datetime) -> bool:
    """Takes the lease for finalizing, before a complete. Returns False if another process holds it."""
    return db.execute(_TAKE_LEASE, (owner, to_row(until), upload_id, to_row(now))) == 1


def extend_lease(db: Statements, upload_id: bytes, owner: bytes, until: datetime) -> bool:
    """Extends the lease. Returns False if it was lost."""
    return db.execute(_EXTEND_LEASE, (to_row(until), upload_id, owner)) == 1


def begin_copy(db: Statements, upload_id: bytes, owner: bytes, copy_key: str, until: datetime | None) -> bool:
    """Records the key to which the object will be copied, before the copy. Returns False if the lease was lost.

    Args:
        until: when the lease ends; None gives it back.
    """
    lease = (None, None) if until is None else (owner, to_row(until))
    return db.execute(_BEGIN_COPY, (copy_key, *lease, upload_id, owner)) == 1


def copy_key(db: Statements, upload_id: bytes) -> str | None:
    """The key of the copy of an upload's object; None if no complete was ever doubtful."""
    key: str | None = db.value(_COPY_KEY, (upload_id,))
    return key


def release_lease(db: Statements, upload_id: bytes, owner: bytes) -> None:
    """Releases the lease."""
    db.execute(_RELEASE_LEASE, (upload_id, owner))


def is_finalizing(db: Statements, upload_id: bytes) -> bool:
    """Whether the upload is still in the state finalizing."""
    return db.one(_IS_FINALIZING, (upload_id,)) is not None


def stuck(db: Statements, now: datetime) -> list[bytes]:
    """Up to 100 uploads in the state finalizing, without a lease and without a job."""
    return db.column(_STUCK, (to_row(now),))


def reopen(db: Statements, upload_id: bytes, owner: bytes, received: bytes, failure: str | None, now: datetime) -> bool:
    """finalizing → uploading: some parts have to be sent again."""
    return db.execute(_REOPEN, (received, failure, to_row(now), upload_id, owner)) == 1


def take_back(db: Statements, upload_id: bytes, owner: bytes, received: bytes, now: datetime) -> bool:
    """finalizing → uploading: undoes the start of finalizing."""
    return db.execute(_TAKE_BACK, (received, None, to_row(now), upload_id, owner)) == 1


def set_done(db: Statements, upload_id: bytes, owner: bytes, file_id: bytes, now: datetime) -> bool:
    """finalizing → done. Returns False if the lease was lost."""
    return db.execute(_DONE, (file_id, to_row(now), upload_id, owner)) == 1


def set_done_instantly(db: Statements, upload_id: bytes, file_id: bytes, now: datetime) -> bool:
    """uploading → done, by a proof. Returns False if the upload's state has changed."""
    return db.execute(_DONE_INSTANTLY, (file_id, to_row(now), upload_id)) == 1


def end(db: Statements, upload_id: bytes, state: str, failure: str | None, now: datetime) -> bool:
    """proving, uploading → failed, aborted, expired; False from any other state."""
    return db.execute(_END, (state, failure, to_row(now), upload_id)) == 1


def fail_finalizing(db: Statements, upload_id: bytes, owner: bytes, failure: str, now: datetime) -> bool:
    """finalizing → failed."""
    return db.execute(_FAIL, (failure, to_row(now), upload_id, owner)) == 1
