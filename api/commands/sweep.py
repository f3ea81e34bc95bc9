"""``python -m api sweep``: a whole sweep by hand, what it would do, and what a person has to decide."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from api import app
from api.core import config

_FAILED = 1


def add(commands: Any) -> None:
    """Adds the command to ``commands``, which are argparse's."""
    text = "free what ended, purge the trash, find and delete what no row knows; once, and whole"
    sweep = commands.add_parser("sweep", help=text, description=text)
    sweep.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sweep.add_argument("--accept", action="store_true", help="what no row knows may go: settles every doubt")
    sweep.add_argument("--storage", metavar="NAME", help="list this storage alone")
    sweep.add_argument("--json", action="store_true", help="a JSON object a line, the sums in the last")
    sweep.set_defaults(run=_sweep)


def _sweep(settings: config.Config, arguments: argparse.Namespace) -> int:
    def tell(kind: str, text: str) -> None:
        print(json.dumps({"what": kind, "of": text}) if arguments.json else f"{kind}: {text}", flush=True)

    sweep = app.compose(settings).sweep
    found = sweep.by_hand(tell, dry=arguments.dry_run, accept=arguments.accept, storage=arguments.storage)
    if found is None:
        print("another sweep is under way", file=sys.stderr)
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
        print("nothing was purged and no unknown object deleted; see docs/sweep.md before you say --accept")
    return _FAILED if doubts else 0
