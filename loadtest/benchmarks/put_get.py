"""`sluice` on a real Ceph beside curl, s5cmd, aws and rclone: 1 GiB, and 2,000 files of 64 KiB, both ways.

Sluice does all its work: API calls, hashing, checking the digest. The others go straight to the same radosgw: curl
with PUTs and GETs signed beforehand (the reference: no hashing, no other calls), curl with the same parts and ranges
as Sluice, and S3 programs. Every run reads from and writes to the same folder. CPU is that of the program and of all
servers: if all cores are busy, the wall time follows it.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from loadtest.benchmarks.bench import Bench, Benchmark
from loadtest.benchmarks.client import PASSWORD
from loadtest.benchmarks.content import GIB, MIB, PART_SIZE
from loadtest.benchmarks.measure import LeftOut, Pairs, Row, Sample, Spread, settle
from loadtest.benchmarks.runs import Run, measured
from loadtest.benchmarks.s3 import BUCKET, S3
from loadtest.benchmarks.s3_programs import S3Programs
from loadtest.benchmarks.stack import ROOT, many_files

_MOST_ROUNDS = 5
"""Each round takes one or two minutes."""
_RANGE = 64 * MIB
_SMALL_COUNT, _SMALL_QUICK = 2000, 200
_PEERS = {"curl": "curl, signed beforehand", "parts": "curl with the parts and ranges that ours has"}


@dataclass(frozen=True)
class Amount:
    """The content to send.

    Attributes:
        size: of each file, in bytes.
        at_once: number of parts, or files, in parallel.
        amount, unit: what the speed counts.
        limits: required speed ratio, by peer.
    """

    name: str
    text: str
    size: int
    count: int
    at_once: int
    amount: float
    unit: str
    cpu_unit: str
    limits: dict[str, float]

    @property
    def many(self) -> bool:
        return self.count > 1

    def files(self, at: Path) -> list[Path]:
        """A file, or the files of a folder."""
        return [at / f"{number:05}" for number in range(self.count)] if self.many else [at]

    def keys(self, name: str) -> list[str]:
        """The target key of each file."""
        return [f"{name}/{number:05}" for number in range(self.count)] if self.many else [name]


class _Contest:
    """The stack's Ceph, a user, a bucket for the others, the folders, and each program's runs."""

    def __init__(self, bench: Bench, amount: Amount) -> None:
        self._bench, self._amount, self._s3 = bench, amount, S3(bench.stack)
        rows = [f"{way}-{amount.name}-{{}}" for way in ("put", "get")]
        self._programs = S3Programs(bench, self._s3, amount.at_once, rows)
        self.peers = ["curl", *(() if amount.many else ("parts",)), *self._programs.found]
        stack, user = bench.stack, bench.client()
        self._servers = {
            "edge": stack.edge,
            "API": stack.api,
            "worker": stack.worker,
            "MariaDB": stack.database_server,
            "Redis": stack.cache,
            **{name: [pid] for name, pid in zip(("mon", "osd", "radosgw"), stack.ceph, strict=True)},
        }
        self._environment = self._programs.environment | {
            "PYTHONPATH": str(ROOT / "client" / "src"),
            # compile the client once, as pip does
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(bench.folder / "compiled"),
            "SLUICE_CLIENT_HOME": str(bench.folder / "home"),
            "SLUICE_CLIENT_CREDENTIALS": "file",
            "SLUICE_CLIENT_URL": f"http://127.0.0.1:{stack.port}",
            "SLUICE_CLIENT_USERNAME": user.username,
            "SLUICE_CLIENT_PASSWORD": PASSWORD,
        }
        self.down: dict[str, list[Sample]] = {}

    def round(self, who: str) -> Sample:
        """Uploads, and downloads again; the download's figures go to `down`."""
        source, name = self._new(), f"{self._amount.name}-{who}"
        up = self._up(who, source, name)
        back = self._bench.folder / "back"
        back.mkdir()
        settle(GIB)
        down = self._down(who, name, back / "all" if not self._amount.many else back)
        size = sum(path.stat().st_size for path in back.rglob("*") if path.is_file())
        if size != self._amount.size * self._amount.count:
            raise SystemExit(f"{who} has brought back {size} bytes")
        shutil.rmtree(back)
        if who == "sluice":
            self._sluice("rm", "-q", self._ours(name))
        self._s3.empty()
        self.down.setdefault(who, []).append(self._sample(down))
        return self._sample(up)

    def _sample(self, run: Run) -> Sample:
        return run.sample(self._amount.amount, self._amount.count)

    def _new(self) -> Path:
        """Content that is stored nowhere yet, in the page cache and on the disk."""
        source = self._bench.folder / self._amount.name
        if self._amount.many:
            source.mkdir(exist_ok=True)
        for path in self._amount.files(source):
            self._bench.content(self._amount.size).write(path)
        settle(GIB)
        return source

    def _up(self, who: str, source: Path, name: str) -> Run:
        amount = self._amount
        if who == "sluice":
            words: list[str | Path] = ["put", "-rq", source] if amount.many else ["put", "-q", source, "--name", name]
            return self._sluice(*words, "--parallel", str(amount.at_once))
        if who == "parts":
            return self._parts_up(source, name)
        if who == "curl":
            urls = [self._s3.signed("put_object", key)[0] for key in amount.keys(name)]
            pairs = zip(urls, amount.files(source), strict=True)
            return self._curl([f'url = "{url}"\nupload-file = "{path}"' for url, path in pairs])
        return self._programs.copy(who, source, f"s3://{BUCKET}/{name}", self._servers, amount.many)

    def _down(self, who: str, name: str, back: Path) -> Run:
        amount = self._amount
        if who == "sluice":
            flags = "-rq" if amount.many else "-q"
            return self._sluice("get", flags, self._ours(name), "-o", back, "--parallel", str(amount.at_once))
        if who == "parts":
            url = self._s3.signed("get_object", name)[0]
            ranges = [(first, first + _RANGE - 1) for first in range(0, amount.size, _RANGE)]
            # one file per range: curl cannot write a range into place
            outputs = [f'url = "{url}"\noutput = "{back}{a}"\nrange = {a}-{b}' for a, b in ranges]
            return self._curl(outputs, "\nnext\nfail\n")
        if who == "curl":
            urls = [self._s3.signed("get_object", key)[0] for key in amount.keys(name)]
            pairs = zip(urls, amount.files(back), strict=True)
            return self._curl([f'url = "{url}"\noutput = "{path}"' for url, path in pairs])
        return self._programs.copy(who, f"s3://{BUCKET}/{name}", back, self._servers, amount.many)

    def _ours(self, name: str) -> str:
        """The name for the command: the files of a folder have the folder's name as prefix."""
        return f"{self._amount.name}:*" if self._amount.many else name

    def _run(self, *command: str | Path) -> Run:
        return measured(command, self._environment, self._bench.folder / "last.log", self._servers)

    def _sluice(self, *words: str | Path) -> Run:
        return self._run(sys.executable, "-m", "sluice", *words)

    def _curl(self, transfers: Sequence[str], between: str = "\n") -> Run:
        """curl, with presigned requests."""
        config = self._bench.folder / "curl"
        config.write_text(between.join(transfers))
        words = ["--parallel", "--parallel-immediate", "--parallel-max", str(self._amount.at_once)]
        return self._run("curl", "-sS", "--fail", *words, "-K", config)

    def _parts_up(self, path: Path, key: str) -> Run:
        """curl with the parts that Sluice sends; creating and completing the upload is not counted."""
        parts, numbers = self._bench.folder / "parts", range(1, GIB // PART_SIZE + 1)
        parts.mkdir()
        with path.open("rb") as file:
            for number in numbers:
                (parts / str(number)).write_bytes(file.read(PART_SIZE))
        upload = self._s3.client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        urls = [self._s3.signed("upload_part", key, UploadId=upload, PartNumber=number)[0] for number in numbers]
        pairs = zip(urls, numbers, strict=True)
        settle(GIB)
        run = self._curl([f'url = "{url}"\nupload-file = "{parts / str(number)}"' for url, number in pairs])
        found = self._s3.client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)["Parts"]
        listed = {"Parts": [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]}
        self._s3.client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=listed)
        shutil.rmtree(parts)
        return run


