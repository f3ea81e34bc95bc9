"""Different users and folders: root, an ordinary user, folders that other users may not enter."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.stack import logs
from scripts.stack.paths import SOCKET_PATH_MAX, Paths
from tests.run.conftest import Start
from tests.run.running import ROOT, RunningStack, processes_of

CODE_PARTS = (
    "api",
    "lua",
    "nginx",
    "scripts",
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-page.txt",
    ".venv",
)


@pytest.fixture
def closed_checkout() -> Iterator[Path]:
    """A copy of the checkout in a folder that only its owner can enter."""
    parent = Path(tempfile.mkdtemp(prefix="sluice-closed-"))
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    checkout = parent / "sluice"
    checkout.mkdir()
    for part in CODE_PARTS:
        subprocess.run(["cp", "-a", ROOT / part, checkout], check=True)
    yield checkout
    shutil.rmtree(parent)


@pytest.mark.usefixtures("root_only")
def test_root_runs_a_checkout_that_only_root_enters(closed_checkout: Path, start: Start, data: Path) -> None:
    modes = {path: path.stat().st_mode for path in (closed_checkout, closed_checkout.parent)}
    data.chmod(0o755)  # stands for /var/lib
    os.chown(data, 0, 0)
    where = {"SLUICE_SYSTEM_FOLDER": str(data)}
    stack = start(None, root=closed_checkout, environment=where).ready()
    assert f"user sluice cannot use {closed_checkout}/var: data goes to {data}/sluice\n" in stack.output
    assert f"the code is copied to {data}/sluice-code\n" in stack.output
    code = data / "sluice-code"
    assert (code.stat().st_uid, stat.S_IMODE(code.stat().st_mode)) == (0, 0o755)
    assert (data / "sluice").owner() == "sluice"
    assert stack.get("/readyz") == 200
    assert stack.stop() == 0
    assert processes_of(data) == {}
    assert {path: path.stat().st_mode for path in modes} == modes
    assert not (closed_checkout / "var").exists()

    (closed_checkout / "api" / "added.py").write_text("")
    again = start(None, root=closed_checkout, environment=where).ready()
    assert (code / "api" / "added.py").exists(), "the copy follows the checkout"
    assert again.stop() == 0


@pytest.mark.usefixtures("root_only")
def test_root_gives_a_new_data_folder_to_the_servers_user(start: Start, data: Path) -> None:
    data.chmod(0o755)
    os.chown(data, 0, 0)
    folder = data / "new" / "folder"
    stack = start(folder).ready()
    assert folder.owner() == "sluice"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert data.owner() == "root"
    assert stack.stop() == 0


@pytest.mark.usefixtures("root_only")
def test_an_ordinary_user_runs_it_and_root_continues_as_that_user(start: Start, data: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    drop = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    stack = start(prefix=drop).ready()
    assert f"data      {data}, as user nobody\n" in stack.output
    assert stack.stop() == 0
    stack = start().ready()
    assert f"data      {data}, as user nobody\n" in stack.output
    assert stack.stop() == 0


@pytest.mark.usefixtures("root_only")
def test_a_user_without_a_name_runs_it_in_a_path_with_spaces(start: Start, data: Path) -> None:
    nameless = 54_321
    with pytest.raises(KeyError):
        pwd.getpwuid(nameless)
    folder = data / "a folder" / "of sluice"
    os.chown(data, nameless, nameless)
    drop = ("setpriv", f"--reuid={nameless}", f"--regid={nameless}", "--clear-groups")
    stack = start(folder, prefix=drop, environment={"HOME": "/nonexistent"}).ready()
    assert f"data      {folder}, as user {nameless}\n" in stack.output
    assert stack.get("/readyz") == 200
    assert stack.stop() == 0
    assert processes_of(folder) == {}


def test_sockets_of_a_long_path_are_elsewhere(start: Start, data: Path) -> None:
    deep = data / ("d" * 90)
    stack: RunningStack = start(deep).ready()
    assert "is too long for sockets: they are in /tmp/sluice-" in stack.output
    assert stack.stop() == 0
    subprocess.run(["bash", "-c", 'rm -rf "$1"', "", next(iter(_run_folders(deep)))], check=True)


def _run_folders(data: Path) -> Iterator[Path]:
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    yield from Path("/tmp").glob(f"sluice-*-{name}")


def test_a_socket_path_never_exceeds_its_limit(data: Path) -> None:
    longest = SOCKET_PATH_MAX - len("/run/api.sock.internal")
    fits = data / ("x" * (longest - len(str(data)) - 1))
    assert Paths.of(fits).run == fits / "run"
    assert len(str(fits / "run" / "api.sock.internal")) == SOCKET_PATH_MAX
    too_long = fits.with_name(fits.name + "x")
    run = Paths.of(too_long).run
    assert run.parent == Path("/tmp")
    run.rmdir()


def test_a_missing_package_is_named_in_a_line_to_paste(tmp_path: Path) -> None:
    tools = Path(tempfile.mkdtemp(prefix="sluice-tools-"))
    tools.chmod(0o755)
    for name in ("dpkg-query", "sudo"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*drop, ROOT / "scripts" / "install"],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(tools)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("install: packages are missing and this is not root. Run: sudo sh -c 'apt-get ")
    assert " mariadb-server-core " in result.stderr


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "65536"], ["--port", "x"], ["--port"]])
def test_a_wrong_port_is_one_line(arguments: list[str]) -> None:
    result = subprocess.run([ROOT / "scripts" / "run", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_large_log_is_kept_aside_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_MAX", 100)
    small, large = tmp_path / "small.log", tmp_path / "large.log"
    small.write_text("s" * 100)
    large.write_text("l" * 101)
    with large.open("a") as server:  # keeps its file open, as servers do
        logs.cap(tmp_path)
        server.write("next")
    assert small.read_text() == "s" * 100
    assert large.read_text() == "next"
    assert (tmp_path / "large.log.1").read_text() == "l" * 101
