"""Malformed requests, sent byte by byte over a raw socket."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit


class Wire:
    """One connection to the gateway, for one request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._path = parts.path
        self._host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def begin(self, method: str, **headers: str) -> "Wire":
        """Sends request line and headers."""
        lines = [f"{method} {self._path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())
        return self

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, str]:
        """Status and error code; status 0 if the connection ended without a response."""
        response = http.client.HTTPResponse(self.socket)
        try:
            response.begin()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return 0, ""
        answer: dict[str, Any] = json.loads(body) if response.status >= 400 else {}
        return response.status, answer.get("error", {}).get("code", "")