def rows(amount: Amount, way: str, pairs: dict[str, Pairs]) -> Iterator[Row]:
    """One row per peer; the first row shows the CPU by process."""
    what = f"{amount.text} by `sluice {way}`"
    ours = next(iter(pairs.values())).ours
    runs = {"sluice": ours} | {peer: pair.peer for peer, pair in pairs.items()}
    notes = "; ".join(_shares(who, samples) for who, samples in runs.items())
    for peer, pair in pairs.items():
        text = f"{what}; {_PEERS.get(peer, f'{peer} straight to radosgw')}"
        row = pair.row(f"{way}-{amount.name}-{peer}", text, amount.unit, amount.cpu_unit, 1e3)
        if limit := amount.limits.get(peer):
            row = replace(row, limit=f"≥ {limit:g}", holds=pair.ratio.median >= limit)
        yield replace(row, notes=f"CPU in {amount.cpu_unit}, of all processes; {notes}" if notes else "")
        what, notes = "the same", ""
    if aws := pairs.get("awscli"):
        own, theirs = (Spread.of([sample.peak / MIB for sample in samples]) for samples in (aws.ours, aws.peer))
        yield Row(f"{way}-{amount.name}-memory", "peak memory of `sluice` meanwhile; awscli's", "MiB", own, theirs,
                  limit="below the peer's", holds=own.most < theirs.most)  # fmt: skip


