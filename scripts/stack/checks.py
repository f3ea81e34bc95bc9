"""Conditions that must hold before any server starts. Each failure is one line for the user."""

import errno
import fcntl
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO


class CannotStart(Exception):
    """The stack cannot start. The message is one line for the user."""


def take_lock(path: Path) -> IO[str]:
    """Lock a data folder for one supervisor. The kernel releases the lock when the supervisor dies, even by SIGKILL.

    Raises:
        CannotStart: another supervisor holds the lock.
    """
    file = open(path, "a+")  # noqa: SIM115 - kept open for as long as the lock is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise CannotStart(f"already running, pid {file.read().strip() or 'unknown'}") from None
    with suppress(OSError):  # on a full disk the text may be missing; the lock itself needs no space
        file.truncate(0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


def check_port(host: str, port: int) -> None:
    """Try to listen on nginx's address and port.

    Raises:
        CannotStart: the port is taken, or this user may not listen there.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as ex:
        if ex.errno == errno.EADDRINUSE:
            raise CannotStart(f"port {port} is in use") from ex
        if ex.errno == errno.EACCES:
            raise CannotStart(f"port {port} needs root; choose one from 1024 up with --port") from ex
        raise CannotStart(f"cannot listen on {host}, port {port}: {ex.strerror or ex}") from ex


def check_disk(folder: Path, min_free: int) -> None:
    """Check free space before the first start: making a database on a full disk fails with unclear errors.

    Raises:
        CannotStart: free space is below SLUICE_MIN_FREE.
    """
    free = shutil.disk_usage(folder).free
    if free < min_free:
        raise CannotStart(
            f"the disk is full: {free // 1024**2} MiB are free at {folder},"
            f" SLUICE_MIN_FREE is {min_free // 1024**2} MiB"
        )
