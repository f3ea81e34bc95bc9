"""Converts rows to dataclasses by the names of their columns."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, TypeVar

from api.db.pool import Row
from api.db.times import from_nullable, from_row

R = TypeVar("R")

# MariaDB has no booleans, its sums are decimals, and its times have no zone.
_CONVERT: Final[dict[object, Callable[[Any], Any]]] = {bool: bool, int: int, datetime: from_row}


def record(kind: type[R], row: Row) -> R:
    """A dataclass from a row. The columns have the names of its fields; missing columns get the default.

    Raises:
        TypeError: a column is not a field, or a field without a default has no column.
    """
    values = list(row)
    for place, convert in _conversions(typing.cast(Any, kind), row._fields):
        values[place] = convert(values[place])
    return kind(**dict(zip(row._fields, values, strict=True)))


def records(kind: type[R], rows: Iterable[Row]) -> list[R]:
    """Converts several rows; see `record`."""
    return [record(kind, row) for row in rows]


@functools.cache
def _conversions(kind: Any, names: tuple[str, ...]) -> tuple[tuple[int, Callable[[Any], Any]], ...]:
    hints = typing.get_type_hints(kind)
    wanted = ((place, _conversion(hints.get(name))) for place, name in enumerate(names))
    return tuple((place, convert) for place, convert in wanted if convert is not None)


def _conversion(hint: object) -> Callable[[Any], Any] | None:
    if isinstance(hint, types.UnionType):
        return from_nullable if datetime in hint.__args__ else None
    return _CONVERT.get(hint)
