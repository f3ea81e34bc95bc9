"""A second radosgw on a Ceph, which is killed, stopped or fails at any of its writes: see steps.c."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

from api.core.config import S3Config
from tests.servers import free_port
from tests.storage.ceph import Ceph

SOURCE = Path(__file__).with_name("steps.c")
LOCK_SECONDS = 2
"""How long a complete that was cut off blocks others; default 600."""

DATA, META = "default.rgw.buckets.data", "default.rgw.buckets.non-ec"


def compiled(folder: Path) -> Path:
    """The library, compiled from steps.c."""
    made = folder / "steps.so"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return made


class Stepped:
    """A second radosgw, see the module's docstring.

    Attributes:
        config: its address and keys.
    """

    def __init__(self, ceph: Ceph, config: S3Config, folder: Path) -> None:
        self._ceph = ceph
        self._library = compiled(folder)
        self._file = folder / "steps"
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._armed = 0
        self.config = replace(config, endpoint=f"http://127.0.0.1:{self._port}")
        self.arm("none", 0)
        self.start()

    def start(self) -> None:
        """Starts it if it does not run."""
        if self._process is not None and self._answers():
            return
        if self._process is not None:
            self._process.wait(20)  # it was just killed
        settings = {
            "rgw_frontends": f"beast endpoint=127.0.0.1:{self._port} tcp_nodelay=1",
            "rgw_data": self._folder,
            "admin_socket": "",
            "log_file": self._folder / "steps.log",
            "rgw_enable_gc_threads": "false",
            "rgw_enable_lc_threads": "false",
            "rgw_mp_lock_max_time": LOCK_SECONDS,
            "rgw_thread_pool_size": 32,
            "rgw_num_rados_handles": 1,
            "rgw_dynamic_resharding": "false",
            "rgw_override_bucket_index_max_shards": 1,
            "rgw_crypt_require_ssl": "false",
            "rgw_multipart_min_part_size": 65536,
        }
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        command = ["radosgw", "-c", str(self._ceph.folder / "ceph.conf"), "-n", "client.steps", "-f", *arguments]
        environ = os.environ | {"LD_PRELOAD": str(self._library), "STEPS": str(self._file), "MALLOC_ARENA_MAX": "2"}
        with (self._folder / "steps.out").open("ab") as out:
            self._process = subprocess.Popen(command, env=environ, stdout=out, stderr=out)
        deadline = time.monotonic() + 60
        while True:
            if self._answers():
                return
            assert self._process.poll() is None, (self._folder / "steps.out").read_text()[-2000:]
            assert time.monotonic() < deadline, "radosgw does not start"
            time.sleep(0.02)  # a poll: radosgw sends no event

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urlopen(self.config.endpoint, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    def arm(self, action: str, at: int) -> None:
        """Does the action before its ``at``-th write from now."""
        self._armed += 1
        self._file.with_suffix(".n").write_text("0")
        text = self._file.with_suffix(".new")
        text.write_text(f"{action} {at} {self._armed}")
        text.replace(self._file)

    def writes(self) -> int:
        """Number of writes since it was armed."""
        return int(self._file.with_suffix(".n").read_text() or 0)

    @property
    def stopped(self) -> bool:
        """Whether it is stopped."""
        assert self._process is not None
        state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def thaw(self) -> None:
        """Continues it, and waits until it has finished its work."""
        assert self._process is not None
        self.arm("none", 0)
        os.kill(self._process.pid, signal.SIGCONT)
        last, since = -1, time.monotonic()
        while time.monotonic() - since < 0.5:
            if (now := self.writes()) != last:
                last, since = now, time.monotonic()
            time.sleep(0.02)  # a poll: until no write happens for half a second

    def kill(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(ceph: Ceph, config: S3Config, folder: Path) -> Iterator[Stepped]:
    made = Stepped(ceph, config, folder)
    try:
        yield made
    finally:
        made.kill()


def collect(ceph: Ceph) -> None:
    """Runs garbage collection until nothing is left."""
    deadline = time.monotonic() + 120
    while True:
        ceph.tool("radosgw-admin", "gc", "process", "--include-all")
        if ceph.tool("radosgw-admin", "gc", "list", "--include-all").split() == ["[", "]"] or _empty(ceph):
            return
        assert time.monotonic() < deadline, "garbage stays"
        time.sleep(0.2)  # before the next try


def _empty(ceph: Ceph) -> bool:
    return ceph.tool("radosgw-admin", "gc", "list", "--include-all").strip() == "[]"


def stored(ceph: Ceph) -> set[str]:
    """Every RADOS object of the bucket's data, and of unfinished uploads."""
    pools = set(ceph.tool("rados", "lspools").split()) & {DATA, META}
    return {line for pool in pools for line in ceph.tool("rados", "-p", pool, "ls").splitlines()}
