"""A stand-in for the API on a unix socket or by TCP: a test sets its feed and targets; other requests are recorded."""

import hashlib
import json
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

EDGE_KEY = "e" * 64
DEADLINE = 15.0
T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = DEADLINE) -> T:
    """Polls until the condition holds. Returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.02)  # a poll: nginx sends no event
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
    """Stands in for the API: serves a feed and targets that a test sets, and records and echoes other requests.

    Args:
        path: its socket.
        address: host and port to listen on instead.

    Attributes:
        stopping: whether /healthz says that it is about to end.
        rows: the feed, (moment, kind, subject, generation, expires_at).
        targets: responses of /internal/targets by file id.
        same_content: files with the content of another file, and their differences: (the other file's id, differences).
        others: by file, the replicas that are named one after the other when the one before could not be read.
        reported: (file, storages that could not be read, reason) of each report.
        live: whether /internal/sessions reports a token as valid.
        page: rows in one response of the feed.
        tiers: the response of /internal/tiers; None: an API without tiers.
        reports: accepted batches of usage, by (edge, sequence).
        used: bytes of (day, month) by "kind/id", for /internal/usage; booked reports add to them.
        misdirected: the edge's internal calls that came to the listener for clients' calls.
        answer: makes the response to a client's request; None waits for `release`.
    """

    def __init__(self, path: Path, address: tuple[str, int] | None = None) -> None:
        self.path = path
        self.address = address
        self.stopping = False
        self.rows: list[tuple[int, str, str, int, float]] = []
        self.targets: dict[str, Answer] = {}
        self.same_content: dict[str, tuple[str, dict[str, Any]]] = {}
        self.live = True
        self.sessions_asked: list[str] = []
        self.page = 1000
        self.figures = Answer(body=b"")
        self.room: int | None = None
        self.answer: Callable[[Seen], Answer] = lambda seen: Answer()
        self.tiers: dict[str, Any] | None = None
        self.reports: dict[tuple[str, int], dict[str, Any]] = {}
        self.reports_seen = 0
        self.used: dict[str, tuple[int, int]] = {}
        self.used_asked: list[str] = []
        self.report_answer: Callable[[Seen], Answer] = self._book
        self.seen: list[Seen] = []
        self.feed_asked: list[int] = []
        self.feed_answer: Callable[[int], Answer] = self._feed
        self.targets_asked: list[str] = []
        self.others: dict[str, list[Answer]] = {}
        self.reported: list[tuple[str, str, str]] = []
        self.misdirected: list[str] = []
        self._servers: list[socketserver.BaseServer] = []
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

            def handle_public(self) -> None:
                if self.path.startswith("/internal/"):
                    stub.misdirected.append(self.path)
                self.handle_any()

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *args: object) -> None:
                pass

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", Handler.handle_any)

        class Quiet:
            daemon_threads = True
            request_queue_size = 128
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # nginx closed the connection

        class UnixServer(Quiet, socketserver.ThreadingUnixStreamServer):
            pass

        class TCPServer(Quiet, socketserver.ThreadingTCPServer):
            pass

        class PublicHandler(Handler):
            """The listener for clients' calls; there is another one for the edge's internal calls."""

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            setattr(PublicHandler, f"do_{method}", PublicHandler.handle_public)
        if self.address:
            host, port = self.address
            self._servers = [TCPServer(self.address, PublicHandler), TCPServer((host, port + 1), Handler)]
        else:
            self._unlink()
            self._servers = [UnixServer(str(self.path), PublicHandler), UnixServer(str(self.own_path), Handler)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def own_path(self) -> Path:
        """The socket for the edge's internal calls."""
        return Path(f"{self.path}.internal")

    def _unlink(self) -> None:
        for path in (self.path, self.own_path):
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []
        self._unlink()

    def handle(self, request: Seen) -> Answer:
        if request.path.startswith("/internal/"):
            if request.header("X-Sluice-Edge") != [EDGE_KEY]:
                return Answer(404)
            if request.path.startswith("/internal/revocations?after="):
                after = int(request.path.partition("=")[2])
                self.feed_asked.append(after)
                return self.feed_answer(after)
            if request.path == "/internal/metrics":
                return self.figures
            if request.path == "/internal/tiers":
                return Answer(body=json.dumps(self.tiers).encode()) if self.tiers else Answer(404)
            if request.path == "/internal/usage":
                self.reports_seen += 1
                return self.report_answer(request)
            if request.path.startswith("/internal/usage/"):
                subject = request.path.removeprefix("/internal/usage/")
                self.used_asked.append(subject)
                day, month = self.used.get(subject, (0, 0))
                return Answer(body=json.dumps({"day": day, "month": month}).encode())
            if request.path.startswith("/internal/sessions/"):
                self.sessions_asked.append(request.path.removeprefix("/internal/sessions/"))
                return Answer(body=json.dumps({"live": self.live}).encode())
            return self._target(request.path.removeprefix("/internal/targets/"))
        if request.path == "/healthz" and self.address:
            return Answer(503 if self.stopping else 200)
        self.seen.append(request)
        return self.answer(request)

    def _target(self, path: str) -> Answer:
        file, _, query = path.partition("?")
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        content, about = self.same_content.get(file, (file, {}))
        self.targets_asked.append(content)
        if "reason" in asked:
            self.reported.append((content, asked["failed"], asked["reason"]))
        answer = self.targets.get(content, Answer(404, body=b'{"error":{"code":"FILE_NOT_FOUND"}}'))
        failed = asked.get("failed", "").split(",")
        for other in self.others.get(content, ()):
            if answer.status == 200 and json.loads(answer.body)["name"] in failed:
                answer = other
        if not about or answer.status != 200:
            return answer
        return replace(answer, body=json.dumps(json.loads(answer.body) | about | {"file": file}).encode())

    def _book(self, request: Seen) -> Answer:
        """Books a report once, as the API does."""
        report = json.loads(request.body)
        key = (report["edge"], report["sequence"])
        if key not in self.reports:
            self.reports[key] = report
            for kind, subject, _, sent, _ in report["rows"]:
                day, month = self.used.get(f"{kind}/{subject}", (0, 0))
                self.used[f"{kind}/{subject}"] = (day + sent, month + sent)
        totals = [
            [kind, subject, *self.used.get(f"{kind}/{subject}", (0, 0))] for kind, subject in report.get("totals", [])
        ]
        return Answer(body=json.dumps({"totals": totals}).encode())

    def moved(self, kind: str, subject: str) -> tuple[int, int]:
        """Reported bytes, sent and received, of an account."""
        rows = [row for report in list(self.reports.values()) for row in report["rows"] if row[:2] == [kind, subject]]
        return sum(row[3] for row in rows), sum(row[4] for row in rows)

    def _feed(self, after: int) -> Answer:
        newer = sorted(row for row in self.rows if row[0] >= after)
        page, rest = newer[: self.page], newer[self.page :]
        position = page[-1][0] if page else after
        rows = [(kind, subject, generation, moment, ends) for moment, kind, subject, generation, ends in page]
        body: dict[str, Any] = {"position": position, "more": bool(rest), "room": self.room, "revocations": rows}
        if self.tiers:
            body["tiers"] = hashlib.sha256(json.dumps(self.tiers).encode()).hexdigest()
        return Answer(body=json.dumps(body).encode())

    def wait_for_feed(self) -> None:
        """Returns after a poll that began after now has been answered and stored.

        The third poll from now was sent after the second one, which began after now, was done.
        """
        asked = len(self.feed_asked)
        wait_for(lambda: len(self.feed_asked) >= asked + 3, "poll of the feed")

    def note(self, kind: str, subject: str, generation: int = 1, seconds: float = 3600) -> None:
        """Writes a row, or writes it again."""
        self.rows = [row for row in self.rows if row[1:3] != (kind, subject)]
        self.rows.append((time.time_ns() // 1000, kind, subject, generation, int(time.time() + seconds)))

    def revoke(self, kind: str, subject: str, generation: int = 1, seconds: float = 3600) -> None:
        """Writes a row, and returns when the edge knows of it."""
        self.note(kind, subject, generation, seconds)
        self.wait_for_feed()
