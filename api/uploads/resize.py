"""Changes the size of an open upload: a client that sends a stream while receiving it does not know its size at first.

Only an upload that nothing names (no digest, no resume key) can be given one, so that no other call means the old size.
Its part size stays, and so does the length of every part whose hash is written down. A part that is signed meanwhile,
by the old size, has the wrong length for its storage: it counts as missing when the upload is completed.
"""

from __future__ import annotations

from dataclasses import replace

from api.accounts import rows as accounts
from api.context import Context
from api.core import digests, errors
from api.core.errors import Problem, StorageFull
from api.core.models import Identity, Upload
from api.db.pool import Statements
from api.uploads import rows as uploads


def resize(context: Context, identity: Identity, upload: Upload, size: int) -> Upload:
    """The upload with another size.

    Raises:
        Problem: SIZE_INVALID, UPLOAD_NOT_OPEN, PARTS_LIMITED, STORAGE_FULL, TOKEN_REVOKED.
    """
    count = digests.part_count(size) if 0 < size <= context.config.max_file_size else 0
    if count < 2 or digests.part_size(size) != upload.part_size:
        raise Problem(errors.SIZE_INVALID, "The size would need parts of another size.")
    if upload.state != "uploading" or upload.is_single or upload.digest is not None:
        raise Problem(errors.UPLOAD_NOT_OPEN, "The size of this upload is final.", state=upload.state)
    if size == upload.size:
        return upload
    if size > upload.size:
        try:
            context.stores.named(upload.storage).check_room(size - upload.size, count)
        except StorageFull as ex:
            raise Problem(errors.STORAGE_FULL) from ex

    def body(tx: Statements) -> bool:
        if not accounts.lock_live(tx, identity.user_id):
            raise Problem(errors.TOKEN_REVOKED)
        _, parts = uploads.open_totals(tx, identity.user_id)
        if count > upload.part_count and parts - upload.part_count + count > context.config.user_parts:
            raise Problem(errors.PARTS_LIMITED)
        # every part up to there has the same length by either size
        same = min(upload.size, size) // upload.part_size
        return uploads.set_size(tx, upload, size, count, same, context.clock())

    if not context.db.transaction(body):
        raise Problem(errors.SIZE_INVALID, "A part was signed that would have another length.")
    return replace(upload, size=size, part_count=count)
