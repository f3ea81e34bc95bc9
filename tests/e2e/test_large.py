"""One file of 1 GiB: finalized in the background by a worker that is killed meanwhile, in constant memory."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client, code
from tests.e2e.gateway import Gateway
from tests.e2e.sources import MIB, Sources
from tests.waiting import await_true

SETTINGS: dict[str, str] = {}
GIB = 1024 * MIB
GROWTH_MAX = 32 * MIB


def status_of(pid: int, field: str) -> int:
    """A memory figure of a process, in bytes (proc_pid_status(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def forget_peaks(pids: list[int]) -> dict[int, int]:
    """The memory of each process, and the start of a new peak (clear_refs 5, proc_pid_clear_refs(5))."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return {pid: status_of(pid, "VmRSS") for pid in pids}


@pytest.mark.timeout(180)
def test_a_gigabyte_survives_the_death_of_its_worker_in_constant_memory(
    gateway: Gateway, user: Client, sources: Sources
) -> None:
    source = sources.make(GIB, "large")
    small = sources.make(3 * MIB, "before")
    assert user.holds(user.upload(small), small)
    api, (worker,) = gateway.pids("api"), gateway.pids("worker")
    before, idle_worker = forget_peaks(api), forget_peaks([worker])[worker]

    upload = user.create(source)
    part_url = user.sign(upload, source, [1])[1]
    user.send(upload, source)
    begun = time.monotonic()
    answer = user.call("POST", f"/uploads/{upload['id']}/complete")
    assert (answer.status_code, answer.json()["state"]) == (202, "finalizing")
    assert time.monotonic() - begun < 2, "answered at once"

    growing = gateway.storage / "assembling" / upload["id"] / ".object"
    await_true(lambda: growing.exists() and growing.stat().st_size > GIB // 8)
    os.kill(worker, signal.SIGKILL)
    assert growing.stat().st_size <= GIB
    assert code(user.put(part_url, source.part(1))) == (409, "UPLOAD_NOT_OPEN")
    assert code(user.call("DELETE", f"/uploads/{upload['id']}")) == (409, "UPLOAD_NOT_OPEN")
    assert user.call("POST", f"/uploads/{upload['id']}/complete").status_code == 202, "safe to repeat"
    assert user.call("GET", f"/uploads/{upload['id']}").json()["state"] == "finalizing"

    file = user.complete(upload)
    (successor,) = gateway.pids("worker")
    assert successor != worker
    assert file["sha256"] is None, "no client waits for the hash of the whole file"
    await_true(lambda: user.want(200, "GET", f"/files/{file['id']}")["sha256"] == source.sha256)
    assert user.holds(file, source)
    gateway.await_nothing_lost()
    assert sorted(gateway.objects().values()) == [3 * MIB, GIB]

    assert gateway.pids("api") == api
    growth = {f"api {pid}": status_of(pid, "VmHWM") - before[pid] for pid in api}
    growth["worker"] = status_of(successor, "VmHWM") - idle_worker
    assert max(growth.values()) < GROWTH_MAX, growth

    # a second user's instant upload of it makes the server read a quarter of a megabyte, in no measurable time
    other = gateway.user()
    claim = other.create(source)
    proof = {"proof": source.proof(claim["challenge"]), "parts": source.hashes}
    begun = time.monotonic()
    assert other.want(200, "POST", f"/uploads/{claim['id']}/proof", proof)["state"] == "done"
    assert time.monotonic() - begun < 2
    assert other.sent == []
