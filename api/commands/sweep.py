"""``python -m api sweep``: runs a complete sweep, or reports what it would do."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from api import app
from api.core import config

_FAILED = 1


def add(commands: Any) -> None:
    """Adds ``sweep`` to the command line."""
    text = "garbage collection: free expired uploads, empty the trash, find and delete orphans; a complete run"
    sweep = commands.add_parser("sweep", help=text, description=text)
    sweep.add_argument("--dry-run", action="store_true", help="only report what would be done")
    sweep.add_argument("--accept", action="store_true", help="orphans may be deleted: settle every doubt")
    sweep.add_argument("--storage", metavar="NAME", help="list only this storage")
    sweep.add_argument(
        "--json", action="store_true", help="print one JSON object per line, with the totals in the last one"
    )
    sweep.set_defaults(run=_sweep)


def _sweep(settings: config.Config, arguments: argparse.Namespace) -> int:
    def tell(kind: str, text: str) -> None:
        print(json.dumps({"what": kind, "of": text}) if arguments.json else f"{kind}: {text}", flush=True)

    sweep = app.compose(settings).sweep
    found = sweep.by_hand(tell, dry=arguments.dry_run, accept=arguments.accept, storage=arguments.storage)
    if found is None:
        print("another sweep is running", file=sys.stderr)
        return _FAILED
    doubts, missing = sweep.doubts(), sweep.missing()
    if arguments.json:
        lost = [{"storage": row[0], "object": row[1], "blob": row[2].hex(), "since": str(row[3])} for row in missing]
        told = [{"kind": doubt.kind, "storage": doubt.storage, "reason": doubt.message} for doubt in doubts]
        print(json.dumps({"dry_run": arguments.dry_run, "counts": found, "doubts": told, "missing": lost}))
        return _FAILED if doubts else 0
    for kind, count in sorted(found.items()):
        print(f"{'would be ' if arguments.dry_run else ''}{kind}: {count}")
    for storage, key, blob, since in missing:
        print(f"object {key} at {storage} is gone since {since}: blob {blob.hex()} has no bytes there")
    for storage, since in sweep.compared():
        print(f"every replica at {storage} was compared since {since:%Y-%m-%d %H:%M} UTC")
    for doubt in doubts:
        print(f"HELD BACK ({doubt.kind}) {doubt.storage}: {doubt.message}")
    if doubts:
        print("no trash and no orphan was deleted; read docs/sweep.md before you use --accept")
    return _FAILED if doubts else 0
