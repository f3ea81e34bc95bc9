"""`sluice` on a real Ceph beside curl, s5cmd, aws and rclone: ``python -m loadtest.benchmarks.put_get_ceph``.

1 GiB and 2,000 files of 64 KiB, each way, four at once (the small files: eight). Ours does the whole: control calls,
hashing, the digest's check. The others go straight to the same radosgw: curl with PUTs and GETs signed beforehand (the
reference: it hashes nothing and asks nobody), curl once more with the same parts and ranges as ours, and the three
tools as they are installed by loadtest/peers. Rounds go in turns; what is told is the median. Every run reads from and
writes to the same folder. Beside the wall it tells the CPU seconds of the program and of each server: where all cores
are busy, the wall follows them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest.benchmarks import program
from loadtest.benchmarks.client import PASSWORD, Client
from loadtest.benchmarks.content import GIB, PART_SIZE
from loadtest.benchmarks.contest import Contest, Run, measured
from loadtest.benchmarks.measure import LeftOut, settle
from loadtest.benchmarks.s3 import BUCKET, S3
from loadtest.benchmarks.stack import ROOT, Stack

_LARGE_AT_ONCE = 4
_SMALL_AT_ONCE = 8
_SMALL = 64 * 1024
_RANGE = 64 * 1024**2
_PARTS = "curl in parts"
_TOOLS = {"s5cmd": "s5cmd", "aws": "awscli", "rclone": "rclone"}
"""Programs, and what loadtest/peers calls them."""


class Bench:
    """The stack's Ceph, a user, a bucket for the others, and the folders."""

    def __init__(self, stack: Stack, folder: Path, programs: dict[str, str], small_count: int) -> None:
        self.folder = folder
        self.small_count = small_count
        self.s3 = S3(stack)
        self.programs = programs
        self.servers = {
            "edge": stack.edge,
            "API": stack.api,
            "worker": stack.worker,
            "MariaDB": stack.database_server,
            "Redis": stack.cache,
            **{name: [pid] for name, pid in zip(("mon", "osd", "radosgw"), stack.ceph, strict=True)},
        }
        self.client = Client(stack.port)
        self.home = folder / "home"
        self.sluice = [sys.executable, "-m", "sluice"]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "AWS_"))},
            "PYTHONPATH": str(ROOT / "client" / "src"),
            "SLUICE_CLIENT_HOME": str(self.home),
            "SLUICE_CLIENT_CREDENTIALS": "file",
            "SLUICE_CLIENT_URL": f"http://127.0.0.1:{stack.port}",
            "SLUICE_CLIENT_USERNAME": self.client.username,
            "SLUICE_CLIENT_PASSWORD": PASSWORD,
            **self.s3.environment,
            "AWS_CONFIG_FILE": str(folder / "aws"),
            "RCLONE_CONFIG_CEPH_TYPE": "s3",
            "RCLONE_CONFIG_CEPH_PROVIDER": "Ceph",
            "RCLONE_CONFIG_CEPH_ENV_AUTH": "true",
            "RCLONE_CONFIG_CEPH_ENDPOINT": self.s3.endpoint,
        }
        (folder / "aws").write_text(
            f"[default]\ns3 =\n  addressing_style = path\n  max_concurrent_requests = {_SMALL_AT_ONCE}\n"
            "  multipart_chunksize = 8MB\n"
        )
        self._number = 0

    # -- content

    def large(self) -> Path:
        """1 GiB that is nowhere yet: its first bytes are new each time."""
        path = self.folder / "large"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(1024):
                    file.write(os.urandom(1024**2))
        self._number += 1
        with path.open("r+b") as file:
            for part in range(0, GIB, PART_SIZE):
                file.seek(part)
                file.write(f"{self._number}".encode())
        _warm(path)
        return path

    def small(self) -> Path:
        """A folder of small files that are nowhere yet."""
        folder = self.folder / "small"
        folder.mkdir(exist_ok=True)
        self._number += 1
        for number in range(self.small_count):
            with (folder / f"{number:05}").open("wb") as file:
                file.write(f"{self._number} {number}".encode().ljust(16) + os.urandom(_SMALL - 16))
        return folder

    # -- the programs

    def run(self, *command: str) -> Run:
        return measured(command, self.environment, self.folder, self.servers)

    def curl(self, pairs: Sequence[tuple[str, str]], at_once: int, *, up: bool) -> Run:
        """curl, with (URL, file) pairs and nothing else to do."""
        config = self.folder / "curl"
        key = "upload-file" if up else "output"
        config.write_text("".join(f'url = "{url}"\n{key} = "{path}"\n' for url, path in pairs))
        words = ["-sS", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", str(at_once)]
        return self.run("curl", *words, "-K", str(config))

    def curl_parts_up(self, path: Path, key: str) -> Run:
        """The parts that ours sends, four at once; what begins and ends an upload is not counted."""
        parts = self.folder / "parts"
        parts.mkdir(exist_ok=True)
        with path.open("rb") as file:
            for number in range(1, GIB // PART_SIZE + 1):
                (parts / str(number)).write_bytes(file.read(PART_SIZE))
        upload = self.s3.client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        pairs = [
            (self.s3.signed("upload_part", key, UploadId=upload, PartNumber=number)[0], str(parts / str(number)))
            for number in range(1, GIB // PART_SIZE + 1)
        ]
        settle(GIB)
        run = self.curl(pairs, _LARGE_AT_ONCE, up=True)
        found = self.s3.client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)["Parts"]
        listed = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]
        self.s3.client.complete_multipart_upload(
            Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}
        )
        shutil.rmtree(parts)
        return run

    def curl_parts_down(self, key: str, folder: Path) -> Run:
        """The ranges that ours asks for, four at once, a file each: curl writes none to its place."""
        url, config = self.signed("get_object", [key])[0], self.folder / "curl"
        ranges = [
            f'url = "{url}"\noutput = "{folder / str(begin)}"\nrange = {begin}-{begin + _RANGE - 1}\nfail\n'
            for begin in range(0, GIB, _RANGE)
        ]
        config.write_text("next\n".join(ranges))
        words = ["-sS", "--parallel", "--parallel-immediate", "--parallel-max", str(_LARGE_AT_ONCE)]
        return self.run("curl", *words, "-K", str(config))

    def signed(self, call: str, keys: Sequence[str]) -> list[str]:
        return [self.s3.signed(call, key)[0] for key in keys]

    def transfer(self, who: str, source: str, target: str, at_once: int, *, many: bool) -> Run:
        """One of the three tools, from or to ``s3://…``; folders where ``many``."""
        program = self.programs[who]
        if who == "s5cmd":
            words = [program, "--numworkers", str(at_once), "cp"]
            if not many:
                words += ["--concurrency", str(at_once), "--part-size", "8"]
            return self.run(*words, f"{source}/*" if many else source, f"{target}/" if many else target)
        if who == "aws":
            more = ["--recursive"] if many else []
            return self.run(program, "s3", "cp", "--quiet", *more, source, target, "--endpoint-url", self.s3.endpoint)
        words = [program, "copy" if many else "copyto", "--transfers", str(at_once), "--multi-thread-streams", "4"]
        words += ["--s3-upload-concurrency", str(at_once), "--s3-chunk-size", "8M", "--s3-no-check-bucket"]
        return self.run(*words, _rclone(source), _rclone(target))

    def back(self) -> Path:
        folder = self.folder / "back"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        settle(GIB)
        return folder

    def forget(self, name: str) -> None:
        """Our files, and theirs, go: the store stays small."""
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=name)
        for page in pages:
            keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
            if keys:
                self.s3.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})


