"""How a probe judges a storage's responses, and how often it asks a storage that does not answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.core.errors import StorageError, StorageUnavailable
from api.storage.base import MultipartRef, SignedPart
from api.storage.http import Answer
from api.storage.memory import MemoryStorage
from api.storage.probe import ProbedStorage, refuses_wrong_body


class Asked(MemoryStorage, ProbedStorage):
    """Probed by a function, at moments that a test sets."""

    def __init__(self, probe: Callable[[], bool]) -> None:
        MemoryStorage.__init__(self)
        ProbedStorage.__init__(self, lambda: self.now)
        self.now = 1000.0
        self._answer = probe
        self.asked = 0

    enforces_sha256 = ProbedStorage.enforces_sha256

    def probe(self) -> bool:
        self.asked += 1
        return self._answer()


@pytest.mark.parametrize("found", [True, False])
def test_what_was_found_is_not_asked_again(found: bool) -> None:
    storage = Asked(lambda: found)
    before = storage.found
    assert before is None
    assert [storage.enforces_sha256 for _ in range(3)] == [found] * 3
    assert (storage.found, storage.asked) == (found, 1)


def test_a_storage_that_cannot_be_asked_is_asked_again_after_half_a_minute() -> None:
    answers: list[StorageUnavailable | bool] = [StorageUnavailable("away"), StorageUnavailable("away"), True]

    def probe() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    storage = Asked(probe)
    seen = []
    for seconds in (0, 1, 29.9, 30, 59.9, 60):
        storage.now = 1000 + seconds
        seen.append((storage.enforces_sha256, storage.asked, storage.found))
    assert seen == [
        (False, 1, None),
        (False, 1, None),
        (False, 1, None),
        (False, 2, None),
        (False, 2, None),
        (True, 3, True),
    ]


class Answering(MemoryStorage, ProbedStorage):
    """Returns these statuses to a wrong body and to the right one, and stores a body if it returns 200."""

    def __init__(self, wrong: int, right: int, *, keeps: bool = True) -> None:
        MemoryStorage.__init__(self)
        ProbedStorage.__init__(self)
        self.statuses = [wrong, right]
        self.keeps = keeps

    enforces_sha256 = ProbedStorage.enforces_sha256

    def probe(self) -> bool:
        return refuses_wrong_body(self, "prefix")

    def presign_part(self, ref: MultipartRef, number: int, sha256: str, expires_at: int) -> SignedPart:
        return SignedPart(ref.upload_id, {"x-amz-content-sha256": sha256})

    def put(self, method: str, url: str, headers: object, body: bytes) -> Answer:
        status = self.statuses.pop(0)
        if status < 300 and self.keeps:
            self.uploads[url][1] = body
        return Answer(status, {}, b"")


@pytest.mark.parametrize(("wrong", "right", "binds"), [(400, 200, True), (200, 200, False), (403, 200, False)])
def test_only_a_judgement_on_the_body_counts_as_enforcement(
    monkeypatch: pytest.MonkeyPatch, wrong: int, right: int, binds: bool
) -> None:
    storage = Answering(wrong, right)
    monkeypatch.setattr("api.storage.probe.ask", storage.put)
    assert storage.probe() is binds
    assert storage.uploads == {}, "nothing stays behind"


@pytest.mark.parametrize(
    ("wrong", "right", "keeps"),
    [(503, 200, True), (500, 200, True), (429, 200, True), (400, 403, True), (400, 200, False)],
)
def test_a_storage_that_says_nothing_clear_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, wrong: int, right: int, keeps: bool
) -> None:
    storage = Answering(wrong, right, keeps=keeps)
    monkeypatch.setattr("api.storage.probe.ask", storage.put)
    with pytest.raises(StorageError):
        storage.probe()
    assert storage.found is None
    assert storage.uploads == {}
