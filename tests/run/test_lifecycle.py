"""From start to stop and a second start: what a stack leaves, and what it finds again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.run.conftest import Start
from tests.run.running import RunningStack, await_no_process, processes_of, sign_in
from tests.waiting import await_true


def test_it_stops_orderly_and_finds_its_data_again(start: Start, data: Path) -> None:
    first = start().ready()
    password = first.read_until(r"with the password (\S+)").group(1)
    assert first.stop(signal.SIGTERM) == 0
    assert first.output.endswith("sluice: stopping\nsluice: stopped\n")
    assert processes_of(data) == {}
    assert "Shutdown complete" in (data / "log" / "mariadb.log").read_text()

    begun = time.monotonic()
    second = start().ready()
    assert time.monotonic() - begun < 15
    assert sign_in(second.port, password) == "Bearer"
    assert second.stop(signal.SIGINT) == 0, "Ctrl-C is an orderly end, too"
    assert processes_of(data) == {}
    assert "password" not in second.output, "the password is shown once"


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_works(start: Start, data: Path) -> None:
    first = start().ready()
    first.process.kill()
    await_no_process(data)
    second = start().ready()
    assert "already running" not in second.output
    assert second.stop(signal.SIGHUP) == 0


def test_what_a_killed_supervisor_left_is_ended_first(start: Start, data: Path) -> None:
    first = start().ready()
    api = first.pid("api")
    os.kill(api, signal.SIGSTOP)  # its supervisor's death sends it a signal, which it cannot handle while it is stopped
    first.process.kill()
    second = start().ready()
    assert "of api that a killed run had left" in second.output
    assert api not in processes_of(data)
    assert second.stop() == 0


def test_a_first_start_killed_in_the_middle_is_done_again(start: Start, data: Path) -> None:
    first = start()
    deadline = time.monotonic() + 30
    while not (data / "mariadb.new" / "mysql").exists():
        assert time.monotonic() < deadline, first.output
        assert first.process.poll() is None, first.end()
        time.sleep(0.001)  # a poll: a folder sends no event, and its time is short
    first.process.kill()
    first.end()
    assert not (data / "mariadb").exists()
    second = start().ready()
    second.read_until("with the password")
    assert second.stop() == 0


def test_a_stale_pid_of_another_process_is_left_alone(start: Start, data: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            (data / "run" / "pids").mkdir(mode=0o700, parents=True)
            (data / "run" / "lock").write_text(f"{stranger.pid}\n")
            (data / "run" / "pids" / "api").write_text(f"{stranger.pid} 1\n")
            if os.geteuid() == 0:
                owner = data.stat()
                for path in data.rglob("*"):
                    os.chown(path, owner.st_uid, owner.st_gid)
            assert start().ready().stop() == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_server_that_keeps_dying_is_tried_with_growing_pauses_and_the_others_stay(start: Start, data: Path) -> None:
    stack = start().ready()
    others = {service: stack.pid(service) for service in ("mariadb", "redis", "nginx", "worker")}
    socket = data / "run" / "api.sock"
    os.kill(stack.pid("api"), signal.SIGKILL)
    await_true(socket.exists)
    socket.unlink()
    socket.mkdir()  # it cannot listen there, so it ends repeatedly
    begun = time.monotonic()
    stack.read_until(r"api ended with \d+; for the (\d+)th time: starting it again in 2 s\n")
    assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4 + 0.8
    assert {service: stack.pid(service) for service in others} == others
    assert stack.get("/healthz") == 503, "the edge says that it has no API"
    socket.rmdir()
    await_true(lambda: stack.get("/readyz") == 200)
    assert stack.stop() == 0
    assert processes_of(data) == {}


def test_a_server_that_cannot_start_stops_the_started_ones(start: Start, data: Path) -> None:
    (data / "redis.sock").mkdir()
    (data / "run").mkdir(mode=0o700)
    (data / "run" / "redis.sock").mkdir()
    if os.geteuid() == 0:
        owner = data.stat()
        os.chown(data / "run", owner.st_uid, owner.st_gid)
    stack = start()
    assert stack.end() == 1
    assert "sluice: redis ended with 1 at its start\n  | " in stack.output
    assert processes_of(data) == {}


def test_wrong_settings_are_named_before_anything_starts(start: Start, data: Path) -> None:
    stack = start(environment={"SLUICE_SIGNUP": "maybe", "SLUICE_NONSENSE": "1"})
    assert stack.end() == 1
    last = stack.output.splitlines()[-1]
    assert last.startswith("sluice: the settings are wrong: ")
    assert "SLUICE_SIGNUP" in last
    assert "SLUICE_NONSENSE" in last
    assert not (data / "mariadb").exists()


def test_a_setting_that_points_away_from_the_stack_is_refused(start: Start) -> None:
    stack = start(environment={"SLUICE_DATABASE_URL": "mysql://elsewhere/sluice"})
    assert stack.end() == 1
    assert "sluice: SLUICE_DATABASE_URL is set, but scripts/run starts this server itself" in stack.output


def test_a_disk_below_the_reserve_is_one_line_and_nothing_is_started(start: Start, data: Path) -> None:
    stack = start(environment={"SLUICE_MIN_FREE": str(2**60)})
    assert stack.end() == 1
    assert stack.output.splitlines()[-1].startswith("sluice: the disk is full: ")
    assert not (data / "mariadb").exists()


@pytest.mark.usefixtures("root_only")
def test_a_disk_that_fills_up_at_the_first_start_is_one_line(start: Start, data: Path) -> None:
    owner = data.stat()
    options = f"size=20m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", data], check=False).returncode:
        pytest.skip("MOUNTING IS NOT PERMITTED HERE: a really full disk is not tried")
    try:
        stack: RunningStack = start(environment={"SLUICE_MIN_FREE": "0"})
        assert stack.end() == 1
        assert "sluice: mariadb: mariadb-install-db ended with 1\n  | " in stack.output
        assert processes_of(data) == {}
    finally:
        subprocess.run(["umount", data], check=True)
