"""The errors of the client, and the exit code of the command for each.

SluiceError
├── ConfigError               settings or arguments that cannot work
├── SignInNeeded              there is no session, or it has ended
├── APIError                  the server said no; `code` and `status` are those of docs/api.md
│   ├── Unauthorized          the password is wrong, or the token is not good
│   ├── NotFound              there is no such file, upload or address
│   └── ServerFull            the server's storage has no room
├── NetworkError
│   ├── ServerAway            the server does not answer, or is not ready, for longer than the patience
│   ├── Intercepted           something else than Sluice answered: a proxy, a captive portal
│   └── CertificateRefused    TLS failed; often a clock that is wrong
├── ContentError
│   ├── FileChanged           a file changed while it was uploaded
│   └── DigestMismatch        what was downloaded is not what its digest says
├── LocalError                this machine's file system said no
│   ├── DiskFull
│   ├── PermissionRefused
│   └── NameRefused           the local file system cannot take the name
├── SomeFailed                several files were asked for, and not all went well
└── Cancelled                 the caller stopped it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SluiceError(Exception):
    """Everything that this package raises on purpose.

    Attributes:
        exit_code: the exit code of the command `sluice`.
    """

    exit_code: ClassVar[int] = 1


class ConfigError(SluiceError):
    """Settings or arguments that cannot work."""

    exit_code = 2


class SignInNeeded(SluiceError):
    """Nobody is signed in, or the session has ended and no password is at hand."""

    exit_code = 3


class APIError(SluiceError):
    """The server said no.

    Attributes:
        status: the HTTP status.
        code: the error's code, as docs/api.md lists them.
        request_id: the id of the request in the server's log.
        details: further members of the error.
        retry_after: seconds after which the call may be repeated, if the server named them.
    """

    exit_code = 5

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        request_id: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.details = dict(details or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.args[0].rstrip('.')} ({self.code})"


class Unauthorized(APIError):
    """The password is wrong, or the token is not good."""

    exit_code = 3


class NotFound(APIError):
    """There is no such file, upload or address."""

    exit_code = 4


class ServerFull(APIError):
    """The server's storage has no room."""

    exit_code = 14


class NetworkError(SluiceError):
    """The server could not be spoken to.

    Attributes:
        may_have_arrived: whether the server may have acted on what was sent.
        stale: it happened on a kept connection, which the server may just have closed for its age.
    """

    exit_code = 6

    def __init__(self, message: str, *, may_have_arrived: bool = True, stale: bool = False) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived
        self.stale = stale


class ServerAway(NetworkError):
    """Nobody answers, or what answers is not ready, for longer than the patience."""


class Intercepted(NetworkError):
    """Something else than Sluice answered."""

    exit_code = 7


class CertificateRefused(NetworkError):
    """TLS failed."""

    exit_code = 8


class ContentError(SluiceError):
    """The bytes are not what they should be."""

    exit_code = 10


class FileChanged(ContentError):
    """A file changed while it was uploaded; nothing of it was stored as a file."""

    exit_code = 9


class DigestMismatch(ContentError):
    """The downloaded content does not match its digest."""


class LocalError(SluiceError):
    """This machine's file system said no."""

    exit_code = 1


class DiskFull(LocalError):
    """The local disk is full."""

    exit_code = 11


class PermissionRefused(LocalError):
    """No permission for a local file or folder."""

    exit_code = 12


class NameRefused(LocalError):
    """The local file system cannot take the name."""

    exit_code = 13


class SomeFailed(SluiceError):
    """Several files were asked for, and not all went well."""

    exit_code = 15


class Cancelled(SluiceError):
    """The caller stopped it."""

    exit_code = 130
