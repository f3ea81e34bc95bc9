"""An API client, and a client that moves bytes: plain sockets, so that they use little CPU."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from loadtest.benchmarks.content import Content

JSON = dict[str, Any]
PASSWORD = "a long password"
_numbers = itertools.count(1)


class Client:
    """One signed-in user, on one kept connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.username = f"bench{next(_numbers)}"
        self.token = ""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.call("POST", "/users", {"username": self.username, "password": PASSWORD})
        self.sign_in()

    def another(self) -> Client:
        """This session on another connection."""
        found = Client.__new__(Client)
        found.port, found.username, found.token = self.port, self.username, self.token
        found._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        return found

    def sign_in(self) -> JSON:
        """Takes a new access token. Tokens live for 15 minutes."""
        session = self.call("POST", "/sessions", {"username": self.username, "password": PASSWORD})
        self.token = session["access_token"]
        return session

    def request(self, method: str, path: str, body: JSON | None = None) -> tuple[int, bytes]:
        """Returns the status and the body."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        text = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, f"/api/v1{path}", text, headers)
            response = self._connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            self._connection.close()  # nginx has closed it: it was idle while others were measured
            self._connection.request(method, f"/api/v1{path}", text, headers)
            response = self._connection.getresponse()
        return response.status, response.read()

    def call(self, method: str, path: str, body: JSON | None = None) -> JSON:
        """Returns the result of a call that must succeed."""
        status, text = self.request(method, path, body)
        if status >= 300:
            raise SystemExit(f"{method} {path} was answered {status}: {text.decode()}")
        answer: JSON = json.loads(text) if text else {}
        return answer

    def create(self, content: Content, name: str, **members: object) -> JSON:
        return self.call("POST", "/uploads", {"name": name, "size": content.size, **members})

    def send_parts(self, content: Content, upload: JSON) -> None:
        """PUTs every part of an upload, one after another. The upload was created with its parts."""
        with Sender(self.port) as sender:
            for number, part in upload["parts"].items():
                sender.put(urlsplit(part["url"]).path, content.part(int(number)))

    def upload(self, content: Content, name: str) -> JSON:
        """Uploads and completes. Returns the file. For content that complete finishes immediately."""
        upload = self.create(content, name, parts=content.hashes())
        self.send_parts(content, upload)
        file: JSON = self.call("POST", f"/uploads/{upload['id']}/complete")["file"]
        return file

    def link(self, file: JSON) -> str:
        """Creates a link. Returns its path."""
        url: str = self.call("POST", f"/files/{file['id']}/links", {})["url"]
        return urlsplit(url).path


class Sender:
    """PUT and GET on one kept connection, with minimal work in the client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(1024**2))

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def put(
        self,
        path: str,
        pieces: tuple[bytes, memoryview],
        host: str = "bench",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Sends one part and returns its ETag. Any error ends the run."""
        fields = {"Host": host, "Content-Length": str(sum(map(len, pieces))), **headers}
        head = f"PUT {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        self._socket.sendall(head.encode() + pieces[0])
        self._socket.sendall(pieces[1])
        status, fields, rest = self._answer()
        if status not in (200, 201, 204):
            raise SystemExit(f"a PUT was answered {status}: {rest!r}")
        return fields.get("etag", "")

    def get(self, path: str, host: str = "bench") -> int:
        """Reads a body, drops it, and returns its length."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        status, fields, rest = self._answer()
        if status != 200:
            raise SystemExit(f"a GET was answered {status}: {rest!r}")
        length = int(fields.get("content-length", "0"))
        left = length - len(rest)
        while left > 0:
            count = self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
            if count == 0:
                raise SystemExit("a body was cut")
            left -= count
        return length

    def _answer(self) -> tuple[int, dict[str, str], bytes]:
        """Returns the status, the headers by lower-case name, and what was received of the body."""
        text = b""
        while b"\r\n\r\n" not in text:
            received = self._socket.recv(65536)
            if not received:
                raise SystemExit(f"the server closed the connection after {text!r}")
            text += received
        head, _, rest = text.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), fields, rest


def put_parts_of(client: Client, content: Content, upload: JSON) -> None:
    """PUTs every part of an upload to nginx, four in parallel."""
    parts = list(upload["parts"].items())

    def share(first: int) -> None:
        with Sender(client.port) as sender:
            for number, part in parts[first::4]:
                sender.put(urlsplit(part["url"]).path, content.part(int(number)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(share, range(4)))
