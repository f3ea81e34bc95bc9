"""Part sizes and digests at every boundary; clients must compute the same."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.core import digests

MIB, GIB, TIB = 1024**2, 1024**3, 1024**4


@pytest.mark.parametrize(
    ("size", "part_size", "count", "last"),
    [
        (0, 8 * MIB, 0, None),
        (1, 8 * MIB, 1, 1),
        (8 * MIB - 1, 8 * MIB, 1, 8 * MIB - 1),
        (8 * MIB, 8 * MIB, 1, 8 * MIB),
        (8 * MIB + 1, 8 * MIB, 2, 1),
        (9_999 * 8 * MIB, 8 * MIB, 9_999, 8 * MIB),
        (10_000 * 8 * MIB - 1, 8 * MIB, 10_000, 8 * MIB - 1),
        (10_000 * 8 * MIB, 8 * MIB, 10_000, 8 * MIB),
        (10_000 * 8 * MIB + 1, 16 * MIB, 5_001, 1),
        (10_000 * 16 * MIB + 1, 32 * MIB, 5_001, 1),
        (5 * TIB, GIB, 5_120, GIB),
        (2**63 - 1, 2**50, 8_192, 2**50 - 1),
    ],
)
def test_part_sizes_at_the_boundaries(size: int, part_size: int, count: int, last: int | None) -> None:
    assert digests.part_size(size) == part_size
    assert digests.part_count(size) == count
    if last is not None:
        assert digests.part_length(count, size, part_size) == last
    if count > 1:
        assert digests.part_length(1, size, part_size) == part_size


@given(st.integers(0, 2**63 - 1))
def test_parts_cover_any_size_exactly_and_are_at_most_10_000(size: int) -> None:
    length, count = digests.part_size(size), digests.part_count(size)
    assert count <= digests.MAX_PARTS
    assert length == digests.MIN_PART_SIZE or -(-size // (length // 2)) > digests.MAX_PARTS  # no larger than needed
    if count:
        assert (count - 1) * length + digests.part_length(count, size, length) == size
        assert 1 <= digests.part_length(count, size, length) <= length


def test_the_digest_is_over_the_list_also_for_one_part_and_for_none() -> None:
    one, two = hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest()
    assert digests.composite(one + two) == hashlib.sha256(one + two).digest()
    assert digests.composite(one) == hashlib.sha256(one).digest() != one
    assert digests.composite(b"") == digests.EMPTY_DIGEST == hashlib.sha256(b"").digest()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_a_packed_list_comes_apart_again(hashes: list[bytes]) -> None:
    assert digests.split(b"".join(hashes)) == hashes
