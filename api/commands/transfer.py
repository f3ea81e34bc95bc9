"""``python -m api transfer``: starts and shows migrations and transfer policies."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from api import app
from api.core import errors
from api.core.config import Config
from api.core.errors import ConfigError, Problem
from api.core.policies import span
from api.http import schemas
from api.services import Services
from api.transfers import schema
from api.transfers.service import Transfers, TransferView

Show = Callable[[Any], str]


def add(commands: Any) -> None:
    """Adds ``transfer`` to the command line."""
    transfer = commands.add_parser("transfer", help="copies of blobs from one storage to another")
    group = transfer.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Transfers, argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = group.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(run=_command(run))
        return added

    start = command("start", _start, "copy everything that a storage holds now to another one")
    start.add_argument("--from", dest="source", required=True, metavar="STORAGE")
    start.add_argument("--to", dest="destination", required=True, metavar="STORAGE")
    start.add_argument(
        "--delete-source", action="store_true", help="delete the source of each blob after its copy was verified"
    )
    start.add_argument(
        "--keep-for",
        type=_span,
        metavar="TIME",
        help="keep the source for this time, such as 30, 15m, 1h or 7d; default 0",
    )
    start.add_argument("--dry-run", action="store_true", help="only count what would be copied")
    status = command("status", _status, "show the transfers, or one of them with its failures")
    status.add_argument("id", nargs="?")
    for name, state, text in (
        ("pause", "paused", "stop copying within seconds; copied data stays, also of unfinished blobs"),
        ("resume", "running", "continue a paused transfer"),
        ("cancel", "cancelled", "end a migration; finished copies stay, unfinished ones are deleted"),
    ):
        command(name, _setting(state), text).add_argument("id")
    command("retry", lambda s, a: s.retry(_id(a.id)), "try failed blobs again").add_argument("id")


def _span(text: str) -> int:
    try:
        return span(text)
    except ValueError as ex:
        raise argparse.ArgumentTypeError(str(ex)) from ex


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as ex:
        raise Problem(errors.TRANSFER_NOT_FOUND) from ex


def _command(run: Callable[[Transfers, argparse.Namespace], Any]) -> Callable[[Config, argparse.Namespace], int]:
    def in_process(config: Config, arguments: argparse.Namespace) -> int:
        services: Services = app.compose(config)
        answer = run(services.transfers, arguments)
        services.queue.flush(3.0)
        views = answer if isinstance(answer, list) else [answer]
        if arguments.json:
            shown = [schema.transfer(v) if isinstance(v, TransferView) else schema.dry_run(v) for v in views]
            print(schemas.encode({"items": shown} if isinstance(answer, list) else shown[0]).decode())
        else:
            print("\n\n".join(_text(view) for view in views) or "there are no transfers")
        return 0

    return in_process


def _start(transfers: Transfers, arguments: argparse.Namespace) -> Any:
    if arguments.keep_for is not None and not arguments.delete_source:
        raise ConfigError(["--keep-for sets when the source is deleted: it needs --delete-source"])
    keep_for = (arguments.keep_for or 0) if arguments.delete_source else None
    if arguments.dry_run:
        return transfers.dry_run(arguments.source, arguments.destination, keep_for)
    return transfers.start(arguments.source, arguments.destination, keep_for)[0]


def _status(transfers: Transfers, arguments: argparse.Namespace) -> Any:
    return transfers.get(_id(arguments.id)) if arguments.id else transfers.page(None, 100)


def _setting(state: str) -> Callable[[Transfers, argparse.Namespace], Any]:
    return lambda transfers, arguments: transfers.set_state(_id(arguments.id), state)


def _text(view: Any) -> str:
    """For people."""
    if not isinstance(view, TransferView):
        there = (
            f"; {view.there} of them already have a copy, and only their source would be deleted" if view.there else ""
        )
        return f"would copy {view.items - view.there} blobs, {_size(view.bytes)}{there}"
    row = view.transfer
    planning = "" if row.planned or row.policy else " (still counting)"
    what = row.policy or f"{row.source} → {row.destination}" + (
        ", then deletes the source" if row.delete_source else ""
    )
    lines = [
        f"{row.id.hex()}  {row.state}  {what}",
        f"  planned  {row.items} blobs, {_size(row.bytes)}{planning}",
        f"  done     {row.done_items} blobs, {_size(row.done_bytes)}; of the others {_size(row.live_bytes)}",
    ]
    if row.state == "running":
        left = "" if view.seconds_left is None else f", about {_time(view.seconds_left)} left"
        lines.append(f"  rate     {_size(view.rate)}/s{left}")
    if row.skipped_items:
        lines.append(f"  skipped  {row.skipped_items} blobs, {_size(row.skipped_bytes)}: deleted meanwhile")
    if row.failed_items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in view.reasons.items())
        lines.append(
            f"  failed   {row.failed_items} blobs, {_size(row.failed_bytes)}{': ' + reasons if reasons else ''}"
        )
    lines += [f"    blob {f.blob_id.hex()} {f.phase}: {f.reason}: {f.message}" for f in view.failures]
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def _time(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
