"""Storage ``local`` fulfils the contract, also after a crash at any step and on a disk that fails."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.core.errors import ObjectNotFound, PartMismatch, StorageError, StorageFull, StorageUnavailable, UploadGone
from api.storage.base import MultipartRef
from api.storage.local.storage import LocalStorage
from tests.storage.contract import PART, PREFIX, ComparingContract, Content, Put, nothing, read


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(
        tmp_path, lambda ref, number, length, exp: f"http://x/{number}/{length}/{exp}", prefix=lambda: PREFIX
    )


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """As nginx does it: the body is written elsewhere, then renamed into a folder that must exist."""

    def send(ref: MultipartRef, number: int, data: bytes) -> bool:
        arriving = tmp_path / "incoming" / f"{ref.upload_id}-{number}"
        arriving.write_bytes(data)
        try:
            arriving.rename(tmp_path / "parts" / ref.upload_id / str(number))
        except FileNotFoundError:
            arriving.unlink()
            return False
        return True

    return send


@pytest.fixture
def sent(storage: LocalStorage, put: Put) -> Content:
    """An open upload with all of its parts."""
    return ComparingContract.send(storage, put, Content(os.urandom(5 * PART - 3)))


class TestLocalStorage(ComparingContract):
    @pytest.fixture
    def storage(self, storage: LocalStorage) -> LocalStorage:
        return storage

    @pytest.fixture
    def put(self, put: Put) -> Put:
        return put


def left_over(root: Path) -> list[str]:
    """All files of uploads that are still on the disk."""
    return [str(path.relative_to(root)) for name in ("parts", "assembling") for path in (root / name).iterdir()]


def test_the_folders_are_private(storage: LocalStorage, tmp_path: Path) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("incoming", "parts", "assembling", "objects"), 0o700
    )


def test_the_urls_length_is_the_parts(storage: LocalStorage) -> None:
    ref = Content(os.urandom(2 * PART + 5)).ref
    assert [storage.presign_part(ref, n, "", 9).url for n in (1, 2, 3)] == [
        f"http://x/1/{PART}/9",
        f"http://x/2/{PART}/9",
        "http://x/3/5/9",
    ]


class TestCrashes:
    """The remains of a killed process, and how the next complete uses them."""

    @pytest.fixture
    def private(self, tmp_path: Path, sent: Content) -> Path:
        """Moves the folder as complete does, to a place that no PUT reaches."""
        folder = tmp_path / "assembling" / sent.ref.upload_id
        (tmp_path / "parts" / sent.ref.upload_id).rename(folder)
        return folder

    def finish(self, storage: LocalStorage, what: Content, root: Path) -> None:
        assert storage.complete(what.ref, what.hashes, nothing).sha256 == what.sha256
        assert read(storage, what.ref.object_key) == what.data
        assert left_over(root) == []

    def test_after_the_folder_was_moved(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path
    ) -> None:
        assert storage.list_parts(sent.ref) == {n: len(sent.part(n)) for n in sent.numbers}
        assert sent.ref.upload_id in set(storage.list_uploads())
        self.finish(storage, sent, tmp_path)

    @pytest.mark.parametrize(
        "found",
        [
            lambda data: b"",
            lambda data: data[: PART + 100],
            lambda data: data[: 3 * PART],
            lambda data: data,
            lambda data: data + b"more",
            lambda data: b"\0" * len(data),
            lambda data: data[:PART] + b"\0" * PART + data[2 * PART :],
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            lambda data: os.urandom(2 * PART),
        ],
        ids=["empty", "cut in a part", "cut between", "whole", "longer", "zeros", "a hole", "a bit", "junk"],
    )
    def test_with_a_partly_assembled_target(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path, found: Callable[[bytes], bytes]
    ) -> None:
        (private / ".object").write_bytes(found(sent.data))
        self.finish(storage, sent, tmp_path)

    def test_after_the_object_was_renamed_and_before_the_parts_were_freed(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "objects" / sent.ref.object_key
        target.parent.mkdir(parents=True)
        target.write_bytes(sent.data)
        (private / ".lock").touch()
        self.finish(storage, sent, tmp_path)

    def test_while_the_parts_were_freed(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "objects" / sent.ref.object_key
        target.parent.mkdir(parents=True)
        target.write_bytes(sent.data)
        for number in (1, 2):
            (private / str(number)).unlink()
        self.finish(storage, sent, tmp_path)

    def test_an_object_of_other_bytes_is_assembled_again_while_the_parts_are_there(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "objects" / sent.ref.object_key
        target.parent.mkdir(parents=True)
        target.write_bytes(b"\0" * sent.ref.size)
        self.finish(storage, sent, tmp_path)

    def test_an_object_of_other_bytes_without_parts_is_never_taken_for_the_upload(
        self, storage: LocalStorage, sent: Content, tmp_path: Path
    ) -> None:
        storage.complete(sent.ref, sent.hashes, nothing)
        (tmp_path / "objects" / sent.ref.object_key).write_bytes(b"\0" * sent.ref.size)
        with pytest.raises(StorageUnavailable):
            storage.complete(sent.ref, sent.hashes, nothing)

    def test_after_a_wrong_part_was_dropped_and_before_the_folder_came_back(
        self, storage: LocalStorage, sent: Content, private: Path, put: Put, tmp_path: Path
    ) -> None:
        (private / "2").unlink()
        with pytest.raises(PartMismatch) as caught:
            storage.complete(sent.ref, sent.hashes, nothing)
        assert caught.value.parts == (2,)
        assert put(sent.ref, 2, sent.part(2))
        self.finish(storage, sent, tmp_path)

    def test_a_create_that_came_late_does_not_stop_complete(
        self, storage: LocalStorage, sent: Content, private: Path, put: Put, tmp_path: Path
    ) -> None:
        storage.create(sent.ref)
        put(sent.ref, 1, b"late")
        self.finish(storage, sent, tmp_path)

    @pytest.mark.parametrize("late_create", [False, True])
    def test_an_abort_that_was_cut_short_is_finished(
        self, storage: LocalStorage, sent: Content, private: Path, tmp_path: Path, late_create: bool
    ) -> None:
        (private / "1").unlink()
        if late_create:
            storage.create(sent.ref)
        storage.abort(sent.ref)
        assert left_over(tmp_path) == []
        with pytest.raises(UploadGone):
            storage.list_parts(sent.ref)

    def test_one_part_that_was_renamed_already(self, storage: LocalStorage, put: Put, tmp_path: Path) -> None:
        what = ComparingContract.send(storage, put, Content(os.urandom(100)))
        private, target = tmp_path / "assembling" / what.ref.upload_id, tmp_path / "objects" / what.ref.object_key
        (tmp_path / "parts" / what.ref.upload_id).rename(private)
        target.parent.mkdir(parents=True)
        (private / "1").rename(target)
        self.finish(storage, what, tmp_path)


class TestSteps:
    """A kill before each of complete's steps: each step is made to fail once."""

    STEPS = (
        "os.open",
        "os.fstat",
        "os.ftruncate",
        "os.fsync",
        "os.copy_file_range",
        "os.preadv",
        "pathlib.Path.rename",
    )

    @pytest.mark.parametrize("step", [*STEPS, "shutil.rmtree"])
    def test_a_failure_at_any_step_loses_nothing_and_the_repeat_succeeds(
        self, storage: LocalStorage, sent: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        calls = count_calls(monkeypatch, step, lambda: storage.complete(sent.ref, sent.hashes, nothing))
        assert calls  # the step belongs to complete
        for failing in {1, 2, calls // 2, calls} & set(range(1, calls + 1)):
            shutil.rmtree(tmp_path / "objects")
            (tmp_path / "objects").mkdir()
            folder = tmp_path / "parts" / sent.ref.upload_id
            folder.mkdir()
            for number in sent.numbers:
                (folder / str(number)).write_bytes(sent.part(number))
            with monkeypatch.context() as patch:
                fail_call(patch, step, failing)
                with pytest.raises(StorageUnavailable):
                    storage.complete(sent.ref, sent.hashes, nothing)
            assert storage.complete(sent.ref, sent.hashes, nothing).sha256 == sent.sha256
            assert read(storage, sent.ref.object_key) == sent.data
            assert left_over(tmp_path) == []


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[[], object]) -> int:
    """How often ``run`` calls a function."""
    calls: list[None] = []
    with monkeypatch.context() as patch:
        _wrap(patch, name, lambda: calls.append(None))
        run()
    return len(calls)


def fail_call(patch: pytest.MonkeyPatch, name: str, failing: int) -> None:
    """Makes the n-th call of a function fail, as a broken disk does."""
    left = iter(range(failing - 1, -1, -1))

    def fail() -> None:
        if next(left, 1) == 0:
            raise OSError(errno.EIO, "the disk failed")

    _wrap(patch, name, fail)


def _wrap(patch: pytest.MonkeyPatch, name: str, before: Callable[[], object]) -> None:
    module, _, function = name.rpartition(".")
    owner: Any = {"os": os, "shutil": shutil, "pathlib.Path": Path}[module]
    real, lock = getattr(owner, function), threading.Lock()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with lock:
            before()
        return real(*args, **kwargs)

    patch.setattr(owner, function, wrapped)


def test_while_one_process_assembles_another_is_kept_out(storage: LocalStorage, sent: Content) -> None:
    inside, go_on, completed = threading.Event(), threading.Event(), []

    def hold() -> None:
        inside.set()
        assert go_on.wait(10)

    first = threading.Thread(target=lambda: completed.append(storage.complete(sent.ref, sent.hashes, hold)))
    first.start()
    assert inside.wait(10)
    with pytest.raises(StorageUnavailable, match="another process"):
        storage.complete(sent.ref, sent.hashes, nothing)
    go_on.set()
    first.join()
    assert [one.sha256 for one in completed] == [sent.sha256]


class TestFull:
    def test_a_new_upload_needs_its_size_twice_and_one_part_once(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spacious(monkeypatch, 1000)
        storage.check_room(500, 2)
        storage.check_room(1000, 1)
        for size, parts in ((501, 2), (1001, 1)):
            with pytest.raises(StorageFull):
                storage.check_room(size, parts)

    def test_what_is_to_stay_free_stays_free(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(tmp_path, lambda *_: "", min_free=100)
        spacious(monkeypatch, 1000)
        storage.check_room(900, 1)
        assert storage.room() == 900
        with pytest.raises(StorageFull):
            storage.check_room(901, 1)

    def test_no_room_to_assemble_keeps_every_part_and_takes_more(
        self, storage: LocalStorage, sent: Content, put: Put, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            spacious(patch, sent.ref.size - 1)
            with pytest.raises(StorageFull):
                storage.complete(sent.ref, sent.hashes, nothing)
        assert storage.list_parts(sent.ref) == {n: len(sent.part(n)) for n in sent.numbers}
        assert put(sent.ref, 1, sent.part(1))
        storage.complete(sent.ref, sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_a_disk_that_fills_while_copying_keeps_every_part_and_frees_the_copy(
        self, storage: LocalStorage, sent: Content, put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(code, "full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "copy_file_range", full)
            with pytest.raises(StorageFull):
                storage.complete(sent.ref, sent.hashes, nothing)
        assert storage.list_parts(sent.ref) == {n: len(sent.part(n)) for n in sent.numbers}
        assert not list(tmp_path.rglob(".object"))
        assert put(sent.ref, 2, sent.part(2))
        storage.complete(sent.ref, sent.hashes, nothing)
        assert read(storage, sent.ref.object_key) == sent.data


def spacious(patch: pytest.MonkeyPatch, free: int) -> None:
    """A disk with this many free bytes."""

    class Status:
        f_bavail, f_frsize = free, 1

    patch.setattr(os, "statvfs", lambda path: Status)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
        (errno.EMFILE, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.ENOENT, ObjectNotFound),
    ],
)
@pytest.mark.parametrize("call", ["stat", "open", "delete", "create", "check_room", "room"])
def test_nothing_but_our_own_errors_comes_out(
    storage: LocalStorage,
    sent: Content,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    error: type[StorageError],
) -> None:
    key = sent.ref.object_key
    storage.complete(sent.ref, sent.hashes, nothing)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    calls: dict[str, tuple[Any, str, Callable[[], object]]] = {
        "stat": (Path, "stat", lambda: storage.stat(key)),
        "open": (Path, "open", lambda: storage.open(key)),
        "delete": (os, "unlink", lambda: storage.delete(key)),
        "create": (os, "mkdir", lambda: storage.create(sent.ref)),
        "check_room": (os, "statvfs", lambda: storage.check_room(1, 1)),
        "room": (os, "statvfs", storage.room),
    }
    owner, name, run = calls[call]
    monkeypatch.setattr(owner, name, fail)
    if call == "delete" and error is ObjectNotFound:
        run()  # deleting a missing file succeeds
        return
    with pytest.raises(error) as caught:
        run()
    assert type(caught.value) is error


def test_a_read_error_in_the_middle_is_our_own(storage: LocalStorage, sent: Content) -> None:
    storage.complete(sent.ref, sent.hashes, nothing)
    reader: Any = storage.open(sent.ref.object_key)

    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(errno.EIO, "the disk failed")

        close = reader.close

    reader._file, file = Broken(), reader._file
    with pytest.raises(StorageUnavailable):
        reader.read(1)
    file.close()


def test_a_storage_whose_folder_is_gone_says_so(storage: LocalStorage, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "parts")
    with pytest.raises(StorageUnavailable):
        storage.check()


def test_files_that_are_no_parts_are_not_listed(storage: LocalStorage, sent: Content, tmp_path: Path) -> None:
    for name in (".object", ".lock", "x", "1.tmp"):
        (tmp_path / "parts" / sent.ref.upload_id / name).touch()
    assert set(storage.list_parts(sent.ref)) == set(sent.numbers)


def test_a_body_whose_client_is_gone_is_dropped_and_one_that_arrives_is_not(
    storage: LocalStorage, tmp_path: Path
) -> None:
    incoming = tmp_path / "incoming"
    for name in ("0000000001", "0000000002"):
        (incoming / name).write_bytes(b"half a part")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(incoming / "0000000001", (two_days_ago, two_days_ago))
    assert storage.drop_dead_bodies() == 1
    assert os.listdir(incoming) == ["0000000002"]
    shutil.rmtree(incoming)
    assert storage.drop_dead_bodies() == 0


def test_a_large_object_is_left_to_a_worker_for_its_whole_hash(
    storage: LocalStorage, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.storage.local.storage._SMALL", 2 * PART)
    for parts, later in ((2, False), (3, True)):
        what = ComparingContract.send(storage, put, Content(os.urandom(parts * PART)))
        completed = storage.complete(what.ref, what.hashes, nothing)
        assert (completed.verified, completed.hash_later) == (True, later)
        assert completed.sha256 == (None if later else what.sha256)


def test_the_parts_of_many_are_deleted_beside_the_callers_work(
    storage: LocalStorage, put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    never = SimpleNamespace(Thread=lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr("api.storage.local.storage.threading", never)  # the process is killed before this ends
    what = ComparingContract.send(storage, put, Content(os.urandom(17 * PART)))
    storage.complete(what.ref, what.hashes, nothing)
    assert what.ref.upload_id not in set(storage.list_uploads())
    (left,) = [path for path in tmp_path.rglob("*") if path.name.endswith(what.ref.upload_id) and path.is_dir()]
    storage.drop_dead_bodies()
    assert not left.exists()


def test_keys_are_listed_in_the_order_of_their_bytes(storage: LocalStorage, tmp_path: Path) -> None:
    keys = sorted(f"{PREFIX}/{rest}" for rest in ("a-b", "a/b", "a/b-c", "a/bc", "a0", "b/a/a", "b/a-/a"))
    for key in keys:
        place = tmp_path / "objects" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert list(storage.list_objects()) == keys
    for after in [*keys, f"{PREFIX}/a", f"{PREFIX}/a/", f"{PREFIX}/b/a/zz"]:
        assert list(storage.list_objects(after)) == [key for key in keys if key > after]


def test_a_disk_that_is_not_mounted_lists_nothing_and_says_so(storage: LocalStorage, tmp_path: Path) -> None:
    assert list(storage.list_objects()) == []  # nothing was stored yet
    shutil.rmtree(tmp_path / "objects")
    with pytest.raises(StorageUnavailable):
        list(storage.list_objects())
