"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or what the system says."""

from __future__ import annotations

import base64
import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from sluice.errors import ConfigError


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        authorization: the value of Proxy-Authorization, or nothing.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def headers(self) -> list[str]:
        return [f"Proxy-Authorization: {self.authorization}"] if self.authorization else []

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"

    @classmethod
    def of(cls, text: str, variable: str) -> Proxy:
        """Returns a proxy by its URL. Raises ConfigError if the URL names no usable proxy."""
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port or 8080
        except ValueError as ex:
            raise ConfigError(f"{variable} is no URL of a proxy: its host or port cannot be read") from ex
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"{variable} names a proxy of the kind {parts.scheme}://; only http:// works here")
        if parts.username is None:
            return cls(parts.hostname, port)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(parts.hostname, port, f"Basic {base64.b64encode(pair.encode()).decode()}")


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """Returns the proxy for a server; None if the connection is direct. Raises ConfigError."""
    import urllib.request  # it costs every start what only a request needs

    found = urllib.request.getproxies()
    kind = scheme if found.get(scheme) else "all"
    text = found.get(kind)
    if not text or _goes_around(host, port):
        return None
    return Proxy.of(text, f"{kind.upper()}_PROXY")


def _goes_around(host: str, port: int) -> bool:
    """Whether NO_PROXY names the host: by its name, a domain, its address, or a network such as 127.0.0.0/8."""
    import urllib.request

    shown = f"[{host}]" if ":" in host else host
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{shown}:{port}"):
        return True
    entries = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(_holds(entry.strip().strip("[]"), address) for entry in entries)


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
