"""Settings of the command: options, then SLUICE_CLIENT_… variables, then the profile's section of config.ini."""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_config_path, user_data_path

from sluice.address import origin, server_url
from sluice.credentials import CredentialStore, private_folder, store_for, write_private
from sluice.errors import ConfigError
from sluice.settings import INSTANT_MODES, Settings

PREFIX = "SLUICE_CLIENT_"
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)

KEYS = {
    "url": "the server",
    "username": "who signs in",
    "password": "for a sign-in without a person; better in a variable than in a file",
    "token": "an access token that is used as it is",
    "credentials": "where tokens are kept: auto, keyring or file",
    "parallel": "parts, ranges or small files on their way at once",
    "hashers": "parts that are hashed at once",
    "instant": "auto, always, never, or a size from which on files are hashed before they are sent",
    "limit_rate": "bytes a second, such as 10M",
    "patience": "seconds for which something is tried again",
    "ca_file": "certificates to trust besides the system's",
    "sync": "yes: a downloaded file is written through to the disk before it gets its name",
}
"""Every setting: a key of config.ini, and in capitals behind SLUICE_CLIENT_ a variable."""
_SECRETS = frozenset({"password", "token"})


def size(text: str) -> int:
    """``10M`` → 10485760. Raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is no size: 500K, 10M, 1.5G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


_NOWHERE = Path(os.devnull, "sluice")
"""Can be neither read nor made."""


@dataclass(frozen=True)
class Folders:
    """The folders of the command.

    Attributes:
        config: config.ini.
        data: tokens, and what was learned of servers.
    """

    config: Path
    data: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Folders:
        home = environ.get(f"{PREFIX}HOME")
        if home:
            return cls(Path(home), Path(home))
        try:
            found = cls(user_config_path("sluice", appauthor=False), user_data_path("sluice", appauthor=False))
        except RuntimeError:  # a user without a home: other versions of platformdirs return a folder "~" instead
            return cls(_NOWHERE, _NOWHERE)
        return found if found.config.is_absolute() and found.data.is_absolute() else cls(_NOWHERE, _NOWHERE)


class Config:
    """The settings of one profile.

    Args:
        options: the options of the command line; None for an option that was not given.
    """

    def __init__(
        self, profile: str | None, options: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.folders = Folders.of(environ)
        self.profile = profile or environ.get(f"{PREFIX}PROFILE") or "default"
        if not _PROFILE.fullmatch(self.profile):
            raise ConfigError(f"{self.profile!r} cannot be a profile's name")
        self._environ = environ
        self._options = {key: value for key, value in (options or {}).items() if value is not None}
        self._path = self.folders.config / "config.ini"
        self._file = _read(self._path)
        self._check()

    def _check(self) -> None:
        known = {f"{PREFIX}{key.upper()}" for key in KEYS} | {f"{PREFIX}{key}" for key in ("HOME", "PROFILE", "DEBUG")}
        for name in sorted(self._environ):
            if name.startswith(PREFIX) and name not in known:
                raise ConfigError(f"{name} is not a setting")
        if self._file.has_section(self.profile):
            for key in self._file[self.profile]:
                if key not in KEYS:
                    raise ConfigError(f"{self._path}: {key} is not a setting")

    def get(self, key: str) -> str | None:
        """Returns a setting as text; None if it is not set.

        A password or a token that stands beside a server's address is for that server. If an address of higher
        priority, such as --url, names another origin, the password or token is not used.
        """
        levels = [level.get(key) for level in self._levels()]
        place = next((place for place, value in enumerate(levels) if value), None)
        if place is None or (key in _SECRETS and not self._is_for_this_server(place)):
            return None
        return levels[place]

    def _levels(self) -> list[Mapping[str, str | None]]:
        """Options, variables, the file: each outweighs the next."""
        section = self._file[self.profile] if self._file.has_section(self.profile) else self._file.defaults()
        variables = {key: self._environ.get(f"{PREFIX}{key.upper()}") for key in KEYS}
        return [{key: str(value) for key, value in self._options.items()}, variables, section]

    def _is_for_this_server(self, place: int) -> bool:
        urls = [level.get("url") for level in self._levels()]
        wanted, beside = next(filter(None, urls), None), next(filter(None, urls[place:]), None)
        return wanted is None or beside is None or origin(wanted.strip()) == origin(beside.strip())

    @property
    def url(self) -> str:
        """Returns the server's address. Raises ConfigError if none is set, or if it is no valid address."""
        found = self.get("url")
        if not found:
            raise ConfigError("no server is known yet: sluice login http://server")
        return server_url(found)

    def settings(self) -> Settings:
        """How transfers go."""
        found: dict[str, Any] = {}
        for key in ("parallel", "hashers"):
            if (text := self.get(key)) is not None:
                found[key] = _number(key, text, int)
        if (text := self.get("patience")) is not None:
            found["patience"] = _number("patience", text, float)
        if text := self.get("limit_rate"):
            found["limit_rate"] = float(size(text))
        if text := self.get("instant"):
            found["instant"] = text if text in INSTANT_MODES else size(text)
        if text := self.get("ca_file"):
            found["ca_file"] = Path(text)
        found["sync"] = (self.get("sync") or "no").lower() in ("1", "yes", "true", "on")
        return Settings(**found)

    def store(self, on_unwritable: Callable[[str], None] | None = None) -> CredentialStore:
        """Where this profile's tokens are; see `sluice.credentials.FileStore`."""
        kind = self.get("credentials") or "auto"
        if kind not in ("auto", "keyring", "file"):
            raise ConfigError("credentials is auto, keyring or file")
        return store_for(self.profile, self.folders.data / "credentials", kind, on_unwritable)

    def remember(self, **values: str) -> None:
        """Writes settings into the profile's section."""
        if not self._file.has_section(self.profile):
            self._file.add_section(self.profile)
        self._file[self.profile].update(values)
        text = io.StringIO()
        self._file.write(text)
        private_folder(self._path.parent)
        write_private(self._path, text.getvalue())


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as ex:
        raise ConfigError(f"{path} cannot be understood: {str(ex).splitlines()[0]}") from ex
    except PermissionError as ex:
        raise ConfigError(f"{path} may not be read") from ex
    return parser


def _number(key: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{key} is a number, not {text!r}") from None
