"""Where tokens are kept between runs, and how processes that share them keep out of each other's way."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sluice.errors import ConfigError, PermissionRefused


@dataclass(frozen=True)
class Credentials:
    """A session.

    Attributes:
        expires_at: when the access token ends, by this machine's clock: a hint, the server decides.
        renew_at: when it is time for another one.
        in_doubt: the refresh token was sent, and no answer came yet. Used again it would end the session.
    """

    access_token: str
    refresh_token: str
    expires_at: float
    renew_at: float
    username: str = ""
    in_doubt: bool = False


class CredentialStore(Protocol):
    """Keeps one session's credentials."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Held while they are renewed: by one thread of one process at a time."""

    def load(self) -> Credentials | None:
        """What is kept, if anything."""

    def save(self, credentials: Credentials) -> None:
        """Keeps them instead of what was kept."""

    def delete(self) -> None:
        """Forgets them."""


class MemoryStore:
    """For one process."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def load(self) -> Credentials | None:
        return self._credentials

    def save(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def delete(self) -> None:
        self._credentials = None


class FileStore:
    """A file that only its owner may read, replaced in one step; a second file is the lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.RLock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._thread, lock_file(self._path.with_suffix(".lock")):
            yield

    def load(self) -> Credentials | None:
        try:
            return _decode(self._path.read_text())
        except FileNotFoundError:
            return None
        except PermissionError as ex:
            raise PermissionRefused(f"{self._path} may not be read") from ex

    def save(self, credentials: Credentials) -> None:
        private_folder(self._path.parent)
        write_private(self._path, json.dumps(asdict(credentials)))

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)


class KeyringStore:
    """The system's keyring; the lock is a file."""

    def __init__(self, keyring: Any, profile: str, lock: Path) -> None:
        self._keyring = keyring
        self._profile = profile
        self._lock = lock
        self._thread = threading.RLock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._thread, lock_file(self._lock):
            yield

    def load(self) -> Credentials | None:
        text = self._keyring.get_password("sluice", self._profile)
        return _decode(text) if text else None

    def save(self, credentials: Credentials) -> None:
        self._keyring.set_password("sluice", self._profile, json.dumps(asdict(credentials)))

    def delete(self) -> None:
        if self._keyring.get_password("sluice", self._profile):
            self._keyring.delete_password("sluice", self._profile)


def store_for(profile: str, folder: Path, kind: str) -> CredentialStore:
    """Where a profile's tokens are kept.

    Args:
        kind: ``file``, ``keyring``, or ``auto``: the keyring where there is one.

    Raises:
        ConfigError: a keyring is asked for, and there is none.
    """
    keyring = None if kind == "file" else _keyring()
    if keyring is not None:
        private_folder(folder)
        return KeyringStore(keyring, profile, folder / f"{profile}.lock")
    if kind == "keyring":
        raise ConfigError("there is no keyring here: pip install 'sluice-client[keyring]', or credentials = file")
    return FileStore(folder / f"{profile}.json")


def _keyring() -> Any:
    try:
        import keyring
        from keyring.backends import fail, null
    except ImportError:
        return None
    backend = keyring.get_keyring()
    return None if isinstance(backend, (fail.Keyring, null.Keyring)) else backend


def _decode(text: str) -> Credentials | None:
    try:
        found = json.loads(text)
        return replace(Credentials("", "", 0.0, 0.0), **found)
    except (ValueError, TypeError):
        return None  # half a file, or another version's: the same as not signed in


def private_folder(folder: Path) -> None:
    """Makes a folder that only its owner may enter. Raises PermissionRefused."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except PermissionError as ex:
        raise PermissionRefused(f"{folder} cannot be made: no permission") from ex


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step, readable by its owner alone from its first moment."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(name, path)
    except PermissionError as ex:
        raise PermissionRefused(f"{path} cannot be written: no permission") from ex


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Holds a file's lock; the system lets go of it when the process ends, however it ends."""
    private_folder(path.parent)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
