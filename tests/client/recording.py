"""A server that sends the responses of a test, and records the requests."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Mapping
from types import MappingProxyType


class RecordingServer:
    """See the module's docstring.

    Args:
        status: of every answer.
        headers: of every answer.

    Attributes:
        asked: head and body of each request, as text.
    """

    def __init__(
        self,
        status: int = 401,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes = b"",
        host: str = "127.0.0.1",
    ) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                asked.append(f"{self.requestline}\n{self.headers}\n{self.rfile.read(length).decode(errors='replace')}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RecordingServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