def _programs(wanted: Sequence[str]) -> dict[str, str]:
    """The tools that can be had here."""
    found = {}
    for name in wanted:
        try:
            found[name] = str(program.need(_TOOLS[name]) / "bin" / name)
        except LeftOut as ex:
            print(f"{name} is left out: {ex}", file=sys.stderr)
    return found


def _rclone(place: str) -> str:
    return place.replace("s3://", "ceph:", 1)


def _warm(path: Path) -> None:
    """Into the page cache, and what was written to the disk."""
    settle(GIB)
    with path.open("rb") as file:
        while file.read(1024**2):
            pass


def large_round(bench: Bench, up: Contest, down: Contest, order: Sequence[str]) -> None:
    """1 GiB up and down by each program."""
    for who in order:
        path, name = bench.large(), f"large-{who.replace(' ', '-')}"
        target = f"s3://{BUCKET}/{name}"
        if who == "sluice":
            run = bench.run(*bench.sluice, "put", "-q", "--parallel", str(_LARGE_AT_ONCE), str(path), "--name", name)
        elif who == _PARTS:
            run = bench.curl_parts_up(path, name)
        elif who == "curl":
            run = bench.curl([(bench.signed("put_object", [name])[0], str(path))], 1, up=True)
        else:
            run = bench.transfer(who, str(path), target, _LARGE_AT_ONCE, many=False)
        up.runs.setdefault(who, []).append(run)
        back = bench.back() / "large"
        if who == "sluice":
            run = bench.run(*bench.sluice, "get", "-q", "--parallel", str(_LARGE_AT_ONCE), name, "-o", str(back))
        elif who == _PARTS:
            run = bench.curl_parts_down(name, back.parent)
        elif who == "curl":
            run = bench.curl([(bench.signed("get_object", [name])[0], str(back))], 1, up=False)
        else:
            run = bench.transfer(who, target, str(back), _LARGE_AT_ONCE, many=False)
        down.runs.setdefault(who, []).append(run)
        size = sum(file.stat().st_size for file in back.parent.iterdir())
        if size != GIB:
            raise SystemExit(f"{who} has brought back {size} bytes")
        if who == "sluice":
            bench.run(*bench.sluice, "rm", "-q", name)
        bench.forget(name)


