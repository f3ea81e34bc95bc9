"""Where tokens are kept between runs, and how processes that share them keep out of each other's way."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sluice.errors import ConfigError, LocalError, PermissionRefused


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
    """Keeps sessions: at most one for each origin, and none for another than the one it was made at."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Held while credentials are renewed: by one thread of one process at a time."""

    def load(self, origin: str) -> Credentials | None:
        """The session of a server, such as ``https://files.example``, if there is one."""

    def save(self, origin: str, credentials: Credentials) -> bool:
        """Replaces the kept session of a server. Returns False if other processes cannot see it."""

    def delete(self, origin: str) -> None:
        """Forgets a server's session."""


class MemoryStore:
    """For one process."""

    def __init__(self) -> None:
        self._kept: dict[str, Credentials] = {}
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def load(self, origin: str) -> Credentials | None:
        return self._kept.get(origin)

    def save(self, origin: str, credentials: Credentials) -> bool:
        self._kept[origin] = credentials
        return True

    def delete(self, origin: str) -> None:
        self._kept.pop(origin, None)

    def after_fork(self) -> None:
        """Marks a forked child's sessions as in doubt: its parent uses them too, and a refresh token works once."""
        self._lock = threading.RLock()
        self._kept = {origin: replace(found, in_doubt=True) for origin, found in self._kept.items()}


class FileStore:
    """A file that only its owner may read, replaced in one step; a second file is the lock.

    Args:
        on_unwritable: if the file cannot be written, this is called with the reason, and memory keeps the sessions.
    """

    def __init__(self, path: Path, on_unwritable: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._on_unwritable = on_unwritable
        self._memory: MemoryStore | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                if self._memory is None:
                    stack.enter_context(lock_file(self._path.with_suffix(".lock")))
            except LocalError as ex:
                self._keep_in_memory(ex)
            yield

    def load(self, origin: str) -> Credentials | None:
        found = self._memory.load(origin) if self._memory is not None else None
        if found is not None:
            return found
        kept = _decode(self._read().get(origin))
        # if the refresh token were used, no other process would learn of the new one
        return replace(kept, in_doubt=True) if kept is not None and self._memory is not None else kept

    def save(self, origin: str, credentials: Credentials) -> bool:
        if self._memory is None:
            try:
                self._write({**self._read(), origin: asdict(credentials)})
                return True
            except LocalError as ex:
                memory = self._keep_in_memory(ex)
        else:
            memory = self._memory
        memory.save(origin, credentials)
        return False

    def delete(self, origin: str) -> None:
        if self._memory is not None:
            self._memory.delete(origin)
            return
        kept = self._read()
        kept.pop(origin, None)
        if kept:
            self._write(kept)
        else:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except PermissionError as ex:
            raise PermissionRefused(f"{self._path} may not be read") from ex
        except (OSError, ValueError):
            return {}  # none is there, or half of one: the same as not signed in
        return found if isinstance(found, dict) else {}

    def _write(self, kept: dict[str, Any]) -> None:
        private_folder(self._path.parent)
        write_private(self._path, json.dumps(kept))

    def _keep_in_memory(self, ex: LocalError) -> MemoryStore:
        """Raises the error if keeping sessions in memory is not wanted."""
        if self._on_unwritable is None:
            raise ex
        self._memory = MemoryStore()
        self._on_unwritable(f"{ex}; the session is kept in memory")
        return self._memory


class KeyringStore:
    """The system's keyring; the lock is a file."""

    def __init__(self, keyring: Any, profile: str, lock: Path) -> None:
        self._keyring = keyring
        self._profile = profile
        self._lock = lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with lock_file(self._lock):
            yield

    def load(self, origin: str) -> Credentials | None:
        text = self._keyring.get_password("sluice", self._name(origin))
        try:
            return _decode(json.loads(text)) if text else None
        except ValueError:
            return None

    def save(self, origin: str, credentials: Credentials) -> bool:
        self._keyring.set_password("sluice", self._name(origin), json.dumps(asdict(credentials)))
        return True

    def delete(self, origin: str) -> None:
        if self._keyring.get_password("sluice", self._name(origin)):
            self._keyring.delete_password("sluice", self._name(origin))

    def _name(self, origin: str) -> str:
        return f"{self._profile} {origin}"


def store_for(
    profile: str, folder: Path, kind: str, on_unwritable: Callable[[str], None] | None = None
) -> CredentialStore:
    """Where a profile's tokens are kept.

    Args:
        kind: ``file``, ``keyring``, or ``auto``: the keyring if there is one.
        on_unwritable: see `FileStore`.

    Raises:
        ConfigError: a keyring is asked for, and there is none.
    """
    keyring = None if kind == "file" else _keyring()
    if keyring is not None:
        private_folder(folder)
        return KeyringStore(keyring, profile, folder / f"{profile}.lock")
    if kind == "keyring":
        raise ConfigError("there is no keyring here: pip install 'sluice-client[keyring]', or credentials = file")
    return FileStore(folder / f"{profile}.json", on_unwritable)


def _keyring() -> Any:
    try:
        import keyring
        from keyring.backends import fail, null
    except ImportError:
        return None
    backend = keyring.get_keyring()
    return None if isinstance(backend, (fail.Keyring, null.Keyring)) else backend


def _decode(found: Any) -> Credentials | None:
    try:
        return replace(Credentials("", "", 0.0, 0.0), **found)
    except TypeError:
        return None  # none, or another version's: the same as not signed in


def private_folder(folder: Path) -> None:
    """Makes a folder that only its owner may enter. Raises PermissionRefused, LocalError."""
    with _own_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step, readable by its owner alone from its first moment. Raises as `private_folder`."""
    with _own_errors(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(name, path)


@contextlib.contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as ex:
        kind = PermissionRefused if isinstance(ex, PermissionError) or ex.errno == errno.EROFS else LocalError
        raise kind(f"{path} cannot be written: {ex.strerror}") from ex


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Holds a file's lock; the system lets go of it when the process ends, however it ends."""
    private_folder(path.parent)
    with _own_errors(path):
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
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked in the meantime has the file open, too
        os.close(descriptor)
