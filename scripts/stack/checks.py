"""What must hold before anything is started, each with one line for the person when it does not."""

import errno
import fcntl
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import IO


class CannotStart(Exception):
    """The stack cannot start; the text is one line for a person."""


def take_lock(path: Path) -> IO[str]:
    """Hold a data folder for one supervisor; the kernel lets go when it dies, however it dies.

    Raises:
        CannotStart: another one holds it.
    """
    file = open(path, "a+")  # noqa: SIM115 - kept open for as long as the lock is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise CannotStart(f"already running, pid {file.read().strip() or 'unknown'}") from None
    with suppress(OSError):  # on a full disk the old text stays, or none: the lock itself needs no room
        file.truncate(0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


def check_port(host: str, port: int) -> None:
    """Try to listen where nginx will.

    Raises:
        CannotStart: somebody listens there, or we may not.
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
            raise CannotStart(f"port {port} is root's alone; choose one from 1024 on by --port") from ex
        raise CannotStart(f"cannot listen on {host}, port {port}: {ex.strerror or ex}") from ex


def check_disk(folder: Path, min_free: int) -> None:
    """A database that is made on a full disk fails in ways that are hard to read.

    Raises:
        CannotStart: less than SLUICE_MIN_FREE is free.
    """
    free = shutil.disk_usage(folder).free
    if free < min_free:
        raise CannotStart(
            f"the disk is full: {free // 1024**2} MiB are free at {folder},"
            f" SLUICE_MIN_FREE asks for {min_free // 1024**2} MiB"
        )
