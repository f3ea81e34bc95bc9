"""Where an object lies in its storage."""

from __future__ import annotations


def object_key(prefix: str, upload_id: bytes) -> str:
    """A new object's key: it ends with the id by which the storage's unfinished upload is known.

    Args:
        prefix: what every key of this deployment begins with.
    """
    return f"{prefix}/{upload_id[-1:].hex()}/{upload_id.hex()}"
