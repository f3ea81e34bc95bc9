"""The S3 calls that every upload makes: signed by our own SigV4, on kept connections, with no SDK between.

All of them are safe to repeat. Source: AWS, "Amazon S3 API Reference" (CreateMultipartUpload, ListParts,
CompleteMultipartUpload, AbortMultipartUpload, ListMultipartUploads, HeadObject, DeleteObject); Ceph's departures are in
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

from api.core.errors import ObjectNotFound, StorageError, StorageFull, StorageUnavailable, UploadGone
from api.storage.kept import KeptConnections
from api.storage.s3.bucket import NAMESPACE, Address
from api.storage.s3.sigv4 import Credentials, Presigner, encode

Part = tuple[int, str]
"""(size, ETag)."""

_LIFE: Final = 900
"""Seconds that a signature is good for: more than clocks that are a little off may differ."""
_BINARY: Final = {"content-type": "application/octet-stream"}


class PastTheEnd(StorageError):
    """A range begins behind the object's last byte."""


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
        """Makes the object of these parts. Raises UploadGone, StorageFull, StorageUnavailable."""
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(parts[number][1])}</ETag></Part>"
            for number in sorted(parts)
        )
        body = f'<CompleteMultipartUpload xmlns="{NAMESPACE}">{listed}</CompleteMultipartUpload>'.encode()
        _, found = self._call("POST", object_key, f"uploadId={encode(upload_id)}", {}, body)
        if found is not None and _local(found) == "Error":  # S3 may find out after it has said 200
            raise _error("complete", _text(found, "Code"))

    def abort(self, object_key: str, upload_id: str) -> None:
        """Frees an upload's parts. Raises UploadGone, ObjectNotFound."""
        self._call("DELETE", object_key, f"uploadId={encode(upload_id)}")

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
        """The answer's headers, and its XML where it has some."""
        sent, path = headers or {}, self._address.path(object_key)
        base = self._address.base

        def target() -> str:
            now = int(self._now())
            signer = Presigner(self._credentials, method, base, path, tuple(sent), now, _LIFE)
            return signer.sign(query, sent)[len(base) :]

        answer = self._connections.ask(method, target, sent, body)
        found = _parse(answer.body)
        if answer.status >= 300:
            raise _error(method, _text(found, "Code") or str(answer.status))
        return answer.headers, found


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
