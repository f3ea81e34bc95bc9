"""A private Ceph of one data folder: mon, osd and radosgw as services. scripts/ceph makes and runs each daemon."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scripts.stack.checks import CannotStart, check_port
from scripts.stack.paths import CODE, Paths
from scripts.stack.services import Pause, Service

SCRIPT = str(CODE / "scripts" / "ceph")
STORAGE = "ceph"  # the storage's name, as in the rows of replicas
_LOOPBACK = "127.0.0.1"
_S3_PORTS = range(8480, 8580)
_MON_PORTS = range(16780, 26780, 100)  # the osd uses ports from 10 above; all are below the ephemeral ports
_OSD_GB = (4, 64)  # min, max size of the sparse file; half of the free space when it is made


class Ceph:
    """One private Ceph, see the module's docstring.

    Args:
        paths: the stack's folders. All files are in `ceph`, except for sockets, pids and logs.
        s3_port: where radosgw listens; default: a free port, kept for later starts.
    """

    def __init__(self, paths: Paths, s3_port: int | None = None) -> None:
        self.paths = paths
        self.folder = paths.data / "ceph"
        self.s3_port = s3_port or 0
        self._given_port = s3_port
        self._environment: dict[str, str] = {}
        self.services: list[Service] = [Mon(self), Osd(self), RadosGW(self)]

    @property
    def holds_data(self) -> bool:
        """Whether a Ceph was made here before."""
        return (self.folder / "osd" / ".made").exists()

    @property
    def url(self) -> str:
        return f"http://{_LOOPBACK}:{self.s3_port}"

    def environment(self) -> Mapping[str, str]:
        """The environment that points scripts/ceph at this Ceph."""
        return self._environment

    def configure(self) -> None:
        """Choose ports, and write the configuration and the keys.

        Raises:
            CannotStart: the requested port is taken, or Ceph is not installed.
        """
        remembered = self._remembered()
        if self._given_port is None:
            self.s3_port = _free_port(remembered.get("RGW_PORT"), _S3_PORTS)
        else:
            check_port(_LOOPBACK, self._given_port)
        mon_port = _free_port(remembered.get("CEPH_PORT"), _MON_PORTS)
        least, most = _OSD_GB
        half = shutil.disk_usage(self.paths.data).free // 2 // 1024**3
        self._environment = {
            "CEPH_ROOT": str(self.folder),
            "CEPH_RUN": str(self.paths.run),
            "CEPH_LOG": str(self.paths.log),
            "RGW_PORT": str(self.s3_port),
            "CEPH_PORT": str(mon_port),
            "OSD_GB": str(remembered.get("OSD_GB", min(most, max(least, half)))),
        }
        command = [SCRIPT, "configure"]
        environment = {**os.environ, **self._environment}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise CannotStart((result.stderr or result.stdout).strip())

    def _remembered(self) -> dict[str, int]:
        try:
            return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)\n", self._settings.read_text())}
        except OSError:
            return {}

    @property
    def _settings(self) -> Path:
        return self.folder / "settings"

    def settings(self) -> dict[str, str]:
        """The SLUICE_… settings that name this Ceph as a storage, with its keys in files."""
        prefix = f"SLUICE_S3_{STORAGE.upper()}_"
        return {
            f"{prefix}ENDPOINT": self.url,
            f"{prefix}BUCKET": "sluice",
            f"{prefix}ACCESS_KEY_FILE": str(self.folder / "access-key"),
            f"{prefix}SECRET_KEY_FILE": str(self.folder / "secret-key"),
        }


def _free_port(remembered: int | None, others: Iterable[int]) -> int:
    ports = list(others)
    first = os.getpid() % len(ports)  # so that two stacks that start in the same second choose different ports
    for port in [*([remembered] if remembered else []), *ports[first:], *ports[:first]]:
        try:
            check_port(_LOOPBACK, port)
        except CannotStart:
            continue
        return port
    raise CannotStart("no port is free for Ceph")


class _Daemon(Service):
    """One of Ceph's daemons, run in the foreground.

    Attributes:
        daemon: its name in Ceph, also used for its log and its pid file.
    """

    daemon: str
    ready_seconds = 60

    def __init__(self, ceph: Ceph) -> None:
        super().__init__(ceph.paths)
        self.ceph = ceph

    @property
    def log(self) -> Path:
        return self.paths.log / f"{self.daemon}.log"

    def environment(self) -> Mapping[str, str]:
        return self.ceph.environment()

    def prepare(self, pause: Pause) -> None:
        self.run([SCRIPT, "prepare", self.daemon], pause)

    def command(self) -> Sequence[str]:
        return [SCRIPT, "run", self.daemon]

    def state(self, command: str) -> object:
        """The daemon's `state`, read from its admin socket; None if the socket gives no answer."""
        path = self.paths.run / f"{self.daemon.partition('.')[0]}.asok"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(os.fspath(path))
                connection.sendall(json.dumps({"prefix": command}).encode() + b"\0")
                answer = connection.makefile("rb").read()
                found: object = json.loads(answer[4:]).get("state")  # the first four bytes are the length
            except (OSError, ValueError):
                return None
            return found


class Mon(_Daemon):
    """The mon, which holds the cluster map."""

    name = "ceph-mon"
    daemon = "mon.a"
    stop_seconds = 30

    def ready(self) -> bool:
        return self.state("mon_status") == "leader"

    def alive(self) -> bool:
        return self.state("mon_status") is not None


class Osd(_Daemon):
    """The osd, which stores the bytes."""

    name = "ceph-osd"
    daemon = "osd.0"
    stop_seconds = 30

    def ready(self) -> bool:
        return self.state("status") == "active"

    def alive(self) -> bool:
        return self.state("status") is not None


class RadosGW(_Daemon):
    """radosgw, which serves S3."""

    name = "radosgw"
    daemon = "client.rgw"
    stop_seconds = 5  # killing it is safe, and an idle connection may keep it running longer

    def ready(self) -> bool:
        return self._ask() == 200

    def alive(self) -> bool:
        return self._ask() != 0

    def _ask(self) -> int:
        connection = http.client.HTTPConnection(_LOOPBACK, self.ceph.s3_port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
