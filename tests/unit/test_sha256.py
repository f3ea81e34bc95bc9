"""A hash whose state can be saved and resumed: equal to hashlib's at any split."""

from __future__ import annotations

import hashlib
import os

import pytest

from api.core import sha256
from api.core.sha256 import SHA256, resumes

DATA = os.urandom(100_003)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 1000, len(DATA)])
def test_it_is_hashlibs(size: int) -> None:
    whole = SHA256()
    whole.update(DATA[:size])
    assert whole.digest() == hashlib.sha256(DATA[:size]).digest()
    assert whole.digest() == hashlib.sha256(DATA[:size]).digest()  # reading the digest does not end the hash
    whole.update(b"more")
    assert whole.digest() == hashlib.sha256(DATA[:size] + b"more").digest()


@pytest.mark.parametrize("place", [0, 1, 63, 64, 65, 50_000, len(DATA)])
def test_it_continues_from_its_state(place: int) -> None:
    first = SHA256()
    first.update(DATA[:place])
    state = first.state()
    assert resumes(state)
    second = SHA256(state)
    second.update(DATA[place:])
    assert second.digest() == hashlib.sha256(DATA).digest()
    assert first.digest() == hashlib.sha256(DATA[:place]).digest()


@pytest.mark.parametrize("state", [None, b"", b"x" * 114, (SHA256().state() or b"")[:-1]])
def test_other_bytes_are_no_state(state: bytes | None) -> None:
    assert not resumes(state)
    if state is not None:
        with pytest.raises(ValueError, match="not a state"):
            SHA256(state)


def test_without_the_library_it_hashes_and_has_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "_openssl", None)
    whole = SHA256()
    whole.update(DATA)
    assert whole.digest() == hashlib.sha256(DATA).digest()
    assert whole.state() is None
    assert not resumes(b"1l" + bytes(112))
