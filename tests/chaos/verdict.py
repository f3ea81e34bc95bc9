"""The end of a run: waits until all work has ended, collects garbage, and checks every line of the ledger."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.chaos.audit import Auditor
from tests.chaos.ledger import Account, File, Ledger
from tests.chaos.stand import Stand, await_

_AT_REST: Final = 120.0  # seconds, as the next
_IN_ORDER: Final = 40.0
_AUDITORS: Final = 3
_LATER: Final = ("doomed objects", "uploads that are done without a file")
"""Kinds of `Gateway.odd_rows` that are allowed: objects that are kept for hours on purpose, and purged files."""

_DUE: Final = "SELECT storage, object_key FROM doomed WHERE keep_until IS NULL OR keep_until <= UTC_TIMESTAMP(6)"


class Verdict:
    """Checks the final state, see the module's docstring.

    Args:
        say: called with each line of progress.
    """

    def __init__(self, stand: Stand, ledger: Ledger, say: Callable[[str], None]) -> None:
        self._stand = stand
        self._ledger = ledger
        self._say = say

    def reach(self) -> None:
        """Reports all differences; the population has ended, and the faults are over."""
        self._say("waiting until every upload has ended")
        self._rests("uploads in finalizing", "SELECT HEX(id) FROM upload WHERE state = 'finalizing'")
        self._rests("unverified content", "SELECT HEX(id) FROM `blob` WHERE state = 'unverified'")
        self._with_auditors(lambda auditor: auditor.settle_uploads())
        purged = self._age_trash()
        self._say(f"sweeping; {purged} files have been in the trash for a month")
        self._sweep()
        self._rescue()
        self._say("collecting garbage, and checking all acknowledged data")
        self._collect()
        self._with_auditors(lambda auditor: auditor.look())
        self._sweep()
        self._compare()

    def _rests(self, what: str, sql: str) -> None:
        try:
            await_(lambda: not self._stand.query(sql), _AT_REST, what)
        except TimeoutError as ex:
            self._ledger.find("stuck", f"{ex}: {self._stand.query(sql)}")

    def _with_auditors(self, act: Callable[[Auditor], None]) -> None:
        never = threading.Event()

        def one(account: Account) -> None:
            auditor = Auditor(self._stand.address, self._ledger, account, never)
            try:
                act(auditor)
            finally:
                auditor.close()

        with ThreadPoolExecutor(_AUDITORS) as pool:
            list(pool.map(one, [account for account in self._ledger.accounts if account.acknowledged]))

    def _age_trash(self) -> int:
        """Moves every second file with an acknowledged trash call back in time by more than SLUICE_TRASH_DAYS."""
        trashed = [file for account in self._ledger.accounts for file in _trashed(account)][::2]
        with self._stand.database() as cursor:
            for file in trashed:
                sql = "UPDATE file SET trashed_at = trashed_at - INTERVAL 31 DAY WHERE id = UNHEX(%s)"
                cursor.execute(sql, [file.id.replace("-", "")])
                file.standing = "purged"
        return len(trashed)

    def _sweep(self) -> None:
        """Sweeps until the rows are consistent and everything due is deleted."""
        wrong: list[str] = []
        held_back: list[str] = []

        def in_order() -> bool:
            said = self._stand.sweep()
            held_back[:] = [line for line in said.splitlines() if line.startswith("HELD BACK")]
            wrong[:] = [f"to be deleted: {row}" for row in self._stand.query(_DUE)]
            wrong.extend(self._stand.odd_rows(apart_from=_LATER))
            return not wrong or bool(held_back)

        with contextlib.suppress(TimeoutError):
            await_(in_order, _IN_ORDER, "rows in order")
        for text in held_back + wrong:
            self._ledger.find("orphan", text)

    def _rescue(self) -> None:
        """Moves files whose key has an open upload to a new key, as docs/storages.md tells operators to do."""
        in_use = self._stand.open_uploads() & self._pairs("SELECT storage, object_key FROM replica")
        self._ledger.counts["open uploads of files"] = len(in_use)
        if in_use:
            self._say(f"rescuing {len(in_use)} files whose key has an open upload")
            result = self._stand.command("storage", "rescue", self._stand.storage_name)
            if result.returncode:
                self._ledger.find("stuck", f"storage rescue: {result.stdout}{result.stderr}")
            self._sweep()

    def _collect(self) -> None:
        try:
            self._stand.collect_garbage()
        except TimeoutError as ex:
            self._ledger.find("stuck", str(ex))

    def _compare(self) -> None:
        """Compares objects and multipart uploads with the rows that name them."""
        replicas = self._pairs("SELECT storage, object_key FROM replica")
        ended = (
            "SELECT storage, object_key FROM doomed "
            "UNION SELECT storage, object_key FROM upload WHERE state <> 'done' "
            "UNION SELECT storage, copy_key FROM upload WHERE state <> 'done' AND copy_key IS NOT NULL"
        )
        unfinished = "SELECT storage, object_key FROM upload WHERE state IN ('proving', 'uploading')"
        stored = self._stand.stored()
        self._ledger.counts["objects"] = len(stored)
        for storage, key in replicas - stored:
            self._ledger.find("lost", f"the object of a replica's row: {key} at {storage}")
        for storage, key in stored - replicas - self._pairs(ended):
            self._ledger.find("orphan", f"object {key} at {storage}")
        for storage, key in self._stand.open_uploads() - self._pairs(unfinished):
            self._ledger.find("orphan", f"multipart upload of {key} at {storage}")

    def _pairs(self, sql: str) -> set[tuple[str, str]]:
        rows: Iterable[tuple[Any, ...]] = self._stand.query(sql)
        return {(str(storage), str(key)) for storage, key in rows}


def _trashed(account: Account) -> list[File]:
    return [file for file in account.files.values() if file.standing == "trashed"]
