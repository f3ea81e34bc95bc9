"""The program of scripts/test-compose: starts an engine, builds images, runs the tests in two processes, then measures.

Usage: python -m tests.compose FOLDER [--short] [PYTEST_ARGUMENT…]; exit code 3 if no engine can be started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.compose import figures, images
from tests.compose.engine import CannotStart, engine

HERE = Path(__file__).parent
PYTEST = (sys.executable, "-m", "pytest", "--timeout", "900", "--durations", "12")
NOTHING_CHOSEN = 5
LEFT_OUT = 3


def run_tests(short: bool, arguments: list[str]) -> int:
    """The first exit code that is not 0."""
    files = [HERE / "test_lifecycle.py"] if short else sorted(HERE.glob("test_*.py"))
    measured = HERE / "test_measured.py"
    others = [str(file) for file in files if file != measured]
    # most tests wait; measurements need the machine alone
    calls = [["--numprocesses", str(min(2, len(others))), "--dist", "loadfile", *others]]
    if measured in files:
        calls.append([str(measured)])
    codes = [subprocess.run([*PYTEST, *call, *arguments], check=False).returncode for call in calls]
    if codes.count(NOTHING_CHOSEN) == len(codes):
        return NOTHING_CHOSEN
    return next((code for code in codes if code not in (0, NOTHING_CHOSEN)), 0)


def main() -> int:
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    short = arguments[:1] == ["--short"]
    given = os.environ.get("DOCKER_HOST")
    os.environ.update(DOCKER_BUILDKIT="0", TEST_FIGURES=str(folder / "figures"))
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an orderly end, of the engine too
    try:
        with engine(folder) as host:
            os.environ["DOCKER_HOST"] = host
            images.make(folder, not given, short)
            figures.begin()
            figures.note("images", f"made in {time.monotonic() - began:.0f} s")
            figures.note_images()
            code = run_tests(short, arguments[short:])
            print("measured:", *figures.lines(), sep="\n", flush=True)
    except CannotStart as ex:
        print(f"test-compose: no container engine can be started here: {ex}", file=sys.stderr)
        return LEFT_OUT
    return code


if __name__ == "__main__":
    sys.exit(main())
