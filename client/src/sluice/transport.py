"""Calls of the JSON API: encoded, repeated if that is safe; every refusal becomes an error of `sluice.errors`."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any
from urllib.parse import urljoin, urlsplit

from sluice.address import origin, server_url
from sluice.errors import (
    APIError,
    CertificateRefused,
    ConfigError,
    Intercepted,
    NetworkError,
    NotFound,
    ServerAway,
    ServerFull,
    Unauthorized,
)
from sluice.retry import Patience
from sluice.wire import Connections, Response

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_FINAL_429 = frozenset({"SIGNIN_LIMITED"})


class Repeat(Enum):
    """When a call may be sent again."""

    SAFE = "whatever happened to it: doing it twice is the same as once"
    UNSENT = "only where it cannot have arrived, or was answered with a refusal"


class Transport:
    """See the module's docstring.

    Args:
        url: the server's, without /api/v1.
        patience: seconds for which a call is tried again.

    Attributes:
        origin: the server's; a session is good for it alone.
        stop: set when everything should end.
        on_wait: called with the reason for waiting, and the most seconds.
        clock_offset: seconds that the server's clock is ahead of this machine's, as of its last answer.
    """

    def __init__(self, url: str, connections: Connections, patience: float, user_agent: str) -> None:
        self.url = server_url(url)
        self.origin = origin(self.url)
        self.connections = connections
        self.patience_seconds = patience
        self.user_agent = user_agent
        self.stop = threading.Event()
        self.on_wait: Callable[[str, float], None] = lambda text, left: None
        self.clock_offset = 0.0

    def patience(self) -> Patience:
        """A new one, as long as the settings say."""
        return Patience(self.patience_seconds, self.stop, self.on_wait)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        token: str | None = None,
        repeat: Repeat = Repeat.SAFE,
    ) -> tuple[int, dict[str, Any]]:
        """The status and the answer of a call that went well.

        Raises:
            APIError: the server said no.
            NetworkError: no response came within the patience, or one that is not Sluice's.
        """
        headers = {"Accept": "application/json", "User-Agent": self.user_agent}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        patience = self.patience()
        while True:
            patience.check()
            try:
                return self._once(method, path, headers, data)
            except (CertificateRefused, Intercepted):
                raise
            except NetworkError as ex:
                if repeat is Repeat.UNSENT and ex.may_have_arrived:
                    raise
                if not ex.stale:
                    patience.pause(ex)
            except APIError as ex:
                if not is_transient(ex) or (repeat is Repeat.UNSENT and ex.status not in (429, 503)):
                    raise
                patience.pause(ServerAway(f"{self.url} answers {ex}") if ex.status >= 500 else ex, ex.retry_after)

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes | None
    ) -> tuple[int, dict[str, Any]]:
        with self.connections.request(method, f"{self.url}/api/v1{path}", headers, data) as response:
            self.note_clock(response)
            text = response.read()
            check_redirect(response, f"{self.url}/api/v1{path}")
            if response.status >= 300:
                raise refusal(response, text)
            if response.status == 204:
                return 204, {}
            if "x-request-id" not in response.headers:
                raise intercepted(response)
            try:
                answer: dict[str, Any] = json.loads(text)
            except ValueError:
                raise intercepted(response) from None
            return response.status, answer

    def note_clock(self, response: Response) -> None:
        """Takes the server's time from an answer."""
        date = response.headers.get("date")
        if date:
            try:
                self.clock_offset = email.utils.parsedate_to_datetime(date).timestamp() - time.time()
            except ValueError:
                return

    def now(self) -> float:
        """The time by the server's clock, in seconds since 1970."""
        return time.time() + self.clock_offset


def check_redirect(response: Response, url: str) -> None:
    """Raises the error for a redirect. None is followed: the request is for the address that the user has named.

    Raises:
        ConfigError: the same host under another address, such as https:// for http://.
        Intercepted: another host, as the page leads to that hotels sign their guests in with.
    """
    place = response.headers.get("location")
    if response.status not in (301, 302, 303, 307, 308) or not place:
        return
    target = urljoin(url, place)
    try:
        there, asked = origin(target), origin(url)
    except ConfigError:
        raise intercepted(response) from None
    if there != asked and urlsplit(there).hostname == urlsplit(asked).hostname:
        raise ConfigError(f"{asked} redirects to {there}: use that address")
    raise Intercepted(f"{asked} redirects to {there}: is a sign-in page in between, or is this another address?")


def is_transient(ex: APIError) -> bool:
    """Whether the same request may go well a little later."""
    return ex.status in _TRANSIENT and ex.code not in _FINAL_429


def refusal(response: Response, text: bytes) -> APIError | NetworkError:
    """Returns the error that a response stands for; Intercepted if the response is not Sluice's."""
    try:
        error = json.loads(text)["error"]
        code, message = str(error.pop("code")), str(error.pop("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return intercepted(response)
    status, request_id = response.status, str(error.pop("request_id", ""))
    kind = {401: Unauthorized, 404: NotFound, 507: ServerFull}.get(status, APIError)
    return kind(status, code, message, request_id, error, retry_after(response))


def retry_after(response: Response) -> float | None:
    """Returns the seconds to wait, if the response names them (RFC 9110 section 10.2.3)."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except ValueError:
        return None


def intercepted(response: Response) -> NetworkError:
    """Returns the error for a response of another server. A gateway's 502 to 504 may pass; anything else will not."""
    what = response.headers.get("server") or response.headers.get("via") or "something without a name"
    if response.status == 407:
        return Intercepted("the proxy wants a sign-in: put user and password into its address (http://user:password@…)")
    text = f"not Sluice but {what} answered, with status {response.status}"
    if response.status in (502, 503, 504):
        return ServerAway(text)
    return Intercepted(f"{text}: is a proxy or a sign-in page in between, or is this another address?")
