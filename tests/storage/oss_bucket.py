"""A bucket like OSS's, in memory: multipart uploads, objects, ranges, and every documented error.

Source: Alibaba Cloud's API reference of InitiateMultipartUpload, UploadPart, ListParts, CompleteMultipartUpload,
AbortMultipartUpload, ListMultipartUploads, GetObject, HeadObject, DeleteObject.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fastcrc import crc64

from tests.storage.oss_verifier import Refused, Request


@dataclass
class Stored:
    """Bytes with OSS's metadata."""

    data: bytes
    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def crc(self) -> int:
        """The checksum at the first request: OSS stores it, and does not notice later changes of the bytes."""
        return crc64.xz(self.data)


@dataclass
class Upload:
    key: str
    headers: Mapping[str, str]
    parts: dict[int, Stored] = field(default_factory=dict)


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def xml(name: str, *nodes: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{"".join(nodes)}</{name}>'.encode()


def node(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>"


def error(code: str, message: str, status: int) -> Answer:
    """Responses to HEAD have it in a header, because they have no body."""
    body = xml("Error", node("Code", code), node("Message", message), node("RequestId", "5C3D9175B6FC201293AD****"))
    return Answer(status, {"Content-Type": "application/xml", "x-oss-err": base64.b64encode(body).decode()}, body)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().upper()


CONFIGURATIONS = {"cors", "lifecycle", "publicAccessBlock"}


def action(request: Request) -> str:
    """A parsed request."""
    params, method = request.params, request.method
    if not request.key:
        if CONFIGURATIONS & params.keys():
            return {"GET": "get_configuration", "PUT": "put_configuration"}.get(method, "other")
        return {("GET", True): "list_uploads", ("GET", False): "list_objects", ("PUT", False): "make"}.get(
            (method, "uploads" in params), "other"
        )
    if "uploadId" in params:
        return {"PUT": "upload_part", "POST": "complete", "GET": "list_parts", "DELETE": "abort"}.get(method, "other")
    if "uploads" in params:
        return "create" if method == "POST" else "other"
    return {"GET": "get", "HEAD": "head", "DELETE": "delete"}.get(method, "other")


class Bucket:
    """A bucket, see the module's docstring.

    Args:
        min_part: smallest size in bytes of each part but the last; OSS: 100 KB.
        page: maximum of entries in a list.
    """

    def __init__(self, min_part: int = 100 * 1024, page: int = 1000) -> None:
        self.min_part = min_part
        self.page = page
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self.configurations: dict[str, bytes] = {}
        self.is_there = True
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, request: Request, body: bytes) -> Answer:
        """Raises Refused."""
        with self._lock:
            name = action(request)
            handler = getattr(self, f"_{name}", None)
            if handler is None:
                raise Refused("MethodNotAllowed", request.method, 405)
            if not self.is_there and name != "make":
                raise Refused("NoSuchBucket", "The specified bucket does not exist.", 404)
            made: Answer = handler(request, body)
            return made

    def _make(self, request: Request, body: bytes) -> Answer:
        assert request.headers.get("x-oss-acl") == "private"
        self.is_there = True
        return Answer(200)

    def _get_configuration(self, request: Request, body: bytes) -> Answer:
        (name,) = CONFIGURATIONS & request.params.keys()
        if name not in self.configurations:
            code = {"cors": "NoSuchCORSConfiguration", "lifecycle": "NoSuchLifecycle"}.get(name, "NoSuchConfiguration")
            raise Refused(code, "There is none.", 404)
        return Answer(200, {"Content-Type": "application/xml"}, self.configurations[name])

    def _put_configuration(self, request: Request, body: bytes) -> Answer:
        (name,) = CONFIGURATIONS & request.params.keys()
        prefixes = [rule.findtext("Prefix", "") for rule in ElementTree.fromstring(body).iter("Rule")]  # noqa: S314
        overlap = any(one != two and one.startswith(two) for one in prefixes for two in prefixes)
        if overlap and request.headers.get("x-oss-allow-same-action-overlap") != "true":
            raise Refused("InvalidArgument", "Overlap for same action type.", 400)
        self.configurations[name] = body
        return Answer(200)

    def preflight(self, request: Request) -> Answer:
        """The CORS headers for a browser, by the first matching rule."""
        headers = request.headers
        rules = ElementTree.fromstring(self.configurations.get("cors", b"<CORSConfiguration/>"))  # noqa: S314
        asked = {name for name in headers.get("access-control-request-headers", "").split(",") if name}
        for rule in rules:
            allowed = {
                kind: {node.text for node in rule.iter(f"Allowed{kind}")} for kind in ("Origin", "Method", "Header")
            }
            if (
                headers["origin"] in allowed["Origin"]
                and headers["access-control-request-method"] in allowed["Method"]
                and asked <= allowed["Header"]
            ):
                told = {
                    "Access-Control-Allow-Origin": headers["origin"],
                    "Access-Control-Allow-Methods": ", ".join(sorted(filter(None, allowed["Method"]))),
                }
                return Answer(200, told)
        return error("AccessForbidden", "CORSResponse: This CORS request is not allowed.", 403)

    def _upload(self, request: Request) -> Upload:
        upload = self.uploads.get(request.params["uploadId"])
        if upload is None or upload.key != request.key:
            raise Refused("NoSuchUpload", "The specified upload does not exist.", 404)
        return upload

    def _object(self, request: Request) -> Stored:
        if request.key not in self.objects:
            raise Refused("NoSuchKey", "The specified key does not exist.", 404)
        return self.objects[request.key]

    def _forbid_overwrite(self, request: Request) -> None:
        if request.headers.get("x-oss-forbid-overwrite") == "true" and request.key in self.objects:
            raise Refused("FileAlreadyExists", "The object you specified already exists.", 409)

    def _create(self, request: Request, body: bytes) -> Answer:
        self._forbid_overwrite(request)
        upload_id = f"{next(self._ids):032X}"
        kept = ("content-type", "content-encoding", "cache-control", "x-oss-server-side-encryption")
        self.uploads[upload_id] = Upload(
            request.key, {name: request.headers[name] for name in kept if name in request.headers}
        )
        nodes = node("Bucket", "sluice-test"), node("Key", request.key), node("UploadId", upload_id)
        return Answer(200, {"Content-Type": "application/xml"}, xml("InitiateMultipartUploadResult", *nodes))

    def _upload_part(self, request: Request, body: bytes) -> Answer:
        number, upload = request.params.get("partNumber", ""), self._upload(request)
        if not number.isdigit() or not 1 <= int(number) <= 10_000:
            raise Refused("InvalidArgument", "Part number must be an integer between 1 and 10000.", 400)
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        if request.headers.get("content-md5") not in (None, base64.b64encode(digest).decode()):
            raise Refused("InvalidDigest", "The Content-MD5 you specified was invalid.", 400)
        part = upload.parts[int(number)] = Stored(body, md5(body))
        return Answer(200, {"ETag": f'"{part.etag}"', "x-oss-hash-crc64ecma": str(part.crc)})

    def _list_parts(self, request: Request, body: bytes) -> Answer:
        upload, after = self._upload(request), int(request.params.get("part-number-marker") or 0)
        limit = min(int(request.params.get("max-parts", "1000")), self.page)
        numbers = sorted(number for number in upload.parts if number > after)
        shown, more = numbers[:limit], len(numbers) > limit
        nodes = [node("IsTruncated", str(more).lower()), node("NextPartNumberMarker", shown[-1] if shown else 0)]
        for number in shown:
            part = upload.parts[number]
            inner = node("PartNumber", number), node("ETag", f'"{part.etag}"'), node("Size", len(part.data))
            times = node("LastModified", "2012-02-23T07:01:34.000Z"), node("HashCrc64ecma", part.crc)
            nodes.append(f"<Part>{''.join((*inner, *times))}</Part>")
        return Answer(200, {"Content-Type": "application/xml"}, xml("ListPartsResult", *nodes))

    def _complete(self, request: Request, body: bytes) -> Answer:
        upload = self._upload(request)
        self._forbid_overwrite(request)
        try:
            root = ElementTree.fromstring(body)  # noqa: S314 - our own code's
            wanted = [(int(part.findtext("PartNumber", "")), part.findtext("ETag", "")) for part in root.iter("Part")]
        except (ElementTree.ParseError, ValueError):
            raise Refused("MalformedXML", "The XML you provided was not well-formed.", 400) from None
        if not wanted or [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
            raise Refused("InvalidPartOrder", "The list of parts was not in ascending order.", 400)
        for number, etag in wanted:
            # opaque, and compared without case
            if number not in upload.parts or etag.strip('"').upper() != upload.parts[number].etag:
                raise Refused("InvalidPart", f"Part {number} could not be found, or has another ETag.", 400)
        parts = [upload.parts[number] for number, _ in wanted]
        if any(len(part.data) < self.min_part for part in parts[:-1]):
            raise Refused("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.", 400)
        etag = f"{md5(''.join(part.etag for part in parts).encode())}-{len(parts)}"
        made = self.objects[request.key] = Stored(b"".join(part.data for part in parts), etag, upload.headers)
        del self.uploads[request.params["uploadId"]]
        nodes = node("Bucket", "sluice-test"), node("Key", request.key), node("ETag", f'"{etag}"')
        headers = {"Content-Type": "application/xml", "ETag": f'"{etag}"', "x-oss-hash-crc64ecma": str(made.crc)}
        return Answer(200, headers, xml("CompleteMultipartUploadResult", *nodes))

    def _abort(self, request: Request, body: bytes) -> Answer:
        self._upload(request)
        del self.uploads[request.params["uploadId"]]
        return Answer(204)

    def _list_uploads(self, request: Request, body: bytes) -> Answer:
        params = request.params
        after = params.get("key-marker", ""), params.get("upload-id-marker", "")
        limit = min(int(params.get("max-uploads", "1000")), self.page)
        found = sorted((upload.key, id_) for id_, upload in self.uploads.items())
        found = [pair for pair in found if pair[0].startswith(params.get("prefix", "")) and pair > after]
        shown, last = found[:limit], found[:limit][-1] if found else ("", "")
        nodes = [node("EncodingType", "url"), node("IsTruncated", str(len(found) > limit).lower())]
        nodes += [node("NextKeyMarker", quote(last[0])), node("NextUploadIdMarker", last[1])]
        for key, id_ in shown:
            inner = node("Key", quote(key)), node("UploadId", id_), node("Initiated", "2012-02-23T04:18:23.000Z")
            nodes.append(f"<Upload>{''.join(inner)}</Upload>")
        return Answer(200, {"Content-Type": "application/xml"}, xml("ListMultipartUploadsResult", *nodes))

    def _list_objects(self, request: Request, body: bytes, marked: bool = True) -> Answer:
        params = request.params
        limit = min(int(params.get("max-keys", "100")), self.page)
        prefix, marker = params.get("prefix", ""), params.get("marker", "") if marked else ""
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > marker)
        nodes = [node("EncodingType", "url"), node("IsTruncated", str(len(keys) > limit).lower())]
        if len(keys) > limit:
            nodes.append(node("NextMarker", quote(keys[limit - 1])))
        for key in keys[:limit]:
            stored = self.objects[key]
            inner = node("Key", quote(key)), node("ETag", f'"{stored.etag}"'), node("Type", "Multipart")
            more = node("Size", len(stored.data)), node("StorageClass", "Standard")
            nodes.append(
                f"<Contents>{''.join((*inner, *more, node('LastModified', '2012-02-24T08:43:07.000Z')))}</Contents>"
            )
        return Answer(200, {"Content-Type": "application/xml"}, xml("ListBucketResult", *nodes))

    def _delete(self, request: Request, body: bytes) -> Answer:
        self.objects.pop(request.key, None)
        return Answer(204)

    def _head(self, request: Request, body: bytes) -> Answer:
        found = self._object(request)
        kept = {"ETag": f'"{found.etag}"', "x-oss-hash-crc64ecma": str(found.crc), "x-oss-object-type": "Multipart"}
        return Answer(200, kept | dict(found.headers), found.data)

    def _get(self, request: Request, body: bytes) -> Answer:
        whole = self._head(request, body)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if match is None:
            return whole
        size, first = len(whole.body), int(match[1])
        last = int(match[2]) if match[2] else size - 1
        standard = request.headers.get("x-oss-range-behavior") == "standard"
        if first >= size or last < first:
            if standard:
                raise Refused("InvalidRange", "The requested range cannot be satisfied.", 416)
            return whole
        if last >= size and not standard:
            return whole
        shown = whole.body[first : last + 1]
        where = {"Content-Range": f"bytes {first}-{first + len(shown) - 1}/{size}"}
        return Answer(206, whole.headers | where, shown)
