"""Addresses: the accepted forms of a server's address, and the origin that credentials belong to."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from sluice.errors import ConfigError

PORTS = {"http": 80, "https": 443}


def split(url: str) -> SplitResult:
    """The parts of an http or https URL.

    Raises:
        ConfigError: it is none; says why, and never repeats a password that it holds.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as ex:
        # urlsplit quotes what it refuses, so that its message may hold a password
        raise ConfigError(f"{_without_user(url)!r} is no URL: its host or port cannot be read") from ex
    if parts.scheme not in PORTS or not parts.hostname or port == 0:
        raise ConfigError(f"{_without_user(url)!r} is no server's URL: http://… or https://…")
    if any(character.isspace() or ord(character) < 32 for character in url):
        raise ConfigError(f"{_without_user(url)!r} is no URL: it holds white space")
    return parts


def server_url(text: str) -> str:
    """A server's URL in its one form: no white space around it, a lower-case host, no port that goes without saying.

    Raises:
        ConfigError: it is no URL, or holds what a server's address cannot: a user, a query, a fragment.
    """
    parts = split(text.strip())
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{_without_user(text)}: leave user and password out of the address; sluice login asks for them"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{text.strip()!r} is no server's URL: it has a query or a fragment")
    return origin(text.strip()) + parts.path.rstrip("/")


def origin(url: str) -> str:
    """Scheme, host and port of a URL (RFC 6454): credentials are for one origin. Raises ConfigError."""
    parts = split(url)
    host = _ascii(parts.hostname or "")
    shown = f"[{host}]" if ":" in host else host
    port = parts.port or PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if port == PORTS[parts.scheme] else f":{port}")


def shown(url: str) -> str:
    """A URL as a log may hold it: of one that is no call of the API, its origin and the first step of its path."""
    parts = urlsplit(url)
    head = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if "/api/v1/" in parts.path:
        return head + parts.path + ("?…" if parts.query else "")
    return f"{head}/{parts.path.lstrip('/').partition('/')[0]}/…"


def _ascii(host: str) -> str:
    """The host as DNS and HTTP know it."""
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode()
    except UnicodeError as ex:
        raise ConfigError(f"{host!r} cannot be the name of a host") from ex


def _without_user(url: str) -> str:
    """A URL that may be shown."""
    head, slashes, rest = url.partition("://")
    if not slashes:
        return url.rpartition("@")[2]
    place, slash, path = rest.partition("/")
    return head + slashes + place.rpartition("@")[2] + slash + path