def _shares(who: str, samples: Sequence[Sample]) -> str:
    """CPU by process, in ms per unit of work."""
    used = {name: 1e3 * statistics.median(sample.shares[name] for sample in samples) for name in samples[0].shares}
    return f"{who}: " + ", ".join(f"{name} {ms:.{0 if ms > 9.99 else 2}f}" for name, ms in used.items() if ms)


def _run(bench: Bench, amount: Amount) -> Iterator[Row]:
    """Each program once per round, in rotating order."""
    if shutil.which("curl") is None:
        raise LeftOut("there is no curl")
    many_files()
    contest = _Contest(bench, amount)
    arms = {who: partial(contest.round, who) for who in ("sluice", *contest.peers)}
    up = Pairs.in_turns(min(bench.rounds, _MOST_ROUNDS), arms)
    # the first was the warm-up
    down = {who: Pairs(contest.down["sluice"][1:], contest.down[who][1:]) for who in contest.peers}
    yield from rows(amount, "put", up)
    yield from rows(amount, "get", down)


def run_large(bench: Bench) -> Iterator[Row]:
    """Four parts in parallel."""
    text = "1 GiB on Ceph, 4 parts in parallel"
    return _run(bench, Amount("large", text, GIB, 1, 4, GIB / 1e6, "MB/s", "ms/GiB", {"curl": 0.85}))


def small(count: int) -> Amount:
    """Files of 64 KiB, eight in parallel."""
    text = f"{count:,} files of 64 KiB on Ceph, 8 in parallel"
    return Amount("small", text, 64 * 1024, count, 8, count, "files/s", "ms per file", {"awscli": 1})


def run_small(bench: Bench) -> Iterator[Row]:
    return _run(bench, small(_SMALL_QUICK if bench.seconds < 2 else _SMALL_COUNT))


LARGE = Benchmark("put-get-large", "1 GiB by the command, against curl, s5cmd, aws, rclone", run_large, "ceph")
SMALL = Benchmark("put-get-small", "2,000 small files by the command, against the same", run_small, "ceph")
