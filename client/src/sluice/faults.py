"""One kind of error, which names the other side, of all that sockets, TLS and the parser of answers raise."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sluice.errors import CertificateRefused, NetworkError, ServerAway
from sluice.proxies import Proxy


@dataclass
class Exchange:
    """How far a connection has come with a request.

    Attributes:
        connected: there is a connection to the server, through the proxy if there is one.
        sent: bytes of the request may have arrived.
        used: requests that were answered on the connection before.
    """

    host: str
    port: int
    proxy: Proxy | None
    connected: bool = False
    sent: bool = False
    used: int = 0

    def __str__(self) -> str:
        """Whom it speaks to at this moment."""
        if self.proxy is not None and not self.connected:
            return str(self.proxy)
        return f"{self.host}:{self.port}"


@contextlib.contextmanager
def named(exchange: Exchange) -> Iterator[None]:
    """Raises a NetworkError for any exception of a connection."""
    try:
        yield
    except (OSError, http.client.HTTPException) as ex:
        raise _error(exchange, ex) from ex


def _error(exchange: Exchange, ex: Exception) -> NetworkError:
    where, arrived, stale = str(exchange), exchange.sent, exchange.used > 0
    if isinstance(ex, ssl.SSLCertVerificationError):
        return CertificateRefused(_certificate(where, ex), may_have_arrived=False)
    if isinstance(ex, TimeoutError):
        return ServerAway(f"{where} does not answer", may_have_arrived=arrived)
    if isinstance(ex, socket.gaierror):
        return ServerAway(f"{where.rpartition(':')[0]} is not known: {ex.strerror}", may_have_arrived=False)
    if isinstance(ex, ConnectionRefusedError):
        return ServerAway(f"nobody answers at {where}", may_have_arrived=False)
    if isinstance(ex, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
        return NetworkError(f"{where} hung up", may_have_arrived=arrived, stale=stale)
    if isinstance(ex, http.client.HTTPException):
        return NetworkError(f"{where} does not speak HTTP", may_have_arrived=arrived)
    if isinstance(ex, ssl.SSLError) and not arrived:
        return CertificateRefused(f"no TLS with {where}: {ex.reason}", may_have_arrived=False)
    text = (ex.strerror if isinstance(ex, OSError) else None) or str(ex)
    return NetworkError(f"the connection to {where} broke: {text}", may_have_arrived=arrived, stale=stale)


def _certificate(where: str, ex: ssl.SSLCertVerificationError) -> str:
    text = f"the certificate of {where} is not trusted: {ex.verify_message}"
    if ex.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        text += f"; by this machine's clock it is {time.strftime('%Y-%m-%d %H:%M:%S')}: is that right?"
    return text
