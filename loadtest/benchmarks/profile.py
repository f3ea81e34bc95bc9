"""Flame graphs of API, worker and edge under load: ``loadtest/profile``."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.benchmarks import flame
from loadtest.benchmarks.measure import cpu_seconds
from loadtest.benchmarks.stack import ROOT, Stack, end, scratch

_HERTZ = 200
_BIN = ROOT / ".venv" / "bin"
Stacks = Counter[tuple[str, ...]]
# Samplers may take a thread that waits for work as running; such functions are dropped.
_WAITING = re.compile(r"^(_worker|wait|select|poll|accept|acquire|readinto|_recv|get) \(")


class Recorder:
    """Samples processes by py-spy or perf while the load runs. No sampler outlives its context."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._running: list[tuple[str, Path, subprocess.Popen[str]]] = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        for _, _, process in self._running:
            end(process, 10)

    def python(self, name: str, pids: Sequence[int]) -> None:
        """Samples Python code while a thread holds the interpreter lock; waiting threads are not counted."""
        for pid in pids:
            out = self._folder / f"{name}-{pid}.folded"
            words = ["--gil", "--nonblocking", "-r", str(_HERTZ), "-d", str(self._seconds), "-f", "raw", "-o", str(out)]
            self._start(name, out, [_BIN / "py-spy", "record", *words, "-p", str(pid)])

    def machine(self, name: str, pids: Sequence[int]) -> None:
        """Samples C code and the kernel's, by perf."""
        out = self._folder / f"{name}.perf"
        words = ["-F", str(_HERTZ), "-g", "-p", ",".join(map(str, pids)), "-o", str(out), "--", "sleep"]
        self._start(name, out, ["perf", "record", *words, str(self._seconds)])

    def _start(self, name: str, out: Path, words: Sequence[str | Path]) -> None:
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self._running.append((name, out, process))

    def collect(self) -> dict[str, Stacks]:
        """Waits for all samplers, and prints which of them failed."""
        found: dict[str, Stacks] = {}
        for name, out, process in self._running:
            said, _ = process.communicate(timeout=self._seconds + 60)
            stacks = self._read(out) if process.returncode == 0 and out.exists() else Counter()
            if not stacks and name not in found:
                print(f"profile: {name} is LEFT OUT or was idle: {' '.join(said.split())[-200:]}", file=sys.stderr)
            if stacks:
                found.setdefault(name, Counter()).update(stacks)
        return found

    @staticmethod
    def _read(out: Path) -> Stacks:
        if out.suffix == ".folded":
            lines = (re.sub(r":\d+\)", ")", line) for line in out.read_text().splitlines())
            return Counter({s: n for s, n in flame.folded(lines).items() if not _WAITING.match(s[-1])})
        printed = subprocess.run(
            ["perf", "script", "-i", str(out), "-F", "ip,sym,comm"], capture_output=True, text=True, check=False
        )
        return flame.from_perf(printed.stdout)


@contextmanager
def _load(stack: Stack, users: str, seconds: int) -> Iterator[None]:
    """Runs locust's users while the block runs."""
    words = ["--headless", "-u", users, "-r", users, "-t", f"{seconds}s", "--host", f"http://127.0.0.1:{stack.port}"]
    null = subprocess.DEVNULL
    process = subprocess.Popen([ROOT / "loadtest/locust", *words], stdin=null, stdout=null, stderr=null)
    try:
        yield
    finally:
        end(process, 30)


def main(words: Sequence[str]) -> int:
    """Runs a stack, loads it with locust's users, and writes an SVG for each kind of process."""
    parser = argparse.ArgumentParser(prog="loadtest/profile", description="Where the time goes.")
    parser.add_argument("--storage", choices=("local", "ceph"), default="local")
    parser.add_argument("--seconds", type=int, default=30, help="sampling time")
    parser.add_argument("--users", default="20", help="locust's users")
    parser.add_argument("--quick", action="store_true", help="8 seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "profiles", help="folder for the SVGs")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk with room")  # noqa: S108
    arguments = parser.parse_args(words)
    seconds = 8 if arguments.quick else arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = ("--storage", "ceph") if arguments.storage == "ceph" else ()
    with (
        scratch("profile", arguments.folder) as folder,
        Stack(folder, *options) as stack,
        _load(stack, arguments.users, seconds + 8),
        Recorder(folder, seconds) as recorder,
    ):
        time.sleep(5)  # users sign up first, which measures only argon2
        groups = {"api": stack.api[1:], "worker": stack.worker, "edge": stack.edge}
        before = {name: cpu_seconds(pids) for name, pids in groups.items()}
        recorder.python("api", groups["api"])
        recorder.python("worker", groups["worker"][:1])
        if shutil.which("perf"):
            recorder.machine("edge", groups["edge"])
        else:
            print("profile: edge is LEFT OUT: there is no perf (apt-get install linux-perf)", file=sys.stderr)
        found = recorder.collect()
        used = {name: cpu_seconds(pids) - before[name] for name, pids in groups.items()}
    for name, stacks in found.items():
        path = arguments.out / f"{name}-{arguments.storage}.svg"
        path.write_text(flame.svg(f"{name}, {arguments.storage}, {used[name]:.1f} CPU s in {seconds} s", stacks))
        print(f"\n{name}: {used[name]:.1f} CPU s in {seconds} s; {path}")
        for function, share in flame.largest(stacks, 40):
            print(f"  {share:6.1%}  {function}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
