"""Requests to OSS and its responses: lists of parts with their CRC64, which oss2 drops, and bodies, which it trusts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from api.storage.oss import crc64
from api.storage.oss.errors import Passing


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part; ``crc`` is its CRC64, if OSS tells it."""

    size: int
    etag: str
    crc: int | None


def parse_parts(body: bytes, after: int) -> tuple[dict[int, Part], int | None]:
    """A page of ListParts: the parts by number, and the number after which the next page begins, if there is one.

    Args:
        after: the number after which this page had to begin.

    Raises:
        ValueError, ElementTree.ParseError: it is no such page.
    """
    root = ElementTree.fromstring(body)  # noqa: S314 - our own storage's
    parts = {int(_text(node, "PartNumber")): _parse_part(node) for node in root.findall("Part")}
    if _text(root, "IsTruncated") != "true":
        return parts, None
    following = int(_text(root, "NextPartNumberMarker"))
    if following <= after:
        raise ValueError("a list that does not end")
    return parts, following


def _parse_part(node: ElementTree.Element) -> Part:
    crc = node.findtext("HashCrc64ecma")
    return Part(int(_text(node, "Size")), _text(node, "ETag").strip('"'), int(crc) if crc else None)


def _text(node: ElementTree.Element, name: str) -> str:
    found = node.findtext(name)
    if found is None:
        raise ValueError(f"no {name}")
    return found


class Body:
    """An object's bytes, none missing and none too many.

    The CRC64 can be compared for a whole object only: it is the whole object's in the answer to a range, too.

    Args:
        answer: oss2's GetObjectResult.
        left: bytes that are to come.
        expected: the CRC64 of all of them, if OSS tells it.
    """

    def __init__(self, answer: Any, left: int, expected: int | None) -> None:
        self._answer = answer
        self._left = left
        self._expected = expected
        self._crc = 0

    def read(self, size: int = -1, /) -> bytes:
        if size == 0 or not self._left:
            return b""
        try:
            data: bytes = self._answer.read(None if size < 0 else size)
        except OSError as ex:  # requests' errors are
            raise Passing(type(ex).__name__) from ex
        self._left -= len(data)
        if self._left < 0 or (self._left and (size < 0 or not data)):
            raise Passing("a body that is not as long as it was said to be")
        if self._expected is not None:
            self._crc = crc64.update(self._crc, data)
            if not self._left and self._crc != self._expected:
                raise Passing("a body with another CRC64")
        return data

    def close(self) -> None:
        self._answer.close()


class Sending:
    """A body on its way to OSS: its length, which makes it no chunked one, and the CRC64 of what was sent.

    Attributes:
        crc: of the bytes that have been given out.
    """

    def __init__(self, body: Iterable[bytes], length: int) -> None:
        self._body = body
        self._length = length
        self._failure: Exception | None = None
        self.crc = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        left = self._length
        try:
            for piece in self._body:
                self.crc = crc64.update(self.crc, piece)
                left -= len(piece)
                yield piece
        except Exception as ex:
            self._failure = ex
            raise
        if left:
            raise Passing("a body that is not as long as it was said to be")

    def reraise(self) -> None:
        """Raises the body's exception, if there was one, unchanged."""
        if self._failure is not None:
            raise self._failure


class Nothing:
    """No bytes."""

    def read(self, size: int = -1, /) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is held."""
