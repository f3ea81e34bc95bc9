"""Files, their links and their content."""

from __future__ import annotations

import json

import msgspec

from api.core import errors
from api.core.errors import Problem
from api.files import schema
from api.files.schema import FileAnswer, FilePage, LinkAnswer, TargetAnswer
from api.files.service import Files
from api.http import schemas
from api.http.call import Call
from api.http.route import Reply


def page(call: Call, query: schema.FileQuery, files: Files) -> FilePage:
    """Files, newest first or by name; the trash by the time of trashing.

    A call with `q` looks at 10,000 names at most, so that a page may be short, even empty, and yet have a
    `next_cursor`; `digest`, and the trash with `order=name`, look at 10,000 files in all.
    """
    if query.folder_id is not None:
        raise Problem(errors.FOLDER_NOT_FOUND)
    digest = schemas.digest(query.digest)
    kind = f"files:{query.order}:{query.trashed}:{digest is not None}"
    after = call.after(kind, query.cursor)
    found = files.page(
        call.identity,
        order=query.order,
        limit=query.limit,
        trashed=query.trashed == "true",
        after=_after(after) if after else (),
        text=query.q or None,
        digest=digest,
    )
    cursor = call.cursor(kind, _cursor(found.after) if found.after else None)
    return FilePage([FileAnswer.of(file) for file in found.files], cursor)


def _cursor(after: tuple[str | bytes, ...]) -> list[str]:
    return [value.hex() if isinstance(value, bytes) else value for value in after]


def _after(key: list[str]) -> tuple[str | bytes, ...]:
    """The id stands last, in hexadecimal."""
    return (*key[:-1], bytes.fromhex(key[-1]))


def get(call: Call, files: Files) -> FileAnswer:
    """The file, in the trash or not."""
    return FileAnswer.of(files.get(call.identity, call.id))


def rename(call: Call, body: schema.ChangeFile, files: Files) -> FileAnswer:
    """The file, renamed."""
    return FileAnswer.of(files.rename(call.identity, call.id, body.name))


def trash(call: Call, files: Files) -> None:
    """Moves the file to the trash; its links end."""
    files.trash(call.identity, call.id)


def restore(call: Call, files: Files) -> FileAnswer:
    """The file, back from the trash; earlier links stay dead."""
    return FileAnswer.of(files.restore(call.identity, call.id))


def link(call: Call, body: schema.CreateLink, files: Files) -> LinkAnswer:
    """A link for 1 hour, or `expires_in` seconds up to 7 days."""
    return LinkAnswer.of(files.link(call.identity, call.id, body.expires_in, body.disposition))


def end_links(call: Call, files: Files) -> None:
    """Ends every link of the file that was made so far."""
    files.end_links(call.identity, call.id)


def content(call: Call, query: schema.ContentQuery, files: Files) -> Reply[None]:
    """The bytes; nginx sends them, by an internal redirect."""
    redirect = files.redirect(call.identity, call.id, query.disposition)
    headers = {"X-Accel-Redirect": redirect.uri}
    if redirect.target is not None:
        # ASCII alone, as a header has to be: the file's name is in it
        headers["X-Sluice-Target"] = json.dumps(msgspec.to_builtins(TargetAnswer.of(redirect.target)))
    return Reply(None, headers=headers)
