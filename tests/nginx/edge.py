"""A real nginx with the project's configuration, in a temporary folder."""

import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.nginx.stub_api import DEADLINE, EDGE_KEY, Answer, StubAPI, wait_for
from tests.vectors import make_tokens

CODE = Path(__file__).resolve().parents[2]
RENDER = CODE / "scripts" / "render-nginx"

FILE = {
    "owner": make_tokens.CLAIMS["access"]["sub"],
    "tier": "default",
    "link_tier": "default",
    "filename": 'Grüße "an" 世界 🚀/\\;%.tar.gz',
    "type": "application/x-tar",
}
"""The API's response about a file."""

ABOUT_FILES = (*FILE, "generation")


def quick_feed(text: str) -> str:
    """For snippets/lua.conf: reads revocations ten times per second, so that tests wait less."""
    assert "revocation_lag = " in text
    return re.sub(r"revocation_lag = \d+", "revocation_lag = 0.2", text)


def small_dict(text: str) -> str:
    """For snippets/lua.conf: space for a few hundred revocations."""
    assert "revocations 64m" in text
    return text.replace("revocations 64m", "revocations 64k")


class Edge:
    """nginx, its folders, and functions to send requests to it.

    Args:
        folder: all files are below it.
        settings: SLUICE_… in addition to, or instead of, the defaults.
        api: whether the API's stand-in runs from the start.
        certificate: the trusted certificate, if SLUICE_TLS_CERT is among the settings.
        tiers: the tiers that the API's stand-in returns; see tests/nginx/tiers.py.
        change: changes to rendered files, by name, for example a smaller dict or a shorter wait.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api: bool = True,
        tiers: Mapping[str, Any] | None = None,
        change: Mapping[str, Callable[[str], str]] | None = None,
        certificate: Path | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.certificate = certificate
        self.storage = folder / "storage"
        self.access_log = folder / "log" / "access.log"
        self.error_log = folder / "log" / "edge.log"
        for name in ("parts", "objects", "incoming"):
            (self.storage / name).mkdir(parents=True)
        (folder / "token_keys").write_text("\n".join(make_tokens.KEYS) + "\n")
        (folder / "edge_key").write_text(EDGE_KEY + "\n")
        # A socket's path has at most 107 bytes; pytest's folders are longer.
        self.socket_folder = Path(f"/tmp/sluice-test-{os.getpid()}-{id(self):x}")
        self.socket_folder.mkdir(mode=0o700)
        self.api = StubAPI(self.socket_folder / "api.sock")
        self.api.tiers = dict(tiers) if tiers else None
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
            "SLUICE_EDGE_SOCKET": str(self.socket_folder / "edge.sock"),
            "SLUICE_SECRET_KEYS_FILE": str(folder / "token_keys"),
            "SLUICE_EDGE_KEY_FILE": str(folder / "edge_key"),
            "SLUICE_READY_NETWORKS": "127.0.0.0/8 ::1/128",
            "SLUICE_TARGET_TTL": "60",
            "SLUICE_REVOCATION_LAG": "2",
            "SLUICE_LINK_GRACE": "30",
            "SLUICE_CACHE_STORAGES": "main",
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
        # As root, nginx would run its workers as another user, who may not enter pytest's folders.
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
        assert not self.api.misdirected

    def workers(self) -> set[int]:
        """nginx's worker processes, including those that are still finishing."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def reload(self) -> set[int]:
        """Makes nginx read its configuration again, and waits for the new workers. Returns the old ones."""
        assert self.process
        old = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(self.workers() - old) >= len(old), "new workers")
        return old

    # -- requests

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        seconds: float = DEADLINE,
    ) -> "Reply":
        connection: http.client.HTTPConnection
        if self.certificate:
            context = ssl.create_default_context(cafile=str(self.certificate))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=seconds, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> "Reply":
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def raw(self, *pieces: bytes) -> bytes:
        """Sends raw bytes, and reads until nginx closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            for piece in pieces:
                connection.sendall(piece)
            received = b""
            with suppress(ConnectionResetError):
                while data := connection.recv(65536):
                    received += data
            return received

    # -- stored data

    def token(self, purpose: str, **changes: Any) -> str:
        """A token. These members of a link make it a link to another file with the same content: filename, type,
        generation, and its owner by `sub` and `tier`, as in other tokens."""
        if purpose == "link" and "sub" in changes:
            changes["owner"] = changes.pop("sub")
        if purpose == "link" and "tier" in changes:
            changes["link_tier"] = changes["tier"]
        about = {name: changes.pop(name) for name in ABOUT_FILES if purpose == "link" and name in changes}
        claims = {**make_tokens.CLAIMS[purpose], **changes}
        if about:
            content = claims["file"]
            claims["file"] = hashlib.md5(repr((content, about)).encode(), usedforsecurity=False).hexdigest()
            self.api.same_content[claims["file"]] = (content, about)
        return make_tokens.sign_claims(purpose, claims)

    def bearer(self, **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token('access', **changes)}"}

    def store(self, file: str, content: bytes) -> str:
        """Puts a file into local storage. Returns its ETag."""
        key = f"00000000/{file[:2]}/{file}"
        path = self.storage / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.aim(file, size=len(content), uri=f"/{key}")

    def aim(
        self,
        file: str,
        *,
        size: int,
        uri: str = "",
        storage: str = "local",
        cached: bool = False,
        name: str = "main",
        others: bool = False,
        also: bool = False,
    ) -> str:
        """Makes the API name a place for a file: a storage's kind and name, and the place there.

        Args:
            also: a further replica, which is named after those before it could not be read.
        """
        digest = hashlib.sha256(file.encode()).hexdigest()
        body = {
            "file": file,
            "size": size,
            "digest": digest,
            "storage": storage,
            "uri": uri,
            "cached": cached,
            "others": others,
        }
        body |= {"others": others, "name": name, "generation": make_tokens.CLAIMS["link"]["gen"], **FILE}
        answer = Answer(body=json.dumps(body).encode())
        if also:
            self.api.others.setdefault(file, []).append(answer)
        else:
            self.api.targets[file] = answer
        return f'"{digest}"'

    def log_line(self, request_id: str) -> dict[str, Any]:
        """The access log's line of a request."""

        def find() -> dict[str, Any] | None:
            for line in self.access_log.read_text().splitlines():
                if request_id in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            return None

        return wait_for(find, f"log line of {request_id}")


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """The error's code. Checks the shape that every error has."""
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
        return str(error["code"])


def parse(raw: bytes) -> Reply:
    """One response from a connection's bytes."""

    class Source:
        def makefile(self, *_: object) -> Any:
            return io.BytesIO(raw)

    response = http.client.HTTPResponse(Source())  # type: ignore[arg-type]
    response.begin()
    return Reply(response.status, response.headers, response.read())


def render(folder: Path, settings: Mapping[str, str]) -> None:
    subprocess.run([RENDER, folder], env={"PATH": os.environ["PATH"], **settings}, check=True)
