"""Sets of part numbers, as bits and as ranges."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from api.core.digests import MAX_PARTS
from api.uploads import ranges

numbers = st.sets(st.integers(1, MAX_PARTS), max_size=300).map(sorted)


@given(numbers)
def test_bits_round_trip(parts: list[int]) -> None:
    assert ranges.from_bits(ranges.to_bits(parts)) == parts


@given(numbers)
def test_ranges_hold_the_same_numbers_and_never_touch(parts: list[int]) -> None:
    found = ranges.to_ranges(parts)
    assert [n for first, last in found for n in range(first, last + 1)] == parts
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(found))


@given(numbers, st.integers(0, 400))
def test_missing_is_the_rest(parts: list[int], count: int) -> None:
    assert sorted({*ranges.missing(parts, count), *(n for n in parts if n <= count)}) == list(range(1, count + 1))
    assert not set(ranges.missing(parts, count)) & set(parts)


def test_bits_are_least_significant_first_without_trailing_zeros() -> None:
    assert ranges.to_bits([]) == b""
    assert ranges.to_bits([1]) == b"\x01"
    assert ranges.to_bits([8, 9]) == b"\x80\x01"
    assert len(ranges.to_bits(range(1, MAX_PARTS + 1))) == 1250  # the column's width


def test_trailing_zeros_from_elsewhere_are_read() -> None:
    assert ranges.from_bits(b"\x05\x00\x00") == [1, 3]


@given(numbers, st.integers(0, MAX_PARTS))
def test_ranges_of_bits_are_what_single_steps_come_to(parts: list[int], count: int) -> None:
    there = [n for n in parts if n <= count]
    expected = ranges.to_ranges(there), ranges.to_ranges(ranges.missing(there, count))
    assert ranges.ranges_of_bits(ranges.to_bits(parts), count) == expected
