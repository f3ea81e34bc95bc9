"""Metrics of one process, and of several that share a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.core import metrics
from tests.disks import Filler, small_disk

COUNT = """
import os, sys
from api.core import metrics
metrics.JOB_RUNS.labels("verify", "done").inc(int(sys.argv[1]))
metrics.DATABASE_CONNECTIONS.inc(int(sys.argv[1]))
print("counted", flush=True)
sys.stdin.read()
if sys.argv[2:] == ["killed"]:
    os.kill(os.getpid(), 9)
"""
ASK = "from api.core import metrics; print(metrics.text().decode())"


class Process:
    """A process that counts, and runs until it is told to end."""

    def __init__(self, folder: Path, number: int, *how: str) -> None:
        environment = {"SLUICE_METRICS_FOLDER": str(folder)}
        command = [sys.executable, "-c", COUNT, str(number), *how]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "counted\n"

    def end(self) -> None:
        self._process.communicate(timeout=30)


def ask(folder: Path) -> dict[str, float]:
    """The samples of a process that shares the folder and has counted nothing."""
    environment = {"SLUICE_METRICS_FOLDER": str(folder)}
    result = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    lines = [line.rpartition(" ") for line in result.stdout.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


RUNS = 'sluice_job_runs_total{kind="verify",outcome="done"}'


def test_processes_that_share_a_folder_are_counted_as_one(tmp_path: Path) -> None:
    first, second = Process(tmp_path, 3), Process(tmp_path, 4, "killed")
    found = ask(tmp_path)
    assert (found[RUNS], found["sluice_database_connections"]) == (7, 7)
    second.end()
    # its counters stay; its gauges do not
    found = ask(tmp_path)
    assert (found[RUNS], found["sluice_database_connections"]) == (7, 3)
    third = Process(tmp_path, 5)
    found = ask(tmp_path)
    assert (found[RUNS], found["sluice_database_connections"]) == (12, 8)
    first.end()
    third.end()
    assert ask(tmp_path)[RUNS] == 12


def test_a_process_takes_the_place_of_one_that_ended(tmp_path: Path) -> None:
    for _ in range(5):
        Process(tmp_path, 1).end()
    assert ask(tmp_path)[RUNS] == 5
    assert len(list(tmp_path.glob("counter_*.db"))) == 1


def test_a_folder_that_cannot_be_made_stops_no_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ask(tmp_path / "file" / "below")["sluice_database_failures_total"] == 0


def test_storages_are_timed_and_stay_what_they_are() -> None:
    class Storage:
        def stat(self, object_key: str) -> int:
            if object_key == "gone":
                raise KeyError(object_key)
            return 5

    storage = Storage()
    metrics.observe_storage("timed", storage)
    assert isinstance(storage, Storage)
    assert storage.stat("x") == 5
    with pytest.raises(KeyError):
        storage.stat("gone")
    found = metrics.text().decode()
    assert 'sluice_storage_seconds_count{call="stat",storage="timed"} 2.0' in found
    assert 'sluice_storage_failures_total{call="stat",error="KeyError",storage="timed"} 1.0' in found


def test_names_are_those_of_a_real_answer() -> None:
    metrics.JOB_RUNS.labels("x", "done").inc()
    written = {line.partition("{")[0].partition(" ")[0] for line in metrics.text().decode().splitlines()} - {"#", ""}
    assert written <= metrics.names()
    assert all(name.startswith("sluice_") for name in metrics.names())


COUNT_ON_A_FULL_DISK = """
import sys, types
if sys.argv[1] == "before it starts":
    input()
from api.core import metric_files, metrics
metrics.SWEPT.labels("before").inc(1)
if sys.argv[1] == "while it runs":
    input()
for number in range(3000):  # more than the files have room for
    metrics.SWEPT.labels(f"series {number}").inc(2)
    metrics.JOB_SECONDS.labels(f"series {number}").observe(1)
metrics.SWEPT.labels("before").inc(1)
print("counted", flush=True)
input()
metric_files.time = types.SimpleNamespace(monotonic=lambda: sys.float_info.max)  # later
metrics.SWEPT.labels("before").inc(1)
metrics.JOB_SECONDS.labels("before").observe(1)
"""


@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
def test_a_full_disk_kills_no_process_and_its_counts_are_exported_later(when: str, tmp_path: Path) -> None:
    with small_disk(tmp_path, 16):
        folder = tmp_path / "metrics"
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", COUNT_ON_A_FULL_DISK, when],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"SLUICE_METRICS_FOLDER": str(folder)},
            text=True,
        )
        assert process.stdin
        assert process.stdout
        if when == "while it runs":
            while not list(folder.glob("gauge_*.db")):  # the file that is made last
                assert process.poll() is None
                time.sleep(0.01)  # a poll: a file sends no event
        filler = Filler(tmp_path / "filler")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "counted\n", process.wait(10)
        ask(folder)  # the remaining files can be read
        filler.remove()
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
        found = ask(folder)
        assert found['sluice_swept_total{what="before"}'] == 3
        assert found['sluice_swept_total{what="series 2999"}'] == 2
        assert found['sluice_job_seconds_count{kind="series 2999"}'] == 1
