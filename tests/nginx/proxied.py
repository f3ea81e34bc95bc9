"""Common to the tests of proxied storages: a blob and a part on a stand-in, and requests for them."""

import uuid
from typing import Any

from tests.nginx.edge import Edge, Reply

CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
BODY = bytes(range(256)) * 1000
SHA256 = "ab" * 32
EVIL = "the store's own words"
"""Must not reach a client."""


def download(edge: Edge, blob: str, method: str = "GET", **headers: str) -> Reply:
    """Requests a blob of `SIZE` bytes by a link."""
    token = edge.token("link", file=blob, filename="n", type="text/x-thing")
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return edge.ask(method, f"/d/{token}/n", headers=given)


def impatient(text: str) -> str:
    """For snippets/storage_get.conf and storage_put.conf: a silent storage times out after a second."""
    changed = text.replace("proxy_read_timeout 30s", "proxy_read_timeout 1s")
    changed = changed.replace("proxy_read_timeout 60s", "proxy_read_timeout 1s")
    assert changed != text
    return changed


class Part:
    """A part that may be sent: its token, and the error when it is refused."""

    def __init__(self, edge: Edge, to: str, **claims: Any) -> None:
        self.edge = edge
        given = {"upload": uuid.uuid4().hex, "part": 3, "size": len(BODY), "sha256": SHA256, "storage": "main"}
        self.token = edge.token("part", **{**given, "to": to, **claims})

    def put(self, body: bytes = BODY, method: str = "PUT", **headers: str) -> Reply:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.edge.ask(method, f"/p/{self.token}", body=body, headers=given)

    def head(self, *lines: str) -> bytes:
        return "\r\n".join([f"PUT /p/{self.token} HTTP/1.1", "Host: h", *lines, "", ""]).encode()
