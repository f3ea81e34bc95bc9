"""S3 programs: s5cmd, aws and rclone, straight to the stack's radosgw with the same parts and parallelism."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.benchmarks import program
from loadtest.benchmarks.bench import Bench
from loadtest.benchmarks.measure import LeftOut
from loadtest.benchmarks.runs import Run, measured
from loadtest.benchmarks.s3 import BUCKET, S3

_NAMES = {"s5cmd": "s5cmd", "awscli": "aws", "rclone": "rclone"}
"""Their names in loadtest/peers, and the names of their programs."""
Place = Path | str


class S3Programs:
    """The programs that can be installed here and can do the work; the others are left out.

    Args:
        at_once: number of parts, or files, in parallel.
        rows: the names of the rows to leave out if a program is missing, with ``{}`` for its name.

    Attributes:
        found: their names.
        environment: without settings of the user's shell for them.
    """

    def __init__(self, bench: Bench, s3: S3, at_once: int, rows: Sequence[str]) -> None:
        self._folder, self._s3, self._at_once = bench.folder, s3, str(at_once)
        config = bench.folder / "aws"
        config.write_text(
            f"[default]\ns3 =\n  multipart_threshold = 8MB\n  multipart_chunksize = 8MB\n"
            f"  max_concurrent_requests = {at_once}\n  addressing_style = path\n"
        )
        # rclone 1.60 does not start with AWS_CA_BUNDLE
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AWS_"))},
            **s3.environment,
            "AWS_CONFIG_FILE": str(config),
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_CEPH_TYPE": "s3",
            "RCLONE_CONFIG_CEPH_PROVIDER": "Ceph",
            "RCLONE_CONFIG_CEPH_ENV_AUTH": "true",
            "RCLONE_CONFIG_CEPH_ENDPOINT": s3.endpoint,
        }
        self.found: list[str] = []
        trial = bench.folder / "trial"
        trial.write_bytes(b"trial")
        for name in _NAMES:
            try:
                program.need(name)
                self.copy(name, trial, f"s3://{BUCKET}/trial", {})
                self.found.append(name)
            except (LeftOut, SystemExit) as ex:
                bench.left_out += [(row.format(name), " ".join(str(ex).split())[-200:]) for row in rows]

    def copy(
        self, name: str, source: Place, target: Place, servers: Mapping[str, Sequence[int]], many: bool = False
    ) -> Run:
        """Copies from or to ``s3://…``; all files of a folder if `many`."""
        words = {"s5cmd": self._s5cmd, "awscli": self._aws, "rclone": self._rclone}[name](source, target, many)
        command = [program.FOLDER / "bin" / _NAMES[name], *words]
        return measured(command, self.environment, self._folder / "last.log", servers)

    def _s5cmd(self, source: Place, target: Place, many: bool) -> list[Place]:
        words: list[Place] = ["--numworkers", self._at_once, "cp"]
        if many:
            return [*words, f"{source}/*", f"{target}/"]
        return [*words, "--concurrency", self._at_once, "--part-size", "8", source, target]

    def _aws(self, source: Place, target: Place, many: bool) -> list[Place]:
        words = ["--recursive"] if many else []
        return ["s3", "cp", "--only-show-errors", *words, "--endpoint-url", self._s3.endpoint, source, target]

    def _rclone(self, source: Place, target: Place, many: bool) -> list[Place]:
        sizes = ["--s3-chunk-size", "8M", "--s3-upload-cutoff", "8M", "--s3-upload-concurrency", self._at_once]
        streams = ["--transfers", self._at_once, "--multi-thread-streams", self._at_once, "--s3-no-check-bucket"]
        places = [str(place).replace("s3://", "ceph:", 1) for place in (source, target)]
        return ["copy" if many else "copyto", *sizes, *streams, *places]
