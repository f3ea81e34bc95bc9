"""Declares, parses and reads settings for `api.core.config`."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KINDS = ("local", "s3", "oss")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def text(value: str) -> str:
    return value


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"is one of {', '.join(allowed)}")
        return value

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError("is a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"is between {low} and {high}")
        return number

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or (parts.scheme in ("http", "https") and not parts.hostname):
            raise ValueError(f"is a URL that starts with {' or '.join(s + ':' for s in schemes if s)}")
        return value.rstrip("/")

    return parse


def bind(value: str) -> str:
    """A listening address such as ``127.0.0.1:9100`` or ``[::1]:9100``."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("is HOST:PORT")
    return value


def host(value: str) -> str:
    """A host name in lower case, with an optional port."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?", value):
        raise ValueError("is HOST or HOST:PORT, in lower case")
    return value


def names(value: str) -> tuple[str, ...]:
    """Names of storages, separated by commas."""
    found = tuple(item.strip() for item in value.split(",") if item.strip())
    if not all(_NAME.fullmatch(item) for item in found):
        raise ValueError("is a list of names, with commas between")
    return found


def root_url(value: str) -> str:
    """The URL of an S3 service. It has no path, since the path is part of the signature."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("is a URL that starts with http: or https:, without a path")
    return value.rstrip("/")


def optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    """A parser that also accepts an empty value."""
    return lambda value: parse(value) if value else ""


def origins(value: str) -> tuple[str, ...]:
    """Origins such as ``https://a.example,https://b.example:8443``; empty means the public URL's origin."""
    found = value.replace(",", " ").split()
    if any(urlsplit(item).scheme not in ("http", "https") or origin(item) != item for item in found):
        raise ValueError("is a list of origins: scheme://host or scheme://host:port, in lower case, and no path")
    return tuple(dict.fromkeys(found))


def origin(url: str) -> str:
    """A URL's origin as browsers send it (RFC 6454 section 6.2): no path, and no port if it is the default."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def secret(value: str) -> str:
    value = value.strip()
    if len(value) < 32 or not value.isascii():
        raise ValueError("has at least 32 ASCII characters")
    return value


def networks(value: str) -> str:
    for network in value.split():
        ipaddress.ip_network(network)
    return value


def folder(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("is an absolute path")
    return path


def pairs(value: str) -> dict[str, str]:
    """``a:b,c:d``."""
    found: dict[str, str] = {}
    for item in filter(None, value.split(",")):
        name, colon, meaning = item.strip().partition(":")
        if not colon or not _NAME.fullmatch(name) or name in found:
            raise ValueError("is a list of name:value, with different names of a-z, 0-9 and _")
        found[name] = meaning
    return found


def storages(value: str) -> dict[str, str]:
    """Storages such as ``main:s3,archive:oss``. If a name is also a kind, the kind may be left out."""
    found = pairs(",".join(item if ":" in item else f"{item}:{item}" for item in value.split(",")))
    kinds = list(found.values())
    if not found or set(kinds) - set(KINDS) or kinds.count("local") > 1:
        raise ValueError(f"names storages as name:kind, a kind is one of {', '.join(KINDS)}, local at most once")
    return found


def flag(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError("is 0 or 1")
    return value == "1"


def setting(parse: Callable[[str], Any], doc: str, default: str | None = None, secret: bool = False) -> Any:
    """A setting as a dataclass field. It is required if it has no default."""
    return dataclasses.field(metadata={"parse": parse, "doc": doc, "default": default, "secret": secret})


def constant(parse: Callable[[str], Any], doc: str, default: str) -> Any:
    """A value that is no setting: the default always holds, but in tests, which set ``SLUICE_TEST_<NAME>``."""
    return dataclasses.field(metadata={"parse": parse, "doc": doc, "default": default, "secret": False, "test": True})


def _raw(names: Sequence[str], environ: Mapping[str, str], *, is_secret: bool) -> str | None:
    """A setting's text, from the first of its names that is set. A secret may be read from a file."""
    for name in names:
        if name in environ:
            return environ[name]
        path = environ.get(f"{name}_FILE") if is_secret else None
        if path is not None:
            try:
                return Path(path).read_text().strip()  # editors and `echo` end a file with a newline
            except OSError as ex:
                raise ValueError(f"cannot be read from {path}: {ex.strerror}") from ex
    return None


def declared(shape: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are settings."""
    return [field for field in dataclasses.fields(shape) if "parse" in field.metadata and "test" not in field.metadata]


class Reader:
    """Reads dataclasses of settings, and collects all problems.

    Attributes:
        problems: one line per missing or malformed setting.
        known: names of all variables that are settings.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []
        self.known: set[str] = set()

    def read(self, shape: type, prefixes: Sequence[str]) -> dict[str, Any]:
        """The values of ``shape``'s fields that could be read. For each field, the first prefix that is set wins."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(shape):
            meta = field.metadata
            if "parse" not in meta:
                continue
            names = [f"{prefix}{'TEST_' * ('test' in meta)}{field.name.upper()}" for prefix in prefixes]
            self.known.update(names)
            if meta["secret"]:
                self.known.update(f"{name}_FILE" for name in names)
            try:
                raw = _raw(names, self._environ, is_secret=meta["secret"])
                raw = meta["default"] if raw is None else raw
                if raw is None:
                    self.problems.append(f"{names[-1]} is missing: {meta['doc']}")
                else:
                    values[field.name] = meta["parse"](raw)
            except ValueError as ex:
                self.problems.append(f"{names[-1]} {ex}")
        return values
