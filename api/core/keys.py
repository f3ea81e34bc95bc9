"""The keys that sign tokens: a file that is read again while the process runs.

The file has one key per line, oldest first. All keys verify tokens. The newest key whose start time has passed signs
them. ``from=`` after a key is this start time, in epoch seconds. So a new key signs no tokens until every process has
read it, and no edge gets a token with an unknown key. The edge reads the same file and ignores the start times
(lua/sluice/identity/keys.lua).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.core.errors import SluiceError

LOOK_EVERY: Final = 1.0
"""Seconds between two checks of the file; the same as on the edge (lua/sluice/identity/keys.lua)."""

MARGIN: Final = 3600
"""Seconds that a key is kept after its last token has expired, since clocks may differ."""

_log = logging.getLogger(__name__)


class KeysRefused(SluiceError):
    """The change would invalidate tokens, or is impossible."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        signs_from: start time in epoch seconds; 0 if it has none.
    """

    text: str
    signs_from: int = 0

    @property
    def fingerprint(self) -> str:
        """A short hash of the key, to show to people."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def parse(value: str) -> tuple[Key, ...]:
    """Parses the keys of a file, or of a setting with commas instead of newlines.

    Raises:
        ValueError: there is no key, or one is too short.
    """
    found: list[Key] = []
    for word in value.replace(",", "\n").split():
        moment = re.fullmatch(r"from=([0-9]{1,12})", word)
        if moment and found:
            found[-1] = Key(found[-1].text, int(moment[1]))
        elif len(word) < 32 or not word.isascii():
            raise ValueError("holds keys of at least 32 ASCII characters, oldest first, a line or a comma each")
        else:
            found.append(Key(word))
    if not found:
        raise ValueError("holds at least one key")
    return tuple(found)


def signing(keys: Sequence[Key], at: float) -> Key:
    """The key that signs at this time."""
    return next((key for key in reversed(keys) if key.signs_from <= at), keys[0])


class Keyring:
    """The keys in force.

    Args:
        keys: as read at the start.
        path: the file to read again; None if the keys never change.
        tick: a monotonic clock, in seconds.
    """

    def __init__(
        self, keys: Sequence[Key], path: Path | None = None, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = tuple(keys)
        self._path = path
        self._tick = tick
        self._looked = tick()
        self._seen: object = None

    def current(self) -> tuple[Key, ...]:
        """The keys. Returns the same object until the file has changed."""
        if self._path is not None and self._tick() - self._looked >= LOOK_EVERY:
            self._looked = self._tick()
            self._look(self._path)
        return self._keys

    def _look(self, path: Path) -> None:
        # if the file cannot be read, the old keys stay valid, and with them all tokens
        try:
            status = path.stat()
            seen: object = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            keys = parse(path.read_text())
        except (OSError, ValueError) as ex:
            if self._seen != str(ex):
                _log.error("the token keys cannot be read again; the old ones stay in force", extra={"error": str(ex)})
            self._seen = str(ex)
            return
        self._seen = seen
        if keys != self._keys:
            _log.info("token keys changed", extra={"keys": [key.fingerprint for key in keys]})
            self._keys = keys


# -- changing the file


@contextmanager
def _locked(path: Path) -> Iterator[tuple[Key, ...]]:
    """Yields the file's keys under an exclusive lock."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield parse(path.read_text())
    except (OSError, ValueError) as ex:
        raise KeysRefused(f"{path}: {ex}") from ex
    finally:
        os.close(folder)


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Replaces the file atomically. Keeps the owner, and never lets others read it."""
    before = path.stat()
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, before.st_uid, before.st_gid)
        # the group may read it if nginx's workers run as another user
        os.fchmod(descriptor, 0o600 | before.st_mode & 0o040)
        for key in keys:
            file.write(f"{key.text} from={key.signs_from}\n" if key.signs_from else f"{key.text}\n")
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)


def rotate(path: Path, now: float, after: int) -> Key:
    """Adds a key that signs after ``after`` seconds.

    Raises:
        KeysRefused: another new key does not sign yet, or the file cannot be changed.
    """
    with _locked(path) as keys:
        if keys[-1].signs_from > now:
            raise KeysRefused(f"key {keys[-1].fingerprint} was added already and does not sign yet")
        key = Key(secrets.token_hex(32), int(now) + after)
        _write(path, [*keys, key])
        return key


def useless_from(keys: Sequence[Key], place: int, longest: int) -> int | None:
    """When the last token of ``keys[place]`` has expired, in epoch seconds; None if the key still signs.

    Args:
        longest: seconds that the longest-lived token lives.
    """
    followers = keys[place + 1 :]
    return min(key.signs_from for key in followers) + longest + MARGIN if followers else None


def retire(path: Path, now: float, longest: int, force: bool = False) -> Key:
    """Removes the oldest key.

    Args:
        longest: see `useless_from`.
        force: remove it even if it has valid tokens; for a key that was leaked.

    Raises:
        KeysRefused: the key may have valid tokens, or no other key signs.
    """
    with _locked(path) as keys:
        if signing(keys, now) is keys[0]:
            raise KeysRefused(f"key {keys[0].fingerprint} is the one that signs: rotate first")
        moment = useless_from(keys, 0, longest)
        if not force and moment is not None and moment > now:
            until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
            raise KeysRefused(f"tokens of key {keys[0].fingerprint} may live until {until}; --force ends them now")
        _write(path, keys[1:])
        return keys[0]
