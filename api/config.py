"""The settings, each defined once: name, default, meaning, check.

Every setting is an environment variable ``SLUICE_<NAME>``; the secret ones can also be given as a file by
``SLUICE_<NAME>_FILE``. `load` collects every problem before it gives up, so that one start names them all.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from api.errors import ConfigError

MIB = 1024**2
TIB = 1024**4


def _text(value: str) -> str:
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"is one of {', '.join(allowed)}")
        return value

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError("is a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"is between {low} and {high}")
        return number

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if urlsplit(value).scheme not in schemes:
            raise ValueError(f"is a URL that starts with {' or '.join(s + ':' for s in schemes)}")
        return value.rstrip("/")

    return parse


def _keys(value: str) -> tuple[str, ...]:
    keys = tuple(value.replace(",", "\n").split())
    if not keys:
        raise ValueError("holds at least one key")
    if any(len(key) < 32 or not key.isascii() for key in keys):
        raise ValueError("holds keys of at least 32 ASCII characters, oldest first, a line or a comma each")
    return keys


def _secret(value: str) -> str:
    value = value.strip()
    if len(value) < 32 or not value.isascii():
        raise ValueError("has at least 32 ASCII characters")
    return value


def _networks(value: str) -> str:
    for network in value.split():
        ipaddress.ip_network(network)
    return value


def _folder(value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("is an absolute path")
    return path


def _setting(parse: Callable[[str], Any], doc: str, default: str | None = None, secret: bool = False) -> Any:
    return dataclasses.field(metadata={"parse": parse, "doc": doc, "default": default, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is in force; one attribute per setting, ``SLUICE_`` and upper case outside."""

    public_url: str = _setting(_url("http", "https"), "Where clients reach the gateway", "http://127.0.0.1:8080")
    secret_keys: tuple[str, ...] = _setting(_keys, "Keys that sign tokens, oldest first", secret=True)
    edge_key: str = _setting(_secret, "What the edge shows to the API's internal calls", secret=True)
    database_url: str = _setting(_url("mysql"), "mysql://user:password@host/name?unix_socket=…", secret=True)
    redis_url: str = _setting(_url("redis", "rediss", "unix"), "redis://… or unix:///…", secret=True)
    database_pool: int = _setting(_integer(1, 256), "Database connections of one process, at most", "16")
    storage_root: Path = _setting(_folder, "The folder of the storage `local`")
    signup: str = _setting(_one_of("open", "invite", "closed"), "Who may make an account", "open")
    signup_code: str = _setting(_text, "What a sign-up must name where SLUICE_SIGNUP=invite", "", secret=True)
    access_ttl: int = _setting(_integer(60, 86400), "Seconds that an access token lives", "900")
    refresh_ttl: int = _setting(_integer(3600, 365 * 86400), "Seconds that a refresh token lives", "2592000")
    link_ttl: int = _setting(_integer(60, 604800), "Seconds that a link lives when nobody says", "3600")
    signin_account_limit: int = _setting(_integer(1, 10**6), "Failed sign-ins an account in 5 minutes", "10")
    signin_address_limit: int = _setting(_integer(1, 10**6), "Failed sign-ins an address in 5 minutes", "100")
    dedup_scope: str = _setting(_one_of("global", "user"), "Whose content is stored once", "global")
    proof_ranges: int = _setting(_integer(1, 64), "Byte ranges that a challenge asks for", "4")
    max_file_size: int = _setting(_integer(1, 2**63 - 1), "Bytes of one file, at most", str(5 * TIB))
    min_free: int = _setting(_integer(0, 2**63 - 1), "Bytes kept free on the storage's disk", str(512 * MIB))
    upload_ttl: int = _setting(_integer(60, 604800), "Seconds that an unfinished upload lives", "604800")
    part_url_ttl: int = _setting(_integer(10, 3600), "Seconds that a part's URL lives", "900")
    finalize_inline: int = _setting(
        _integer(0, 2**63 - 1),
        "Bytes up to which complete is answered at once, not by polling",
        str(64 * MIB),
    )
    user_uploads: int = _setting(_integer(1, 10**6), "Unfinished uploads of one user, at most", "100")
    user_parts: int = _setting(_integer(10_000, 10**7), "Part rows of one user's unfinished uploads", "100000")
    upload_retention: int = _setting(_integer(3600, 10**8), "Seconds that an ended upload can be asked for", "604800")
    sweep_interval: int = _setting(_integer(1, 86400), "Seconds between two sweeps", "30")
    target_ttl: int = _setting(_integer(1, 3600), "Seconds that the edge keeps where a blob lies", "60")
    revocation_lag: int = _setting(_integer(1, 60), "Seconds until a revoked token stops working", "2")
    link_grace: int = _setting(_integer(0, 3600), "Seconds that links outlast a lost API", "30")
    ready_networks: str = _setting(_networks, "Networks that may ask /readyz", "127.0.0.0/8 ::1/128")
    log_level: str = _setting(_one_of("debug", "info", "warning", "error"), "How much the logs say", "info")

    def in_force(self) -> list[tuple[str, str]]:
        """Every setting's name and value; a secret's value is left out."""
        return [
            (env_name(field.name), "(secret)" if field.metadata["secret"] else str(getattr(self, field.name)))
            for field in dataclasses.fields(self)
        ]


def env_name(attribute: str) -> str:
    """The environment variable of a setting."""
    return f"SLUICE_{attribute.upper()}"


# Settings of the same prefix that other parts read: the edge's template, gunicorn's file, `scripts/run`.
ELSEWHERE = frozenset({"SLUICE_API_BIND", "SLUICE_API_WORKERS", "SLUICE_API_THREADS"})


def _raw(name: str, environ: Mapping[str, str], *, secret: bool) -> str | None:
    """The text of one setting, from the environment or, for a secret, from its file."""
    if name in environ:
        return environ[name]
    path = environ.get(f"{name}_FILE") if secret else None
    if path is None:
        return None
    try:
        return Path(path).read_text().strip()  # editors and `echo` end a file with a newline
    except OSError as ex:
        raise ValueError(f"cannot be read from {path}: {ex.strerror}") from ex


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Reads the settings.

    Raises:
        ConfigError: with every missing, malformed and unknown setting.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    known = set(ELSEWHERE)
    for field in dataclasses.fields(Config):
        name, meta = env_name(field.name), field.metadata
        known |= {name, f"{name}_FILE"} if meta["secret"] else {name}
        try:
            raw = _raw(name, environ, secret=meta["secret"])
            if raw is None:
                raw = meta["default"]
            if raw is None:
                problems.append(f"{name} is missing: {meta['doc']}")
            else:
                values[field.name] = meta["parse"](raw)
        except ValueError as ex:
            problems.append(f"{name} {ex}")
    for name in sorted(environ):
        if name.startswith("SLUICE_") and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            problems.append(f"{name} is not a setting" + (f"; {near[0]} is" if near else ""))
    if values.get("signup") == "invite" and not values.get("signup_code"):
        problems.append("SLUICE_SIGNUP_CODE is missing: SLUICE_SIGNUP=invite needs it")
    if problems:
        raise ConfigError(problems)
    return Config(**values)  # type: ignore[arg-type]
