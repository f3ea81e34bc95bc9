"""Starts a server, ends it with all its descendants, and ends processes that a killed supervisor left."""

import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

SERVER_USER = "sluice"
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_RECORD_SIZE = 40


class ServiceError(Exception):
    """A server could not be made ready. The message is one line for the user.

    Args:
        text: what went wrong.
        log: the file whose last lines say more.
    """

    def __init__(self, text: str, log: Path | None = None) -> None:
        super().__init__(text)
        self.log = log


class NotReady(ServiceError):
    """A server runs, but is not ready within the time allowed for its start."""


def as_server_user(command: Sequence[str]) -> list[str]:
    """The command, run as the unprivileged user if this process is root (mariadbd refuses to run as root)."""
    if os.geteuid() != 0:
        return list(command)
    user = _server_user()
    drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    return [*drop, *command]


def make_folder(folder: Path) -> Path:
    """Make a private folder that belongs to the servers' user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    give_to_server(folder)
    return folder


def give_to_server(path: Path) -> None:
    """Give a file or folder to the servers' user."""
    if os.geteuid() == 0:
        user = _server_user()
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def server_uid() -> int:
    """The user that the servers run as."""
    return _server_user().pw_uid if os.geteuid() == 0 else os.geteuid()


def _server_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        raise ServiceError(f"there is no user {SERVER_USER}: run scripts/install") from None


def spawn(
    command: Sequence[str], *, log: Path, folder: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a process in a new session, so that it and its workers can be ended as one group.

    The kernel sends it SIGTERM when this process dies, for any reason. If the log cannot be opened, output is dropped.
    """
    with _open_log(log) as output:
        return subprocess.Popen(
            as_server_user(["setpriv", "--pdeathsig", "TERM", "--", *command]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def _open_log(log: Path) -> BinaryIO:
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def stop(process: "subprocess.Popen[bytes]", ask: signal.Signals, seconds: float) -> None:
    """Ask a process to end, wait, and kill what remains of its group."""
    if process.poll() is None:
        process.send_signal(ask)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    end_group(process)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill the rest of a process group: nginx's and gunicorn's workers outlive a killed master and hold its port.

    Returns when they are gone, which this process knows from their exit statuses, as their subreaper.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(ChildProcessError):
        while os.waitpid(-process.pid, 0):
            pass


def adopt_orphans() -> None:
    """Adopt the children of child processes that die (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap_adopted(own: Container[int]) -> None:
    """Reap dead processes that were adopted. Without this, each stays as a zombie.

    Args:
        own: process ids whose exit statuses other code reads.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        os.waitpid(found.si_pid, 0)


def describe_end(returncode: int) -> str:
    """How a process ended, as text."""
    if returncode >= 0:
        return f"ended with {returncode}"
    return f"was killed by {signal.Signals(-returncode).name}"


def remember(record: Path, process: "subprocess.Popen[bytes]") -> None:
    """Write down the identity of a child process, for the next supervisor if this one is killed.

    The new record overwrites the old one within its disk block, so it works on a full disk. If it cannot be
    written, the children of a killed supervisor still get SIGTERM.
    """
    start = _start_time(process.pid)
    if start is None:
        return
    with suppress(OSError):
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, f"{process.pid} {start}".ljust(_RECORD_SIZE - 1).encode() + b"\n", 0)
        finally:
            os.close(descriptor)


def end_leftover(record: Path, folder: Path, seconds: float) -> int:
    """End what is left of a process group that `remember` wrote down; never another process.

    A process belongs to the group if it is the remembered one (same id, same start time), or if it belongs to
    that session and its working folder is in the data folder. The process id alone can have been reused since.

    Returns:
        Number of processes that were ended.
    """
    try:
        pid, start = (int(word) for word in record.read_text().split())
    except (OSError, ValueError):
        record.unlink(missing_ok=True)
        return 0
    ended: set[int] = set()
    deadline = time.monotonic() + seconds
    while ours := list(_session_members(pid, start, folder)):
        late = time.monotonic() > deadline
        for member in ours:
            if late or member not in ended:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL if late else signal.SIGTERM)
                    os.kill(member, signal.SIGCONT)  # a stopped process handles the signal only after SIGCONT
        ended.update(ours)
        time.sleep(0.05)
    record.unlink()
    return len(ended)


def _session_members(session: int, leader_start: int, folder: Path) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        fields = _stat(int(entry))
        if fields is None or int(fields[3]) != session or fields[0] == "Z":
            continue
        if int(entry) == session:
            if int(fields[19]) == leader_start:
                yield session
        elif int(fields[19]) >= leader_start and _works_in(int(entry), folder):
            yield int(entry)


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder
    except OSError:
        return False


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat, beginning with the third, the state (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])
