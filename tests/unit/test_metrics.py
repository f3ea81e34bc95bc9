"""What is counted, by one process and by several that share a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api.core import metrics

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
    """A process that counts, and lives until it is told to end."""

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
    # what it counted stays; what it had open is not open any more
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


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
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
