"""The S3 calls that every upload makes: signed by our own SigV4, on kept connections, with no SDK between.

All of them are safe to repeat and are repeated, but for CompleteMultipartUpload, which is sent once. Source: AWS,
"Amazon S3 API Reference" (CreateMultipartUpload, ListParts, CompleteMultipartUpload, AbortMultipartUpload,
ListMultipartUploads, HeadObject, DeleteObject, CopyObject, UploadPartCopy); Ceph's departures are in
`api.storage.s3.storage`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from api.core.errors import CompleteDoubtful, ObjectNotFound, StorageError, StorageFull, StorageUnavailable, UploadGone
from api.storage.http import Answer
from api.storage.kept import KeptConnections
from api.storage.s3.bucket import NAMESPACE, Address
from api.storage.s3.sigv4 import Credentials, Presigner, encode

Part = tuple[int, str]
"""(size, ETag)."""

_LIFE: Final = 900
"""Lifetime of a signature in seconds: longer than the usual difference between clocks."""
_COMPLETE_TIMEOUT: Final = 10.0
"""Seconds without a byte of a complete's answer after which a worker looks into it: a client waits for this call."""
_COPY_TIMEOUT: Final = 900.0
"""Seconds for the answer to a copy: RGW takes 0.6 s for 1 GiB, a reference for every 4 MiB."""
_REFUSALS: Final = frozenset(
    {"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML", "QuotaExceeded", "InsufficientCapacity"}
)
"""Codes by which a storage says that it has looked at a complete and changed nothing."""
_BINARY: Final = {"content-type": "application/octet-stream"}


class PastTheEnd(StorageError):
    """A range begins after the object's last byte."""


class TooLarge(StorageError):
    """The storage copies an object of that size in parts alone."""


ERRORS: Final[Mapping[str, type[StorageError]]] = {
    "NoSuchUpload": UploadGone,
    "NoSuchKey": ObjectNotFound,
    "404": ObjectNotFound,
    "NotFound": ObjectNotFound,
    "InvalidRange": PastTheEnd,
    "QuotaExceeded": StorageFull,
    "InsufficientCapacity": StorageFull,
}
"""S3's codes that mean something to us; every other is StorageUnavailable."""


