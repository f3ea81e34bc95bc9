"""A minute of kills, stops and restarts loses no acknowledged data. Longer: `python -m tests.chaos`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.stack.services import server_folder
from tests.chaos.__main__ import say
from tests.chaos.ledger import File, Ledger
from tests.chaos.run import run
from tests.chaos.stand import Stand

pytestmark = pytest.mark.timeout(900)  # a minute of faults, plus the verdict on a busy machine
SEED = 13


@pytest.fixture
def data() -> Iterator[Path]:
    """An empty data folder that the servers' user may use."""
    with server_folder() as folder:
        yield folder


@pytest.mark.parametrize("storage", ["local", "ceph"])
def test_a_minute_of_faults_loses_nothing_that_was_acknowledged(data: Path, storage: str) -> None:
    """On Ceph one file's key gets an open upload, as after a create whose response was lost. The sweep frees it."""

    def meddle(stand: Stand, ledger: Ledger) -> None:
        if storage == "ceph":
            key = stand.query("SELECT object_key FROM replica WHERE storage = 'ceph' ORDER BY created_at LIMIT 1")[0][0]
            stand.s3().create_multipart_upload(Bucket="sluice", Key=key)

    result = run(data, storage, SEED, seconds=60, say=say, meddle=meddle)
    say(result.report)
    assert result.findings == []
    assert result.counts["acknowledged"] > 20
    assert result.counts["open uploads of files"] == 0, "the sweep frees what a lost create left"


def test_what_is_lost_changed_undone_or_left_behind_is_found(data: Path) -> None:
    """Breaks data by hand, as a defect would. The verdict must report it."""

    def meddle(stand: Stand, ledger: Ledger) -> None:
        lost, changed, trashed, given_away = (file for file, _ in zip(single_files(ledger), range(4), strict=False))
        object_of(stand, lost).unlink()
        object_of(stand, changed).write_bytes(b"?" * changed.content.size)
        object_of(stand, trashed).with_name("0123456789abcdef0123456789abcdef").write_bytes(b"of no row")
        stand.query("UPDATE file SET trashed_at = UTC_TIMESTAMP(6) WHERE id = UNHEX(%s)", [trashed.id])
        stranger = stand.query("SELECT id FROM user WHERE username = 'chaos-probe'")[0]
        stand.query("UPDATE file SET user_id = %s WHERE id = UNHEX(%s)", [*stranger, given_away.id])

    result = run(data, "local", SEED, seconds=10, say=say, meddle=meddle)
    say(result.report)
    kinds = Counter(kind for kind, _ in result.findings)
    assert kinds["lost"] >= 3, "an object that is gone, by its user and by its row; a file that is in no list"
    assert kinds["wrong"] >= 2, "other bytes; a file in the trash that was not put there"
    assert kinds["orphan"] >= 1, "an object without a row, and the sweep's doubt about its rows"
    assert kinds.keys() == {"lost", "wrong", "orphan"}


def single_files(ledger: Ledger) -> Iterator[File]:
    """Live files whose content no other file has."""
    files = [file for account in ledger.accounts for file in account.files.values() if file.content.size > 1]
    seeds = Counter(file.content.seed for file in files)
    return (file for file in files if file.standing == "live" and seeds[file.content.seed] == 1)


def object_of(stand: Stand, file: File) -> Path:
    """The path of a file's bytes on the local disk."""
    sql = "SELECT object_key FROM replica JOIN file USING (blob_id) WHERE file.id = UNHEX(%s)"
    return stand.storage / "objects" / str(stand.query(sql, [file.id])[0][0])
