"""The file behind a link. No credentials are sent: the link alone is enough."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from urllib.parse import unquote, urlsplit

from sluice import address
from sluice.engine import Engine
from sluice.errors import APIError, CertificateRefused, ConfigError, Intercepted, NetworkError, NotFound, SluiceError
from sluice.models import File
from sluice.transport import check_redirect, refusal

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


def look(engine: Engine, link: str) -> File:
    """Returns the file that a link leads to.

    Raises:
        ConfigError: it is no link, or holds a user or a password.
        NotFound, APIError: it is not good, or not any more.
        NetworkError: there is no response, or it is not Sluice's.
    """
    if address.split(link).username is not None:
        raise ConfigError("a link holds no user and no password")
    patience = engine.patience()
    while True:
        patience.check()
        try:
            with engine.connections.request("HEAD", link) as response:
                check_redirect(response, link)
                if response.status == 200:
                    return _file(link, response.headers)
                error: SluiceError = refusal(response, response.read())
                if response.status not in (429, 500, 502, 503, 504):
                    raise _link_error(response.status, response.headers.get("x-request-id", ""), error)
        except (CertificateRefused, Intercepted):
            raise
        except NetworkError as ex:
            error = ex
        patience.pause(error)


def _file(link: str, headers: dict[str, str]) -> File:
    """Returns the file as far as the response of a link describes it."""
    name = unquote(urlsplit(link).path.rpartition("/")[2]) or "download"
    digest = headers.get("etag", "").strip('"')
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or not headers.get("content-length", "").isdecimal():
        raise ConfigError("the link is none of Sluice's")
    return File(
        id="",
        name=name,
        size=int(headers["content-length"]),
        digest=digest,
        content_type=headers.get("content-type", ""),
        state="ready",
        created_at=_EPOCH,
        updated_at=_EPOCH,
        trashed_at=None,
        sha256=None,
    )


def _link_error(status: int, request_id: str, error: SluiceError) -> SluiceError:
    """HEAD has no body to say why."""
    if not request_id:
        return error
    kind = NotFound if status == 404 else APIError
    return kind(status, "LINK_REFUSED", f"The link is not good (any more): status {status}", request_id)
