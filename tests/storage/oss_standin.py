"""A stand-in for Aliyun OSS on a local socket: it refuses what OSS refuses, and fails on demand.

It replaces a service that cannot be run here. Its rules come from Alibaba's documentation. Tests that pass
against it show that Sluice follows those rules, not that OSS does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from api.core.config import OSSConfig
from tests.storage.oss_bucket import Answer, Bucket, Stored, action, error, xml
from tests.storage.oss_verifier import Account, Refused, Request, verify

ACCOUNT = Account("LTAI5tExample", "s3cr3t-of-the-account")

FAULTS = {
    "503": "returns 503, and does nothing",
    "403": "returns 403, and does nothing",
    "drop": "cuts the connection, and does nothing",
    "hang": "does nothing and sends nothing until the client disconnects",
    "lost": "does it, and cuts the connection without a response",
    "late": "cuts the connection, and continues: the result is visible after `Standin.finish`",
    "cut": "does it, and cuts the connection in the middle of the response's body",
    "garbage": "does it, and returns a page that is no XML",
    "wrong crc": "does it, and returns a wrong CRC64",
    "flip": "does it, and flips a bit of the response's body",
    "damage": "flips a bit of the body before it does anything",
    "rot": "does it, and flips a bit of what it stored afterwards",
    "callback": "does it, and returns 203, as if a callback of the upload failed",
    "whole": "does it, and returns the whole object for a range",
    "silent": "returns an error to HEAD without its code",
}


@dataclass
class Fault:
    """A fault in the next ``times`` requests of an action."""

    action: str
    kind: str
    times: int = 1

    def __post_init__(self) -> None:
        assert self.kind in FAULTS


class Standin:
    """The stand-in, see the module's docstring.

    Attributes:
        url: the endpoint.
        faults: the planned faults.
        seen: (action, request) of all requests, refused ones too.
        clock_offset: seconds that its clock is ahead.
    """

    def __init__(self, url: str, account: Account, bucket: Bucket) -> None:
        self.url = url
        self.account = account
        self.bucket = bucket
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, Request]] = []
        self.clock_offset = 0.0
        self._late: dict[str, Stored] = {}

    def settings(self, **changes: str) -> OSSConfig:
        """Its address and keys."""
        account = self.account
        given = {
            "endpoint": self.url,
            "public_endpoint": "",
            "bucket": account.bucket,
            "access_key": account.access_key,
            "secret_key": account.secret_key,
            "session_token": account.token,
            "region": account.region,
            "signature": "v4",
        }
        return OSSConfig(**(given | changes))

    def fail(self, action: str, kind: str, times: int = 1) -> None:
        self.faults.append(Fault(action, kind, times))

    def finish(self) -> None:
        """Makes late results visible."""
        self.bucket.objects |= self._late

    def count(self, action: str) -> int:
        """Number of requests of this action."""
        return sum(name == action for name, _ in self.seen)

    def fault(self, action: str) -> str:
        """The fault of this request."""
        for fault in self.faults:
            if fault.action == action and fault.times > 0:
                fault.times -= 1
                return fault.kind
        return ""

    def answer(self, request: Request, body: bytes) -> Answer | None:
        """Returns None if the connection is to be cut."""
        name = action(request)
        self.seen.append((name, request))
        kind = self.fault(name)
        if kind == "drop":
            return None
        if kind == "hang":
            return Answer(0)
        if request.method == "OPTIONS":  # browsers send it to a part's URL, unsigned
            return self.bucket.preflight(request)
        if kind == "whole":
            request = replace(request, headers={**request.headers, "range": ""})
        try:
            verify(request, self.account, time.time() + self.clock_offset)
            if kind in ("503", "403"):
                raise Refused("ServiceUnavailable" if kind == "503" else "AccessDenied", "on demand", int(kind))
            if kind == "damage":
                body = bytes([body[0] ^ 1]) + body[1:]
            answer = self.bucket.answer(request, body)
            if kind == "rot":
                self._rot(request)
        except Refused as ex:
            answer = error(ex.code, str(ex), ex.status)
            if kind == "silent":
                answer.headers.pop("x-oss-err")
            return answer
        if kind == "late":
            self._late[request.key] = self.bucket.objects.pop(request.key)
        return None if kind in ("lost", "late") else self._spoilt(answer, kind)

    def _rot(self, request: Request) -> None:
        """Flips a bit of the part or object that was just stored."""
        upload = self.bucket.uploads.get(request.params.get("uploadId", ""))
        stored = upload.parts[int(request.params["partNumber"])] if upload else self.bucket.objects[request.key]
        stored.data = bytes([stored.data[0] ^ 1]) + stored.data[1:]

    def _spoilt(self, answer: Answer, kind: str) -> Answer:
        crc = answer.headers.get("x-oss-hash-crc64ecma")
        if kind == "wrong crc":
            if crc is not None:
                answer.headers["x-oss-hash-crc64ecma"] = str(int(crc) ^ 1)
            answer.body = answer.body.replace(b"<HashCrc64ecma>", b"<HashCrc64ecma>1")
        elif kind == "flip":
            middle = len(answer.body) // 2
            answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
        elif kind == "garbage":
            answer.body = b"<html><p>Please sign in</html>"
        elif kind == "callback":
            answer = Answer(203, {"Content-Type": "application/xml"}, xml("Error", "<Code>CallbackFailed</Code>"))
        elif kind == "cut":
            answer.headers["cut"] = "here"
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    standin: Standin

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients may disconnect at any moment
            super().handle()

    def _handle(self) -> None:
        try:
            request, body = self._read()
        except Refused as ex:
            self.close_connection = True
            answer: Answer | None = error(ex.code, str(ex), ex.status)
        else:
            answer = self.standin.answer(request, body)
        if answer is None:
            self._cut()
        elif answer.status == 0:
            self.connection.settimeout(10)
            with contextlib.suppress(OSError):
                self.connection.recv(1)
            self._cut()
        else:
            self._send(answer)

    def _read(self) -> tuple[Request, bytes]:
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding") or (self.command in ("PUT", "POST") and length is None):
            raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        body = self.rfile.read(int(length or 0))
        if len(body) != int(length or 0):
            raise ConnectionAbortedError("the client went away in the middle")
        url = f"http://{self.headers['Host']}{self.path}"
        return Request.of(self.command, url, self.standin.account.bucket, dict(self.headers.items())), body

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        cut = answer.headers.pop("cut", None)
        for name, value in ({"x-oss-request-id": "5C3D9175B6FC201293AD****"} | answer.headers).items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.wfile.flush()
        if cut:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = _handle  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Logs nothing."""


@contextlib.contextmanager
def running(account: Account, bucket: Bucket) -> Iterator[Standin]:
    """Runs a stand-in, and ends it."""

    class Handler(_Handler):
        """A separate class per stand-in, because it holds the stand-in."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        standin = Handler.standin = Standin(f"http://127.0.0.1:{server.server_port}", account, bucket)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield standin
        finally:
            server.shutdown()
            thread.join()
