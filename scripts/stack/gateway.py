"""Sluice's servers (the API, the worker and nginx) and the settings they get from the stack."""

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import SIGQUIT
from urllib.parse import urlsplit

from scripts.stack.bodies import drop_dead_bodies
from scripts.stack.ceph import STORAGE, Ceph
from scripts.stack.checks import CannotStart
from scripts.stack.paths import CODE, Paths
from scripts.stack.room import write_if_other
from scripts.stack.secrets import Secrets
from scripts.stack.services import HANG_SECONDS, MariaDB, Pause, Redis, Service
from scripts.stack.tls import Certificate

PYTHON = str(CODE / ".venv" / "bin" / "python")
RENDER = str(CODE / "scripts" / "render-nginx")
_FIND_CODE = {"PYTHONPATH": str(CODE)}
CLIENTS_SECONDS = 4 * HANG_SECONDS
"""Seconds. If all threads for clients have been busy for longer than this, the API hangs."""
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, and printed


@dataclass(frozen=True)
class Address:
    """Where nginx listens.

    Attributes:
        tls: whether clients speak HTTPS to it.
    """

    host: str
    port: int
    tls: bool = False

    @property
    def reachable_host(self) -> str:
        """A host name or address by which this machine reaches nginx."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{_join(self.reachable_host, self.port)}"

    def connection(self) -> http.client.HTTPConnection:
        """A local connection for health checks. TLS certificates are not verified: the port is the stack's own."""
        if self.tls:
            context = ssl._create_unverified_context()  # noqa: S323
            return http.client.HTTPSConnection(self.reachable_host, self.port, timeout=5, context=context)
        return http.client.HTTPConnection(self.reachable_host, self.port, timeout=5)

    @property
    def listen(self) -> str:
        """As in nginx's `listen` directive."""
        return _join(self.host, self.port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def stack_settings(
    paths: Paths,
    address: Address,
    database: MariaDB,
    redis: Redis,
    ceph: Ceph | None = None,
    certificate: Certificate | None = None,
) -> dict[str, str]:
    """The settings that the stack sets, added to the user's settings.

    Args:
        ceph: takes new uploads, if given; content on the local disk stays readable.
        certificate: the edge's, if the user has none.

    Raises:
        CannotStart: the user has set one of these settings, so it would point away from the stack's servers.
    """
    secrets = Secrets(paths.secrets)
    fixed = {
        "SLUICE_SECRET_KEYS_FILE": str(secrets.token_keys),
        "SLUICE_EDGE_KEY_FILE": str(secrets.edge_key),
        "SLUICE_DATABASE_URL": database.url,
        "SLUICE_REDIS_URL": redis.url,
        "SLUICE_STORAGE_ROOT": str(paths.storage),
        "SLUICE_API_BIND": f"unix:{paths.run / 'api.sock'}",
        "SLUICE_METRICS_FOLDER": str(paths.memory / "metrics"),
        "SLUICE_WORKER_HEARTBEAT": str(paths.run / "worker.heartbeat"),
        **(ceph.settings() if ceph else {}),
        **(certificate.settings() if certificate else {}),
    }
    ours = {*fixed, *(name.removesuffix("_FILE") for name in fixed), *(f"{name}_FILE" for name in fixed)}
    if clash := sorted(ours & os.environ.keys()):
        raise CannotStart(f"{', '.join(clash)} is set, but scripts/run starts this server itself: unset it")
    own = _own_settings()
    chosen = ceph_choices(own) if ceph else {}
    return {"SLUICE_PUBLIC_URL": address.url, **chosen, **fixed, **own}


def ceph_choices(own: Mapping[str, str]) -> dict[str, str]:
    """The settings for a Ceph, unless the user has set them.

    Raises:
        CannotStart: the user's SLUICE_STORAGES does not name it.
    """
    if f"{STORAGE}:s3" not in own.get("SLUICE_STORAGES", f"{STORAGE}:s3").split(","):
        raise CannotStart(f"SLUICE_STORAGES does not name {STORAGE}:s3, which --storage ceph starts")
    settings = {"SLUICE_STORAGES": f"{STORAGE}:s3,local:local"}
    public = urlsplit(own.get("SLUICE_PUBLIC_URL", "")).hostname
    ways = [f"SLUICE_S3_{name}{way}" for name in ("", f"{STORAGE.upper()}_") for way in ("PUBLIC_ENDPOINT", "VIA_EDGE")]
    if public not in (None, "localhost", "127.0.0.1", "::1") and not own.keys() & set(ways):
        settings[f"SLUICE_S3_{STORAGE.upper()}_VIA_EDGE"] = "1"  # radosgw listens on loopback only
    return settings


def _own_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")}


def settings_in_force(settings: Mapping[str, str]) -> dict[str, str]:
    """Let the API check all settings before any server starts.

    Raises:
        CannotStart: with every problem.
    """
    result = api_command(["config"], settings)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise CannotStart("the settings are wrong: " + "; ".join(lines[-20:]))
    return dict(re.findall(r"^(SLUICE_\w+)=(.*)$", result.stdout, re.M))


def api_command(
    arguments: Sequence[str], settings: Mapping[str, str], text: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a short command: `python -m api …`."""
    return subprocess.run(
        [PYTHON, "-m", "api", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **settings, **_FIND_CODE},
        check=False,
    )


def write_command(paths: Paths, settings: Mapping[str, str]) -> Path:
    """Write a script that runs `python -m api` with the stack's settings, for the user's terminal."""
    path = paths.run / "api"
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in {**settings, **_FIND_CODE}.items())
    drop = f"setpriv --reuid={os.geteuid()} --regid={os.getegid()} --clear-groups --"
    program = (
        "#!/bin/sh\n"
        f'[ "$(id -u)" = {os.geteuid()} ] || exec {drop} "$0" "$@"\n'
        f'exec env {given} {shlex.quote(PYTHON)} -m api "$@"\n'
    )
    write_if_other(path, program, mode=0o700)
    return path


class _ApiProcess(Service):
    def __init__(self, paths: Paths, settings: Mapping[str, str]) -> None:
        super().__init__(paths)
        self.settings = settings

    def environment(self) -> Mapping[str, str]:
        return {**self.settings, **_FIND_CODE}


class API(_ApiProcess):
    """gunicorn on a unix socket."""

    name = "api"
    stop_seconds = 25  # more than gunicorn gives its workers
    _clients_at = 0.0

    def prepare(self, pause: Pause) -> None:
        """Migrate the database, and restart all counts of busy threads: process names may have changed."""
        shutil.rmtree(self.settings["SLUICE_METRICS_FOLDER"], ignore_errors=True)
        self.run([PYTHON, "-m", "api", "migrate"], pause)

    def command(self) -> Sequence[str]:
        config = str(CODE / "api" / "gunicorn_conf.py")
        return [PYTHON, "-m", "gunicorn", "-c", config, "api.app:get_app()"]

    def ready(self) -> bool:
        """Whether the API is up. A dependency that is down, for example a storage, does not delay startup."""
        return self._ask("api.sock.internal") == 200

    def alive(self) -> bool:
        """Whether the edge gets answers, and clients have got some lately. Calls that wait for a storage may take long.

        gunicorn ends a process only if its main thread hangs, not if all other threads do.
        """
        now = time.monotonic()
        if self._ask("api.sock"):
            self._clients_at = now
        return self._ask("api.sock.internal") != 0 and now - self._clients_at < CLIENTS_SECONDS

    def spawn(self, command: Sequence[str] | None = None) -> "subprocess.Popen[bytes]":
        """Start it, with the counts of busy threads forgotten."""
        self._clients_at = time.monotonic()
        return super().spawn(command)

    def _ask(self, name: str) -> int:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = _connect_unix(self.paths.run / name)
        return 0 if connection.sock is None else _status(connection, "/healthz")


class Worker(_ApiProcess):
    """Runs background jobs. It listens on no port, so it is ready as soon as it runs.

    Args:
        paths: the stack's folders.
        settings: the stack's settings.
        database: if it is down, that explains a missing heartbeat.
    """

    name = "worker"
    stop_seconds = 30  # a running segment saves its position

    def __init__(self, paths: Paths, settings: Mapping[str, str], database: MariaDB) -> None:
        super().__init__(paths, settings)
        self.database = database
        self._heartbeat = Path(settings["SLUICE_WORKER_HEARTBEAT"])
        self._last_beat = 0

    def command(self) -> Sequence[str]:
        return [PYTHON, "-m", "api", "worker"]

    def ready(self) -> bool:
        return True

    def alive(self) -> bool:
        """Whether the worker has written a heartbeat since the last call. It writes one after it has read its rows."""
        try:
            beat = self._heartbeat.stat().st_mtime_ns
        except OSError:
            beat = 0
        beaten, self._last_beat = beat != self._last_beat, beat
        return beaten or not self.database.alive()


class Nginx(Service):
    """The edge.

    Args:
        paths: the stack's folders.
        settings: all settings in force, the stack's included.
        address: the address that it listens on.
    """

    name = "nginx"
    _session = 0
    stop_signal = SIGQUIT  # lets short requests end; a longer download is cut, and the client resumes it with a Range

    def __init__(self, paths: Paths, settings: Mapping[str, str], address: Address) -> None:
        super().__init__(paths)
        self.settings = settings
        self.address = address

    def environment(self) -> Mapping[str, str]:
        """The variables of `scripts/render-nginx --variables`. nginx itself reads no environment variables."""
        known = {
            **self.settings,
            "SLUICE_LISTEN": self.address.listen,
            "SLUICE_NGINX_DIR": str(self.paths.nginx),
            "SLUICE_LOG_DIR": str(self.paths.log),
            "SLUICE_API_SOCKET": str(self.paths.run / "api.sock"),
            "SLUICE_EDGE_SOCKET": str(self.paths.run / "edge.sock"),
        }
        return {name: known.get(name, "") for name in _edge_variables()}

    def prepare(self, pause: Pause) -> None:
        """Write the configuration, and delete half-received bodies of killed requests."""
        with suppress(OSError):
            # The folder stays: a full disk has no space for a new one.
            for body in (self.paths.storage / "incoming").iterdir():
                body.unlink()
        self.run([RENDER, str(self.config.parent)], pause)

    @property
    def config(self) -> Path:
        """The configuration's folder, beside nginx's pid file: in memory, since a full disk has no space for them."""
        return self.paths.memory / "nginx" / "nginx.conf"

    def spawn(self, command: Sequence[str] | None = None) -> "subprocess.Popen[bytes]":
        """Start nginx. If the folder in memory has vanished, write the configuration again first."""
        if command is None and not self.config.exists():
            self.paths.make_memory()
            environment = {**os.environ, **self.environment()}
            subprocess.run([RENDER, str(self.config.parent)], env=environment, check=False)
        process = super().spawn(command)
        self._session = process.pid
        return process

    def tend(self) -> None:
        """Delete the body files that killed workers left."""
        super().tend()
        drop_dead_bodies(self.paths.storage / "incoming", self._session)

    def command(self) -> Sequence[str]:
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        config = self.config
        return [nginx, "-e", str(self.paths.log / "edge.log"), "-c", str(config), "-g", "daemon off;"]

    def ready(self) -> bool:
        """Whether /readyz returns 200. It checks the API, the API's dependencies, and the revocation feed.

        If SLUICE_READY_NETWORKS denies this machine (403), a working edge is enough.
        """
        status = self._ask("/readyz")[0]
        return status == 200 or (status == 403 and self._ask("/healthz")[0] == 200)

    def alive(self) -> bool:
        return self._ask("/healthz")[0] != 0

    def trouble(self) -> str:
        """The problems that /readyz names, joined; empty if there are none."""
        status, body = self._ask("/readyz")
        if status == 0:
            return f"{self.address.url} gives no answer"
        try:
            told = json.loads(body)
        except ValueError:
            return "" if status in (200, 403) else f"/readyz says {status}"
        checks = told.get("checks", {})
        found = [f"{name}: {state}" for name, state in checks.items() if state != "ok"]
        if told.get("status") == "full":
            found.append("the disk is full: uploads are refused")
        if not found and status not in (200, 403):
            found.append(told.get("error", {}).get("message") or f"/readyz says {status}")
        return ", ".join(found)

    def _ask(self, path: str) -> tuple[int, bytes]:
        return _get(self.address.connection(), path)


@cache
def _edge_variables() -> list[str]:
    return subprocess.run([RENDER, "--variables"], capture_output=True, text=True, check=True).stdout.split()


def _connect_unix(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        return None
    return connection


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    """The status of a GET; 0 if there is no answer."""
    return _get(connection, path)[0]


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    """The status and the body of a GET; 0 if there is no answer."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
