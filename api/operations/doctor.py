"""Prepares and examines storages for an operator, including a download through the edge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from api.accounts import rows as accounts
from api.blobs import rows as blobs
from api.context import Context
from api.core.errors import Problem, StorageError, StorageUnavailable
from api.core.models import Identity
from api.files import rows as files
from api.files.service import Files
from api.storage.base import Administered, Finding
from api.storage.http import ask

_ABOUT: Final = "download"
_LINK_LIFE: Final = 60


class Doctor:
    """See the module's docstring."""

    def __init__(self, context: Context, links: Files) -> None:
        self._db = context.db
        self._stores = context.stores
        self._links = links
        self._config = context.config

    def storages(self) -> Iterator[tuple[str, str, str, str]]:
        """Every configured storage as (name, kind, place, which new uploads it takes)."""
        tiers = self._config.tier_storages
        for place, (name, storage) in enumerate(self._stores):
            takes = ["new uploads"] if place == 0 else []
            takes += [f"new uploads of tier {tier}" for tier, chosen in tiers.items() if chosen == name]
            where = storage.place if isinstance(storage, Administered) else ""
            yield name, self._stores.kind(name), where, ", ".join(takes) or "no new uploads"

    def init(self, name: str) -> Iterator[str]:
        """Prepares a storage. Yields a line per result.

        Raises:
            StorageError: the storage is not configured, or could not be prepared.
        """
        storage = self._stores.named(name)
        if isinstance(storage, Administered):
            yield from storage.init(self._config.origins)
        else:
            yield "there is nothing to prepare"

    def check(self, name: str) -> Iterator[Finding]:
        """Examines a storage. Raises StorageUnavailable if it is not configured."""
        storage = self._stores.named(name)
        if isinstance(storage, Administered):
            sound = True
            for finding in storage.checks(self._config.origins):
                sound = sound and finding.ok
                yield finding
            if not sound:
                return
        else:
            storage.check()
            yield Finding("storage", True, "answers")
        yield self._download(name)

    def _download(self, name: str) -> Finding:
        """Downloads one byte of a file through the edge. The file is on this storage only."""
        url = self._config.public_url
        try:
            if ask("GET", f"{url}/healthz").status != 200:
                return Finding(_ABOUT, True, f"was not tried: no gateway answers at {url}")
        except StorageUnavailable:
            return Finding(_ABOUT, True, f"was not tried: no gateway answers at {url}", "check again when it runs")
        file = files.any_on(self._db, name)
        if file is None:
            return Finding(_ABOUT, True, "was not tried: no file is on this storage only")
        user = accounts.user_by_id(self._db, file.user_id)
        assert user is not None
        identity = Identity(user.id, b"", user.generation, user.role, user.tier)
        mend = "read edge.log; the edge reaches the storage at its internal endpoint"
        try:
            link = self._links.link(identity, file.id, _LINK_LIFE, "attachment")
            answer = ask("GET", link.url, {"range": "bytes=0-0"})
            if (answer.status, answer.headers.get("content-range")) != (206, f"bytes 0-0/{file.size}"):
                return Finding(_ABOUT, False, f"the edge returns {answer.status} for a range of a file", mend)
            if answer.body != self._first_byte(name, file.blob_id):
                return Finding(_ABOUT, False, "the edge returns other bytes than the storage", mend)
        except (StorageError, Problem) as ex:
            return Finding(_ABOUT, False, str(ex), mend)
        return Finding(_ABOUT, True, f"a range of a file can be read through the edge at {url}")

    def _first_byte(self, name: str, blob_id: bytes) -> bytes:
        object_key = dict(blobs.replicas(self._db, blob_id))[name]
        with closing(self._stores.named(name).open(object_key, 0, 1)) as reader:
            return reader.read(1)