def small_round(bench: Bench, up: Contest, down: Contest, order: Sequence[str]) -> None:
    """The small files, up and down by each program."""
    for who in (who for who in order if who != _PARTS):
        folder, name = bench.small(), f"small-{who}"
        target, files = f"s3://{BUCKET}/{name}", sorted(path.name for path in folder.iterdir())
        keys, at_once = [f"{name}/{file}" for file in files], str(_SMALL_AT_ONCE)
        if who == "sluice":
            run = bench.run(*bench.sluice, "put", "-rq", "--parallel", at_once, str(folder))
        elif who == "curl":
            urls = bench.signed("put_object", keys)
            run = bench.curl([(u, str(folder / f)) for u, f in zip(urls, files, strict=True)], _SMALL_AT_ONCE, up=True)
        else:
            run = bench.transfer(who, str(folder), target, _SMALL_AT_ONCE, many=True)
        up.runs.setdefault(who, []).append(run)
        back = bench.back()
        if who == "sluice":
            run = bench.run(*bench.sluice, "get", "-rq", "--parallel", at_once, "small:*", "-o", str(back))
        elif who == "curl":
            urls = bench.signed("get_object", keys)
            run = bench.curl([(u, str(back / f)) for u, f in zip(urls, files, strict=True)], _SMALL_AT_ONCE, up=False)
        else:
            run = bench.transfer(who, target, str(back), _SMALL_AT_ONCE, many=True)
        down.runs.setdefault(who, []).append(run)
        count = sum(1 for path in back.rglob("*") if path.is_file())
        if count != bench.small_count:
            raise SystemExit(f"{who} has brought back {count} files")
        if who == "sluice":
            bench.run(*bench.sluice, "rm", "-q", "small:*")
        bench.forget(name)


def verdicts(contests: Sequence[Contest]) -> list[tuple[str, bool]]:
    """What is asked for, and whether it holds."""
    found: list[tuple[str, bool]] = []
    for contest in contests:
        ours = contest.median("sluice")
        if contest.size == GIB:
            ratio = contest.median("curl") / ours
            beside = contest.median(_PARTS) / ours
            text = f"{contest.title}: {ratio:.2f} of curl, at least 0.85 ({beside:.2f} of curl in parts)"
            found.append((text, ratio >= 0.85))
        elif "aws" in contest.runs:
            ratio = contest.median("aws") / ours
            found.append((f"{contest.title}: {ratio:.2f} of aws, at least 1", ratio >= 1))
        if "aws" in contest.runs:
            peaks = {who: max(run.peak for run in contest.runs[who]) for who in ("sluice", "aws")}
            text = f"{contest.title}: peak {peaks['sluice'] / 1024**2:.0f} MiB, aws {peaks['aws'] / 1024**2:.0f}"
            found.append((text, peaks["sluice"] < peaks["aws"]))
    return found


def main(words: Sequence[str]) -> int:
    """The exit code: 1 when something that is asked for does not hold."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.benchmarks.put_get_ceph", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="minutes each, on a quiet machine")
    parser.add_argument("--only", choices=("large", "small"), help="one of the two amounts")
    parser.add_argument("--programs", default=",".join(_TOOLS), help="which of the tools, besides curl and ours")
    parser.add_argument("--small", type=int, default=2000, help="small files")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with 20 GiB of room")  # noqa: S108
    parser.add_argument("--json", type=Path, help="write every run there")
    options = parser.parse_args(words)
    # whatever ends the bench ends its servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="sluice-put-get-", dir=options.folder))
    os.chmod(folder, 0o755)  # noqa: S103 - root's stack runs as another user
    programs = _programs([name for name in _TOOLS if name in options.programs.split(",")])
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    small, amount = f"{options.small} files of 64 KiB", options.small * _SMALL
    rounds = {
        "large": (large_round, Contest("1 GiB up", GIB), Contest("1 GiB down", GIB)),
        "small": (small_round, Contest(f"{small} up", amount), Contest(f"{small} down", amount)),
    }
    chosen = [rounds[options.only]] if options.only else list(rounds.values())
    contests = [contest for _, *both in chosen for contest in both]
    try:
        with Stack(folder, "--storage", "ceph") as stack:
            bench = Bench(stack, folder, programs, options.small)
            everybody = ["curl", _PARTS, "sluice", *bench.programs]
            for number in range(options.rounds + 1):
                shift = number % len(everybody)
                order = everybody[shift:] + everybody[:shift]
                for go, up, down in chosen:
                    if number:
                        go(bench, up, down, order)
                    else:
                        go(bench, Contest("warming up", 0), Contest("warming up", 0), order)
                print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("| what | program | seconds (least to most) | MB/s | of curl | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for contest in contests:
        for who in contest.runs:
            print(contest.line(who))
    for contest in contests:
        for who in contest.runs:
            print(contest.cpu(who, 1 if contest.size == GIB else options.small))
    judged = verdicts(contests)
    print("\n".join(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}" for text, holds in judged))
    if options.json:
        everything = {c.title: {who: [vars(run) for run in runs] for who, runs in c.runs.items()} for c in contests}
        options.json.write_text(json.dumps(everything, indent=1))
    return int(not all(holds for _, holds in judged))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
