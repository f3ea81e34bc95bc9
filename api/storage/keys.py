"""The layout of object keys."""

from __future__ import annotations


def object_key(prefix: str, upload_id: bytes) -> str:
    """A new object's key. It ends with the id of the upload, by which unfinished uploads are recognised.

    Args:
        prefix: the prefix of this deployment's keys.
    """
    return f"{prefix}/{upload_id[-1:].hex()}/{upload_id.hex()}"
