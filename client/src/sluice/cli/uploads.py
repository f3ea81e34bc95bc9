"""uploads, abort."""

from __future__ import annotations

import click

from sluice.cli.shared import Run, amount, common, examples
from sluice.errors import ConfigError, NotFound

UNFINISHED = ("proving", "uploading", "finalizing")


@click.command(epilog=examples("sluice uploads", "sluice uploads --all --json"))
@click.option("--all", "every", is_flag=True, help="Also those that ended.")
@common
def uploads(run: Run, every: bool) -> None:
    """List unfinished uploads: what `sluice put` of the same content goes on with."""
    with run.client() as client:
        for listed in client.uploads():
            upload = listed
            if listed.state in UNFINISHED:
                upload = client.upload_status(listed)  # a list may name fewer parts than were received
            if every or upload.state in UNFINISHED:
                until = upload.expires_at.astimezone().strftime("%Y-%m-%d %H:%M")
                text = (
                    f"{upload.id}  {upload.state:<10} {upload.percent:5.1f} %  {amount(upload.size):>10}  {upload.name}"
                )
                run.answer.say(upload, f"{text}  (until {until})" if upload.state in UNFINISHED else text)


@click.command(epilog=examples("sluice abort film.mp4", "sluice abort --all"))
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every unfinished upload.")
@common
def abort(run: Run, names: tuple[str, ...], every: bool) -> None:
    """End unfinished uploads, by id or name, and free what was sent."""
    if bool(names) == every:
        raise ConfigError("name uploads, or say --all")
    with run.client() as client:
        open_ones = [upload for upload in client.uploads() if upload.state in ("proving", "uploading")]
        wanted = open_ones if every else [u for u in open_ones if u.id in names or u.name in names]
        missing = set(names) - {u.id for u in wanted} - {u.name for u in wanted}
        if missing:
            raise NotFound(404, "UPLOAD_NOT_FOUND", f"There is no unfinished upload {sorted(missing)[0]!r}")
        for upload in wanted:
            client.abort(upload)
            run.answer.say({"aborted": upload.id, "name": upload.name}, f"{upload.name}: aborted")
