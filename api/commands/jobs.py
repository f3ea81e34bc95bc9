"""``python -m api jobs``: waiting, running and dead jobs."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from api.core.config import Config
from api.core.errors import ConfigError
from api.core.models import utc_now
from api.db.pool import Database
from api.jobs import rows as jobs
from api.jobs.queue import Queue

_MOST_DEAD = 100


def _jobs(config: Config, arguments: argparse.Namespace) -> int:
    db, now = Database(config.database_url, 1), utc_now()
    counts, dead = jobs.counts(db, now), jobs.dead(db, _MOST_DEAD)
    depths = Queue(config.queue_url or config.redis_url).depths()
    if arguments.json:
        found = {
            "counts": [
                {
                    "kind": count.kind,
                    "state": count.state,
                    "jobs": count.rows,
                    "running": count.running,
                    "delayed": count.delayed,
                    "oldest_seconds": _age(now, count.oldest),
                }
                for count in counts
            ],
            "queue": depths,
            "dead": [
                {
                    "kind": job.kind,
                    "subject": job.subject.hex(),
                    "tries": job.tries,
                    "reason": job.reason,
                    "message": job.message,
                    "seconds": _age(now, job.updated_at),
                }
                for job in dead
            ],
        }
        print(msgspec.json.encode(found).decode())
        return 0
    print(f"{'kind':16} {'state':8} {'jobs':>9} {'running':>8} {'delayed':>8} {'oldest':>10}")
    for count in counts:
        age = f"{_age(now, count.oldest)} s"
        print(f"{count.kind:16} {count.state:8} {count.rows:9} {count.running:8} {count.delayed:8} {age:>10}")
    if not counts:
        print("there are no jobs")
    shown = ", ".join(f"{name} {depth}" for name, depth in depths.items()) if depths is not None else "does not answer"
    print(f"queue: {shown}")
    for job in dead:
        print(f"dead: {job.kind} {job.subject.hex()} after {job.tries} tries: {job.reason} {job.message}")
    return 0


def _age(now: Any, moment: Any) -> int:
    return int((now - moment).total_seconds()) if moment else 0


def _retry(config: Config, arguments: argparse.Namespace) -> int:
    subject = None
    if arguments.id is not None:
        try:
            subject = bytes.fromhex(arguments.id)
        except ValueError as ex:
            raise ConfigError([f"{arguments.id} is not an id: 32 hexadecimal characters"]) from ex
    count = jobs.retry(Database(config.database_url, 1), utc_now(), arguments.kind, subject)
    print(f"{count} will be tried again")
    return 0


def add(commands: Any) -> None:
    """Adds ``jobs`` and ``jobs retry`` to the command line."""
    text = "background jobs by kind and state, the length of the queue, and dead jobs with their reasons"
    top = commands.add_parser("jobs", help="background jobs: waiting and dead ones", description=text)
    top.add_argument("--json", action="store_true", help="as one JSON object")
    top.set_defaults(run=_jobs)
    retry = top.add_subparsers(metavar="COMMAND").add_parser("retry", help="try dead jobs again")
    retry.add_argument("kind", nargs="?", help="only jobs of this kind")
    retry.add_argument("id", nargs="?", help="only the job of this upload, blob or item")
    retry.set_defaults(run=_retry)