class Calls:
    """See the module's docstring.

    Args:
        now: epoch seconds.
        context: whom to believe under TLS.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        now: Callable[[], float],
        context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._now = now
        self._connections = KeptConnections(address.base, context)

    def head(self, object_key: str) -> Mapping[str, str]:
        """An object's headers, by their names in lower case. Raises ObjectNotFound."""
        headers, _ = self._call("HEAD", object_key)
        return headers

    def peek(self, object_key: str, size: int) -> Mapping[str, str]:
        """The headers of an object that is to have ``size`` bytes, once its last byte was read.

        Raises:
            ObjectNotFound: there is no object, or not its last byte.
        """
        answer = self._send("GET", object_key, "", {"range": f"bytes={size - 1}-{size - 1}"})
        if answer.status == 206 and len(answer.body) == 1:
            return {**answer.headers, "content-length": answer.headers.get("content-range", "").rpartition("/")[2]}
        if answer.status in (200, 206, 416):
            return self.head(object_key)  # it has another size
        raise _error("GET", _text(_parse(answer.body), "Code") or str(answer.status))

    def delete(self, object_key: str) -> None:
        """Deletes an object; one that is not there is deleted already."""
        with suppress(ObjectNotFound):
            self._call("DELETE", object_key)

    def create(self, object_key: str) -> str:
        """Opens a multipart upload; its id."""
        _, found = self._call("POST", object_key, "uploads=", _BINARY)
        upload_id = _text(found, "UploadId")
        if not upload_id:
            raise StorageUnavailable("an upload was opened without an id")
        return upload_id

    def list_parts(self, object_key: str, upload_id: str) -> dict[int, Part]:
        """Every part that is stored, by number. Raises UploadGone."""
        parts: dict[int, Part] = {}
        after = "0"
        while True:
            query = f"max-parts=1000&part-number-marker={after}&uploadId={encode(upload_id)}"
            try:
                _, page = self._call("GET", object_key, query)
            except ObjectNotFound as ex:
                raise UploadGone(str(ex)) from ex  # as RGW says it
            for part in page if page is not None else ():
                if _local(part) == "Part":
                    fields = {_local(field): field.text or "" for field in part}
                    parts[int(fields["PartNumber"])] = (int(fields["Size"]), fields["ETag"])
            if _text(page, "IsTruncated") != "true":
                return parts
            after = _text(page, "NextPartNumberMarker")

    def complete(self, object_key: str, upload_id: str, parts: Mapping[int, Part]) -> None:
        """Makes the object of these parts; sent once.

        Raises:
            CompleteDoubtful: there was no clean answer, and it is unknown whether the storage made the object or will.
            StorageFull, StorageUnavailable: it was refused, and nothing has changed.
        """
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(parts[number][1])}</ETag></Part>"
            for number in sorted(parts)
        )
        body = f'<CompleteMultipartUpload xmlns="{NAMESPACE}">{listed}</CompleteMultipartUpload>'.encode()
        query = f"uploadId={encode(upload_id)}"
        try:
            answer = self._send("POST", object_key, query, {}, body, once=True, read_timeout=_COMPLETE_TIMEOUT)
            found = _parse(answer.body)
        except StorageError as ex:
            raise CompleteDoubtful(f"complete: {ex}") from ex
        code = _text(found, "Code")
        if 400 <= answer.status < 600 and code in _REFUSALS:
            raise _error("complete", code)
        # S3 may find out after it has said 200
        if answer.status != 200 or found is None or _local(found) != "CompleteMultipartUploadResult":
            raise CompleteDoubtful(f"complete: {answer.status} {code}")

    # -- copies

    def copy(self, source_key: str, object_key: str) -> None:
        """Makes an object of another one's bytes; RGW takes references to them.

        Raises:
            ObjectNotFound: there is no such source.
            TooLarge: the storage wants `copy_in_parts`.
        """
        headers = {"x-amz-copy-source": self._address.copy_source(source_key)}
        answer = self._send("PUT", object_key, "", headers, read_timeout=_COPY_TIMEOUT)
        found = _parse(answer.body)
        code = _text(found, "Code")
        if code in ("InvalidRequest", "EntityTooLarge"):
            raise TooLarge(f"copy: {code}")
        # S3 may find out after it has said 200
        if answer.status != 200 or found is None or _local(found) != "CopyObjectResult":
            raise _error("copy", code or str(answer.status))

    def copy_part(self, source_key: str, object_key: str, upload_id: str, number: int, first: int, last: int) -> str:
        """Makes a part of the bytes ``first`` to ``last`` of another object; its ETag."""
        headers = {
            "x-amz-copy-source": self._address.copy_source(source_key),
            "x-amz-copy-source-range": f"bytes={first}-{last}",
        }
        query = f"partNumber={number}&uploadId={encode(upload_id)}"
        answer = self._send("PUT", object_key, query, headers, read_timeout=_COPY_TIMEOUT)
        found = _parse(answer.body)
        if answer.status != 200 or found is None or _local(found) != "CopyPartResult":
            raise _error("copy part", _text(found, "Code") or str(answer.status))
        return _text(found, "ETag")

    def abort(self, object_key: str, upload_id: str) -> None:
        """Frees an upload's parts. Raises UploadGone, ObjectNotFound."""
        self._call("DELETE", object_key, f"uploadId={encode(upload_id)}")

    def abort_all(self, object_key: str) -> None:
        """Frees the parts of every unfinished upload of a key."""
        for key, upload_id in self.open_uploads(object_key):
            if key == object_key:
                with suppress(UploadGone, ObjectNotFound):
                    self.abort(key, upload_id)

    def abort_strays(self, object_key: str, upload_id: str) -> bool:
        """Frees the key's unfinished uploads but for one; whether that one is unfinished, too."""
        found = [other for key, other in self.open_uploads(object_key) if key == object_key]
        for other in found:
            if other != upload_id:
                with suppress(UploadGone, ObjectNotFound):
                    self.abort(object_key, other)
        return upload_id in found

    def open_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(object key, upload id) of the unfinished uploads below a prefix."""
        key_marker = id_marker = ""
        while True:
            query = (
                f"key-marker={encode(key_marker)}&max-uploads=1000&prefix={encode(prefix)}"
                f"&upload-id-marker={encode(id_marker)}&uploads="
            )
            _, page = self._call("GET", "", query)
            for upload in page if page is not None else ():
                if _local(upload) == "Upload":
                    yield _text(upload, "Key"), _text(upload, "UploadId")
            if _text(page, "IsTruncated") != "true":
                return
            key_marker, id_marker = _text(page, "NextKeyMarker"), _text(page, "NextUploadIdMarker")

    def _call(
        self,
        method: str,
        object_key: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Mapping[str, str], Element | None]:
        """The answer's headers, and its XML if it has any."""
        answer = self._send(method, object_key, query, headers or {}, body)
        found = _parse(answer.body)
        if answer.status >= 300:
            raise _error(method, _text(found, "Code") or str(answer.status))
        return answer.headers, found

    def _send(
        self,
        method: str,
        object_key: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        once: bool = False,
        read_timeout: float | None = None,
    ) -> Answer:
        """The whole answer, whatever it says; all headers are signed."""
        path, base = self._address.path(object_key), self._address.base

        def target() -> str:
            now = int(self._now())
            signer = Presigner(self._credentials, method, base, path, tuple(headers), now, _LIFE)
            return signer.sign(query, headers)[len(base) :]

        return self._connections.ask(method, target, headers, body, once=once, read_timeout=read_timeout)


def _error(what: str, code: str) -> StorageError:
    return ERRORS.get(code, StorageUnavailable)(f"{what}: {code}")


def _parse(body: bytes) -> Element | None:
    if not body.strip():
        return None
    try:
        return ElementTree.fromstring(body.strip())  # noqa: S314 - our own storage's answer
    except ElementTree.ParseError as ex:
        raise StorageUnavailable("an answer that is not XML") from ex


def _local(element: Element) -> str:
    """An element's name without its namespace, which some servers leave out."""
    return element.tag.rpartition("}")[2]


def _text(element: Element | None, name: str) -> str:
    for child in element if element is not None else ():
        if _local(child) == name:
            return child.text or ""
    return ""
