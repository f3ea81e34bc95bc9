"""A real nginx with the project's own configuration, and a stand-in for the API, each in a test's own folder."""

import http.client
import io
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.vectors import make_tokens

CODE = Path(__file__).resolve().parents[2]
EDGE_KEY = "e" * 64
DEADLINE = 15.0
RENDER = CODE / "scripts" / "render-nginx"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Asks again until the condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.02)
    return value


@dataclass
class Seen:
    """A request that reached the API."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


class StubAPI:
    """Stands in for the API: serves a feed and targets that a test sets, records and echoes the rest.

    Attributes:
        rows: the feed, (id, kind, subject, generation, expires_at).
        targets: answers of /internal/targets by blob id.
        page: rows in one answer of the feed.
        answer: makes the answer to a client's request; None waits for `release`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[int, str, str, int, float]] = []
        self.targets: dict[str, Answer] = {}
        self.page = 1000
        self.answer: Callable[[Seen], Answer] = lambda seen: Answer()
        self.seen: list[Seen] = []
        self.feed_asked: list[int] = []
        self.feed_answer: Callable[[int], Answer] = self._feed
        self.targets_asked: list[str] = []
        self._server: socketserver.ThreadingUnixStreamServer | None = None
        self.start()

    def start(self) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Seen(self.command, self.path, list(self.headers.items()), self.rfile.read(length))
                answer = stub.handle(request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(answer.body if self.command != "HEAD" else b"")
                self.close_connection = True

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *args: object) -> None:
                pass

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", Handler.handle_any)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # nginx hung up

        self.path.unlink(missing_ok=True)
        self._server = Server(str(self.path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.path.unlink(missing_ok=True)

    def handle(self, request: Seen) -> Answer:
        if request.path.startswith("/internal/"):
            if request.header("X-Sluice-Edge") != [EDGE_KEY]:
                return Answer(404)
            if request.path.startswith("/internal/revocations?after="):
                after = int(request.path.partition("=")[2])
                self.feed_asked.append(after)
                return self.feed_answer(after)
            blob = request.path.removeprefix("/internal/targets/")
            self.targets_asked.append(blob)
            return self.targets.get(blob, Answer(404, body=b'{"error":{"code":"FILE_NOT_FOUND"}}'))
        self.seen.append(request)
        return self.answer(request)

    def _feed(self, after: int) -> Answer:
        newer = sorted(row for row in self.rows if row[0] > after)
        page, rest = newer[: self.page], newer[self.page :]
        last_id = page[-1][0] if page else after
        body = {"last_id": last_id, "more": bool(rest), "revocations": page}
        return Answer(body=json.dumps(body).encode())

    def wait_for_feed(self) -> None:
        """Returns once a poll that began after now has been answered and stored.

        The third one from now was sent after the second one, whose start lay after now, was done.
        """
        asked = len(self.feed_asked)
        wait_for(lambda: len(self.feed_asked) >= asked + 3, "poll of the feed")

    def revoke(self, kind: str, subject: str, generation: int = 0, seconds: float = 3600) -> None:
        self.rows.append((len(self.rows) + 1, kind, subject, generation, int(time.time() + seconds)))
        self.wait_for_feed()


def quick_feed(text: str) -> str:
    """For snippets/lua.conf: asks for revocations ten times a second, so that tests wait less."""
    assert "revocation_lag = " in text
    return re.sub(r"revocation_lag = \d+", "revocation_lag = 0.2", text)


def small_dict(text: str) -> str:
    """For snippets/lua.conf: room for a few hundred revocations."""
    assert "revocations 64m" in text
    return text.replace("revocations 64m", "revocations 64k")


class Edge:
    """nginx, its folders, and what to ask it with.

    Args:
        folder: everything is written below it.
        settings: SLUICE_… beside or instead of the defaults.
        api: whether the API's stand-in runs from the start.
        change: what a test does to a rendered file, by name, such as a smaller dict or a shorter wait.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api: bool = True,
        change: Mapping[str, Callable[[str], str]] | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.access_log = folder / "log" / "access.log"
        self.error_log = folder / "log" / "edge.log"
        for name in ("parts", "objects", "incoming"):
            (self.storage / name).mkdir(parents=True)
        (folder / "token_keys").write_text("\n".join(make_tokens.KEYS) + "\n")
        (folder / "edge_key").write_text(EDGE_KEY + "\n")
        # A socket's path has 107 bytes at most; pytest's folders are longer.
        self.socket_folder = Path(f"/tmp/sluice-test-{os.getpid()}-{id(self):x}")
        self.socket_folder.mkdir(mode=0o700)
        self.api = StubAPI(self.socket_folder / "api.sock")
        if not api:
            self.api.stop()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.settings = {
            "SLUICE_LISTEN": f"127.0.0.1:{self.port}",
            "SLUICE_NGINX_DIR": str(folder / "nginx"),
            "SLUICE_LOG_DIR": str(folder / "log"),
            "SLUICE_STORAGE_ROOT": str(self.storage),
            "SLUICE_API_SOCKET": str(self.api.path),
            "SLUICE_SECRET_KEYS_FILE": str(folder / "token_keys"),
            "SLUICE_EDGE_KEY_FILE": str(folder / "edge_key"),
            "SLUICE_READY_NETWORKS": "127.0.0.0/8 ::1/128",
            "SLUICE_TARGET_TTL": "60",
            "SLUICE_REVOCATION_LAG": "2",
            "SLUICE_LINK_GRACE": "30",
            **settings,
        }
        self.config = folder / "nginx" / "nginx.conf"
        self.process: subprocess.Popen[bytes] | None = None
        render(folder / "nginx", self.settings)
        for name, edit in (change or {}).items():
            path = folder / "nginx" / name
            path.write_text(edit(path.read_text()))
        self.start(api)

    def start(self, ready: bool = True) -> None:
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert nginx
        # As root nginx would hand its workers to another user, who may not enter pytest's folders.
        user = "user root;" if os.geteuid() == 0 else ""
        command = [nginx, "-e", str(self.error_log), "-c", str(self.config), "-g", f"daemon off; {user}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self._answers, "answer of nginx")
        if ready:
            wait_for(lambda: self.get("/readyz").status == 200, "revocations")

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.error_log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()
        self.api.stop()
        shutil.rmtree(self.socket_folder)

    # -- asking

    def ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None) -> "Reply":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> "Reply":
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def raw(self, *pieces: bytes) -> bytes:
        """Sends bytes as they are, and reads until nginx hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            for piece in pieces:
                connection.sendall(piece)
            received = b""
            with suppress(ConnectionResetError):
                while data := connection.recv(65536):
                    received += data
            return received

    # -- what is there

    def token(self, purpose: str, **changes: Any) -> str:
        return make_tokens.sign_claims(purpose, {**make_tokens.CLAIMS[purpose], **changes})

    def bearer(self, **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token('access', **changes)}"}

    def store(self, blob: str, content: bytes) -> str:
        """Puts a blob into local storage; its ETag."""
        key = f"00000000/{blob[:2]}/{blob}"
        path = self.storage / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.aim(blob, size=len(content), uri=f"/{key}")

    def aim(self, blob: str, *, size: int, uri: str = "", storage: str = "local") -> str:
        """Lets the API name a place for a blob."""
        digest = make_tokens.hashlib.sha256(blob.encode()).hexdigest()
        body = {"blob": blob, "size": size, "digest": digest, "storage": storage, "uri": uri}
        self.api.targets[blob] = Answer(body=json.dumps(body).encode())
        return f'"{digest}"'

    def log_line(self, request_id: str) -> dict[str, Any]:
        """The access log's line of a request."""

        def find() -> dict[str, Any] | None:
            for line in self.access_log.read_text().splitlines():
                if request_id in line:
                    return json.loads(line)
            return None

        return wait_for(find, f"log line of {request_id}")


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """The error's code; checks the whole shape that every error has."""
        assert self.headers["Content-Type"] == "application/json", self
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message", "request_id"}
        assert self.headers.get_all("X-Request-Id") == [error["request_id"]]
        assert len(error["request_id"]) == 32
        assert error["message"]
        assert self.headers.get_all("Content-Length") == [str(len(self.body))]
        assert "ETag" not in self.headers
        assert "Content-Disposition" not in self.headers
        if self.status == 401:
            assert self.headers["WWW-Authenticate"] == "Bearer"
        if self.status == 503:
            assert self.headers["Retry-After"] == "1"
        return error["code"]


def parse(raw: bytes) -> Reply:
    """One answer out of a connection's bytes."""

    class Source:
        def makefile(self, *_: object) -> Any:
            return io.BytesIO(raw)

    response = http.client.HTTPResponse(Source())  # type: ignore[arg-type]
    response.begin()
    return Reply(response.status, response.headers, response.read())


def render(folder: Path, settings: Mapping[str, str]) -> None:
    subprocess.run([RENDER, folder], env={"PATH": os.environ["PATH"], **settings}, check=True)
