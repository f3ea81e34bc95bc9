"""Very many and very large: files by the thousand, one of gigabytes in constant memory.

CI runs 1,000 files and 1 GiB. `TEST_SMALL_FILES=10000` and `TEST_SPARSE_GIB=20` run the whole: the latter
needs twice as much room on the disk, for a storage keeps every byte of a hole, and some minutes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import PYTHON, Command
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB

SMALL_FILES = int(os.environ.get("TEST_SMALL_FILES", "1000"))
SPARSE_GIB = int(os.environ.get("TEST_SPARSE_GIB", "1"))
MEMORY_MAX = 72 * MIB

_MEASURED = """
import re, sys
from sluice.__main__ import main
code = main()
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024, file=sys.stderr)
sys.exit(code)
"""


def peak_of(command: Command, *arguments: str) -> int:
    """Runs the command; the most memory that it held."""
    result = subprocess.run(
        [PYTHON, "-c", _MEASURED, *arguments],
        env=command.environment,
        cwd=command.folder,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stderr.split()[-1])


@pytest.mark.timeout(1800)
def test_thousands_of_small_files_go_up_and_come_back(command: Command) -> None:
    folder = command.folder / "many"
    for number in range(SMALL_FILES):
        path = folder / str(number % 10) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number} ".encode() * (number % 200))
    assert peak_of(command, "put", "-rq", "many", "--parallel", "8") < MEMORY_MAX
    assert len(command.run("ls", "many:*").stdout.splitlines()) == SMALL_FILES
    assert peak_of(command, "get", "-rq", "many:*", "-o", "back", "--parallel", "8") < MEMORY_MAX
    back = {path.relative_to(command.folder / "back"): path for path in (command.folder / "back").rglob("*.txt")}
    assert len(back) == SMALL_FILES
    assert all(path.read_bytes() == (command.folder / name).read_bytes() for name, path in back.items())
    again = command.run("put", "-r", "many", "--json", timeout=600).stdout.splitlines()
    assert sum('"existing": true' in line for line in again) == SMALL_FILES


@pytest.mark.timeout(1800)
def test_a_sparse_file_of_gigabytes_takes_constant_memory(command: Command, gateway: Gateway, tmp_path: Path) -> None:
    size = SPARSE_GIB * 1024 * MIB + 4097
    if shutil.disk_usage(gateway.storage).free < 3 * size:
        pytest.skip(f"{SPARSE_GIB} GiB need {3 * SPARSE_GIB} GiB of room")
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 7)
        file.write(b"the end")
    assert peak_of(command, "put", "-q", str(path)) < MEMORY_MAX
    process = command.start("get", "sparse", "-o", "-")
    assert isinstance(process.stdout, io.TextIOWrapper)
    whole, count = hashlib.sha256(), 0
    while data := process.stdout.buffer.read(MIB):
        whole.update(data)
        count += len(data)
    assert process.wait(60) == 0
    process.communicate()
    assert count == size
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == whole.hexdigest()
    command.run("rm", "sparse")
