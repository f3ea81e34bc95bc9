"""The error table, and how a row becomes a response."""

from __future__ import annotations

import re

import pytest

from api.core.errors import FORBIDDEN, KINDS, Kind, Problem, SluiceError

OF_THE_EDGE = {408, 411, 412, 414, 416, 431, 501, 504, 505}


def test_the_table_is_all_of_it() -> None:
    from api.core import errors

    assert len(KINDS) > 30
    assert set(KINDS) == {value for value in vars(errors).values() if isinstance(value, Kind)}


def test_codes_are_unique_and_name_their_constants() -> None:
    from api.core import errors

    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert all(getattr(errors, kind.code) is kind for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_row_is_well_formed(kind: Kind) -> None:
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)+", kind.code) or kind is FORBIDDEN
    assert kind.status in {400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503, 507} | OF_THE_EDGE
    assert kind.message[0].isupper()
    assert kind.message.endswith(".")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_what_is_worth_repeating_says_when_and_nothing_else_does(kind: Kind) -> None:
    assert (kind.retry_after is not None) == (kind.status in {429, 503, 504})
    assert kind.retry_after is None or kind.retry_after >= 1


def test_a_problem_has_its_rows_text_unless_given_another() -> None:
    kind = Kind("BUSY", 429, "Wait.", 60)
    plain, exact = Problem(kind), Problem(kind, "Wait 5 s.", retry_after=5, parts=[1])
    assert (plain.message, plain.retry_after, plain.details) == ("Wait.", 60, {})
    assert (exact.message, exact.retry_after, exact.details) == ("Wait 5 s.", 5, {"parts": [1]})


def test_everything_raised_on_purpose_has_one_root() -> None:
    from api.core import errors

    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(raised) > 10
    assert all(issubclass(one, SluiceError) for one in raised)
