"""Assembly: copied and hashed in one pass, and resumed from any state that an earlier try left."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from api.storage.local.assembly import Assembly, hash_file

PART = 100_000
DATA = os.urandom(6 * PART - 13)
PARTS = [DATA[i : i + PART] for i in range(0, len(DATA), PART)]
HASHES = [hashlib.sha256(part).digest() for part in PARTS]


def nothing() -> None:
    """A `keep_alive` that never stops the work."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every part as received."""
    for number, part in enumerate(PARTS, 1):
        (tmp_path / str(number)).write_bytes(part)
    return tmp_path


def assemble(folder: Path) -> list[int]:
    return Assembly(folder, folder / "target", len(DATA), PART).run(HASHES, nothing)


def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets in the target that bytes are written to."""
    offsets: list[int] = []
    real = os.copy_file_range

    def spy(source: int, target: int, count: int, from_: int, to: int) -> int:
        offsets.append(to)
        return real(source, target, count, from_, to)

    monkeypatch.setattr(os, "copy_file_range", spy)
    return offsets


class TestHashFile:
    @pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, len(DATA)])
    def test_each_part_and_the_whole(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "x").write_bytes(DATA[:size])
        parts, whole = hash_file(tmp_path / "x", size, PART, nothing)
        assert parts == [hashlib.sha256(DATA[:size][i : i + PART]).digest() for i in range(0, size, PART)]
        assert whole == hashlib.sha256(DATA[:size]).digest()

    def test_a_file_that_is_too_short_gives_other_hashes(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(DATA[: PART + 5])
        parts, _ = hash_file(tmp_path / "x", len(DATA), PART, nothing)
        assert parts[0] == HASHES[0]
        assert len(parts) == len(HASHES)
        assert not set(parts[1:]) & set(HASHES)

    def test_it_says_that_it_is_alive_after_each_part(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(DATA)
        calls: list[None] = []
        hash_file(tmp_path / "x", len(DATA), PART, lambda: calls.append(None))
        assert len(calls) == len(PARTS)


class TestAssembly:
    def test_parts_become_the_object(self, folder: Path) -> None:
        assert assemble(folder) == []
        assert (folder / "target").read_bytes() == DATA

    def test_what_an_earlier_try_wrote_rightly_is_kept(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "target").write_bytes(DATA[: 3 * PART + 50])
        offsets = copied(monkeypatch)
        assert assemble(folder) == []
        assert min(offsets) == 3 * PART
        assert (folder / "target").read_bytes() == DATA

    def test_what_an_earlier_try_wrote_wrongly_is_written_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hole = DATA[:PART] + b"\0" * PART + DATA[2 * PART :]  # the file's length was written before its bytes
        (folder / "target").write_bytes(hole)
        offsets = copied(monkeypatch)
        assert assemble(folder) == []
        assert offsets == [PART]
        assert (folder / "target").read_bytes() == DATA

    def test_a_longer_target_is_cut(self, folder: Path) -> None:
        (folder / "target").write_bytes(DATA + b"more")
        assemble(folder)
        assert (folder / "target").read_bytes() == DATA

    @pytest.mark.parametrize("numbers", [[1], [4], [6], [2, 5], [1, 2, 3, 4, 5, 6]])
    def test_wrong_parts_are_all_named(self, folder: Path, numbers: list[int]) -> None:
        for number in numbers:
            (folder / str(number)).write_bytes(os.urandom(len(PARTS[number - 1])))
        assert assemble(folder) == numbers

    def test_the_parts_are_hashed_not_what_was_kept_of_them(self, folder: Path) -> None:
        (folder / "target").write_bytes(DATA)
        (folder / "2").write_bytes(b"x" * PART)
        assert assemble(folder) == [2]

    def test_a_short_part_is_an_error_not_a_hole(self, folder: Path) -> None:
        (folder / "3").write_bytes(PARTS[2][:-1])
        with pytest.raises(OSError, match="shorter") as caught:
            assemble(folder)
        assert caught.value.errno == errno.EIO

    def test_a_missing_part_is_an_error(self, folder: Path) -> None:
        (folder / "3").unlink()
        with pytest.raises(FileNotFoundError):
            assemble(folder)

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_without_copying_in_the_kernel_it_copies_itself(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def missing(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", missing)
        assert assemble(folder) == []
        assert (folder / "target").read_bytes() == DATA

    def test_a_kernel_that_copies_little_at_a_time_is_asked_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.copy_file_range
        monkeypatch.setattr(os, "copy_file_range", lambda s, t, n, a, b: real(s, t, min(n, 7919), a, b))
        assemble(folder)
        assert (folder / "target").read_bytes() == DATA

    def test_nothing_is_left_open_whatever_happens(self, folder: Path) -> None:
        def stop() -> None:
            raise RuntimeError("stop")

        before = set(os.listdir("/proc/self/fd"))
        assemble(folder)
        with pytest.raises(RuntimeError):
            Assembly(folder, folder / "target", len(DATA), PART).run(HASHES, stop)
        (folder / "5").unlink()
        with pytest.raises(FileNotFoundError):
            assemble(folder)
        assert set(os.listdir("/proc/self/fd")) == before
