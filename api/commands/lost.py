"""``python -m api lost``: lists lost content, which no storage has any more."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from api.blobs import replica_rows as replicas
from api.blobs.replicas import MEND
from api.core.config import Config
from api.core.models import utc_now
from api.db.pool import Database
from api.jobs import rows as jobs
from api.jobs.queue import Queue

_MOST = 10_000
_FAILED = 1


def _lost(config: Config, arguments: argparse.Namespace) -> int:
    db = Database(config.database_url, 1)
    found = replicas.lost(db, _MOST)
    for blob in found:
        if arguments.json:
            row = {
                "blob": blob.blob_id.hex(),
                "bytes": blob.size,
                "since": blob.since,
                "files": blob.files,
                "owners": blob.owners,
                "places": [{"storage": storage, "object": key} for storage, key in blob.places],
            }
            print(msgspec.json.encode(row).decode())
            continue
        places = ", ".join(f"{key} at {storage}" for storage, key in blob.places)
        used = f"{blob.files} files of {blob.owners} accounts, lost since {blob.since:%Y-%m-%d %H:%M} UTC"
        print(f"blob {blob.blob_id.hex()}: {blob.size} bytes, {used}: {places}")
    if not arguments.json:
        more = " or more" if len(found) == _MOST else ""
        print(f"{len(found)}{more} contents are lost" if found else "no content is lost")
    if arguments.check and found:
        subjects = [blob.blob_id for blob in found]
        jobs.insert_many(db, MEND, subjects, utc_now())
        queue = Queue(config.queue_url or config.redis_url)
        queue.enqueue(MEND, subjects)
        queue.flush(5.0)
        if not arguments.json:
            print("workers will look for them again; run this command again in a minute")
    return _FAILED if found else 0


def add(commands: Any) -> None:
    """Adds ``lost`` to the command line."""
    text = "content that no storage has any more: blobs, their former objects, and how many files and accounts use them"
    lost = commands.add_parser("lost", help="content that no storage has any more", description=text)
    lost.add_argument("--json", action="store_true", help="print one JSON object per line")
    lost.add_argument("--check", action="store_true", help="let workers look for all of it again, after a restore")
    lost.set_defaults(run=_lost)
