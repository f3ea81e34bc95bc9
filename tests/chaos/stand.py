"""The gateway under test: `scripts/run` in a private folder, its processes, and its stored data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from scripts.stack.ceph import STORAGE, Ceph
from scripts.stack.paths import Paths
from scripts.stack.services import MariaDB, Redis, Service
from tests.chaos.caller import patience
from tests.chaos.content import KIB, PART
from tests.chaos.schedule import EVERYTHING, Fault
from tests.e2e.gateway import SERVICES, Gateway
from tests.servers import free_port

SETTINGS: Final = {
    "SLUICE_TEST_FINALIZE_INLINE": str(PART),  # the worker finalizes uploads from two parts on, and reads them
    "SLUICE_TEST_ACCESS_TTL": "86400",
    "SLUICE_SIGNIN_RATE": "100000",
    "STACK_WELL_SECONDS": "4",  # otherwise each death of a server would cause a longer pause than the last
}
CEPH_SETTINGS: Final = {
    "SLUICE_S3_CEPH_SINGLE_PUT_MAX": str(64 * KIB),  # above it even one part is a multipart upload: cheap completes
    "RGW_GC_WAIT": "5",
}
_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "restart": signal.SIGTERM}


class Stand(Gateway):
    """The gateway under test, see the module's docstring.

    Args:
        data: the data folder.
        storage: "local" or "ceph": takes new uploads.
    """

    def __init__(self, data: Path, storage: str) -> None:
        self.storage_name = storage
        self.services: dict[str, Service] = {"mariadb": MariaDB(data), "redis": Redis(data)}
        self.heartbeat = Paths.of(data).run / "worker.heartbeat"
        settings, arguments = dict(SETTINGS), ["--storage", storage]
        if storage == STORAGE:
            port = free_port()
            settings |= CEPH_SETTINGS
            arguments += ["--ceph-port", str(port)]
            self.services |= {service.name: service for service in Ceph(Paths.of(data), port).services}
        super().__init__(data, settings, tuple(arguments))

    @property
    def names(self) -> list[str]:
        """Every server that runs."""
        return list(dict.fromkeys([*SERVICES, *self.services]))

    # -- faults

    def processes(self, target: str, pick: int) -> list[int]:
        """The processes that a fault targets; empty while the server is being restarted."""
        if target == EVERYTHING:
            return [pid for name in self.names for pid in self.processes(name, 0)]
        service, _, child = target.partition(" ")
        try:
            first = self.stack.pid(service)
        except (OSError, IndexError):
            return []
        if not child:
            return [first]
        children = children_of(first)
        return [children[pick % len(children)]] if children else []

    def begin(self, fault: Fault, pids: list[int]) -> None:
        """Does what the fault says to the processes. A stopped one stays stopped until `let_go`."""
        if fault.kind == "empty":
            redis.Redis(unix_socket_path=str(Redis(self.data).socket)).flushall()
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, _SIGNALS[fault.kind])

    @staticmethod
    def let_go(pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def is_back(self, fault: Fault, pids: list[int], since: float) -> bool:
        """Whether the targeted processes, or their successors, work again.

        Args:
            since: the time of the fault (`time.time`).
        """
        if fault.kind in ("kill", "restart") and any(Path(f"/proc/{pid}").exists() for pid in pids):
            return False
        for name in self.names if fault.target == EVERYTHING else [fault.service]:
            first = self.processes(name, 0)
            if not first or not Path(f"/proc/{first[0]}").exists():
                return False
            if name in ("nginx", "api") and not children_of(first[0]):
                return False
            if name == "worker" and (not self.heartbeat.exists() or self.heartbeat.stat().st_mtime < since):
                return False
            if name in self.services and not self.services[name].ready():
                return False
        return True

    @property
    def runs(self) -> bool:
        """Whether `scripts/run` still runs."""
        return self.stack.process.poll() is None

    # -- stored data

    def stored(self) -> set[tuple[str, str]]:
        """(storage, key) of every object, except for probes: remains of a killed probe are deleted after a day."""
        found = {("local", key) for key in self.objects()}
        if self.storage_name == STORAGE:
            pages = self.s3().get_paginator("list_objects_v2").paginate(Bucket="sluice")
            found |= {(STORAGE, entry["Key"]) for page in pages for entry in page.get("Contents", ())}
        return {(storage, key) for storage, key in found if "/probe/" not in key}

    def open_uploads(self) -> set[tuple[str, str]]:
        """(storage, key) of every multipart upload that Ceph holds open. On the local disk, uploads have no keys."""
        if self.storage_name != STORAGE:
            return set()
        pages = self.s3().get_paginator("list_multipart_uploads").paginate(Bucket="sluice")
        keys = {entry["Key"] for page in pages for entry in page.get("Uploads", ())}
        return {(STORAGE, key) for key in keys if "/probe/" not in key}

    def s3(self) -> Any:
        """Ceph's bucket, without the gateway."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.ceph.s3_port}",
            aws_access_key_id=(self.data / "ceph" / "access-key").read_text(),
            aws_secret_access_key=(self.data / "ceph" / "secret-key").read_text(),
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    @property
    def ceph(self) -> Ceph:
        service = self.services["radosgw"]
        return service.ceph  # type: ignore[attr-defined,no-any-return]

    def collect_garbage(self) -> None:
        """Lets Ceph collect garbage; until then lost bytes can still be read."""
        if self.storage_name != STORAGE:
            return

        def is_empty() -> bool:
            self._admin("gc", "process", "--include-all")
            return not json.loads(self._admin("gc", "list", "--include-all"))

        await_(is_empty, 60, "Ceph's garbage collection")

    def _admin(self, *arguments: str) -> str:
        command = ["radosgw-admin", "-c", str(self.data / "ceph" / "ceph.conf"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the API, as an operator runs it."""
        command = [str(self.data / "run" / "api"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def sweep(self) -> str:
        """A whole sweep by hand, repeated while another one runs. Returns its output."""
        said = ""

        def swept() -> bool:
            nonlocal said
            result = self.command("sweep")
            said = result.stdout + result.stderr
            return "another sweep" not in said and (result.returncode == 0 or "HELD BACK" in said)

        await_(swept, 60, "the sweep", lambda: said)
        return said


def children_of(pid: int) -> list[int]:
    """The children of a process, from the kernel's list (proc(5))."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def await_(condition: Callable[[], bool], seconds: float, what: str, more: Callable[[], str] = str) -> None:
    """Polls a condition that sends no event, longer on a busy machine.

    Raises:
        TimeoutError: the condition did not become true.
    """
    deadline = time.monotonic() + patience(seconds)
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience(seconds):.0f} s {more()}")
        time.sleep(0.05)  # a poll: processes send no event
