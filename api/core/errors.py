"""Every way in which Sluice says no, in one table and one exception tree.

    SluiceError
    ├── Problem                 an answer for the caller: one row of the table below
    ├── ConfigError             settings that cannot work, all of them in one error
    ├── TokenError
    │   └── TokenExpired
    ├── DatabaseUnavailable     the database cannot be reached, or gave up on us
    │   └── DatabaseTooSlow     a call took the database too long
    ├── DuplicateRow            a unique key is taken already
    └── StorageError
        ├── ObjectNotFound      no object under that key
        ├── UploadGone          the multipart upload was completed or aborted, or never was
        ├── PartMismatch        stored parts are missing or are not what their rows say
        ├── CompleteDoubtful    whether the object was made, and is there to stay, is not known
        ├── StorageFull
        └── StorageUnavailable  try again later

A status is chosen by what a client's retry loop will do with it: 4xx is final, 409 wants another call first,
429 and 503 carry Retry-After and are worth repeating as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

API: Final = frozenset({"api"})
EDGE: Final = frozenset({"edge"})
BOTH: Final = API | EDGE


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the error table.

    Attributes:
        code: UPPER_SNAKE, noun first; programs compare it.
        status: HTTP status.
        message: the text for people if no more exact text is known.
        by: the sender: the API, the edge, or both.
        retry_after: seconds for the Retry-After header, if repeating helps.
    """

    code: str
    status: int
    message: str
    retry_after: int | None = None
    by: frozenset[str] = API


# fmt: off
# -- the request itself
BODY_INVALID          = Kind("BODY_INVALID", 400, "The body is not the JSON that this call takes.")
BODY_TOO_LARGE        = Kind("BODY_TOO_LARGE", 413, "The body is larger than this call takes.", by=BOTH)
MEDIA_TYPE_UNSUPPORTED = Kind("MEDIA_TYPE_UNSUPPORTED", 415, "The body's Content-Type is not application/json.")
PARAMETER_INVALID     = Kind("PARAMETER_INVALID", 400, "A query parameter is not valid.")
CURSOR_INVALID        = Kind("CURSOR_INVALID", 400, "The cursor is not one that this list gave out.")
NAME_INVALID          = Kind("NAME_INVALID", 400, "The name cannot be used.")
SIZE_INVALID          = Kind("SIZE_INVALID", 400, "The size cannot be used.")
DIGEST_INVALID        = Kind("DIGEST_INVALID", 400, "A digest is 64 lowercase hexadecimal characters.")
PART_NUMBER_INVALID   = Kind("PART_NUMBER_INVALID", 400, "There is no such part in this upload.")
NOT_FOUND             = Kind("NOT_FOUND", 404, "There is nothing at this address.", by=BOTH)
METHOD_NOT_ALLOWED    = Kind("METHOD_NOT_ALLOWED", 405, "This address does not take that method.", by=BOTH)
# -- who is asking
ACCOUNT_NOT_FOUND     = Kind("ACCOUNT_NOT_FOUND", 404, "There is no account of that name.")
TOKEN_MISSING         = Kind("TOKEN_MISSING", 401, "This call needs a bearer token.", by=BOTH)
TOKEN_INVALID         = Kind("TOKEN_INVALID", 401, "The token is not valid.", by=BOTH)
TOKEN_EXPIRED         = Kind("TOKEN_EXPIRED", 401, "The token has expired.", by=BOTH)
TOKEN_REVOKED         = Kind("TOKEN_REVOKED", 401, "The session has ended.", by=BOTH)
CREDENTIALS_INVALID   = Kind("CREDENTIALS_INVALID", 401, "The username or the password is wrong.")
PASSWORD_WRONG        = Kind("PASSWORD_WRONG", 403, "The current password is wrong.")
ORIGIN_INVALID        = Kind("ORIGIN_INVALID", 403, "A cookie is taken from our own pages only.")
SIGNUP_CLOSED         = Kind("SIGNUP_CLOSED", 403, "This server does not take new accounts by itself.")
SIGNIN_LIMITED        = Kind("SIGNIN_LIMITED", 429, "Too many sign-ins; wait a little.", 60, by=BOTH)
SIGNIN_BUSY           = Kind("SIGNIN_BUSY", 503, "Too many passwords are being looked at; repeat the call.", 1)
USERNAME_INVALID      = Kind("USERNAME_INVALID", 400,
                             "A username has 3 to 64 of the characters a-z, 0-9, '.', '_', '-'.")
TIER_UNKNOWN          = Kind("TIER_UNKNOWN", 400, "There is no such tier.")
USERNAME_TAKEN        = Kind("USERNAME_TAKEN", 409, "The username is taken.")
PASSWORD_INVALID      = Kind("PASSWORD_INVALID", 400, "A password has 8 to 1024 characters.")
# -- uploads
UPLOAD_NOT_FOUND      = Kind("UPLOAD_NOT_FOUND", 404, "There is no such upload.")
UPLOAD_NOT_OPEN       = Kind("UPLOAD_NOT_OPEN", 409, "The upload's state does not allow this.", by=BOTH)
UPLOAD_GONE           = Kind("UPLOAD_GONE", 410, "The storage has dropped the upload's parts; create it anew.")
UPLOADS_LIMITED       = Kind("UPLOADS_LIMITED", 429, "Too many unfinished uploads; finish or abort some.", 60)
PARTS_LIMITED         = Kind("PARTS_LIMITED", 429, "Too many open parts; finish or abort some uploads.", 60)
PARTS_MISSING         = Kind("PARTS_MISSING", 409, "Parts are missing.")
PART_HASH_CONFLICT    = Kind("PART_HASH_CONFLICT", 409,
                             "A part's hash is written once; abort and create the upload anew.")
PART_TRIES_EXHAUSTED  = Kind("PART_TRIES_EXHAUSTED", 409,
                             "URLs of a part were given out too often; abort and create the upload anew.")
PART_MISMATCH         = Kind("PART_MISMATCH", 422, "Stored parts are not what their hashes say; send them again.")
DIGEST_MISMATCH       = Kind("DIGEST_MISMATCH", 422, "The parts' hashes do not add up to the digest.")
STORAGE_FULL          = Kind("STORAGE_FULL", 507, "The storage has no room for this.", by=BOTH)
# -- transfers, for administrators
ADMIN_REQUIRED        = Kind("ADMIN_REQUIRED", 403, "This call is for administrators.")
TRANSFER_INVALID      = Kind("TRANSFER_INVALID", 400, "Such a transfer cannot be.")
TRANSFER_NOT_FOUND    = Kind("TRANSFER_NOT_FOUND", 404, "There is no such transfer.")
TRANSFER_NOT_OPEN     = Kind("TRANSFER_NOT_OPEN", 409, "The transfer's state does not allow this.")
# -- files
FILE_NOT_FOUND        = Kind("FILE_NOT_FOUND", 404, "There is no such file.", by=BOTH)
FILE_CORRUPT          = Kind("FILE_CORRUPT", 410, "The stored content is damaged.", by=BOTH)
CONTENT_LOST          = Kind("CONTENT_LOST", 410, "No storage has the content any more.", by=BOTH)
LINK_REVOKED          = Kind("LINK_REVOKED", 410, "The link was withdrawn.")
FILE_NOT_READY        = Kind("FILE_NOT_READY", 409, "The content is still being verified.")
FOLDER_NOT_FOUND      = Kind("FOLDER_NOT_FOUND", 404, "There is no such folder.")
# -- ourselves
DATABASE_UNAVAILABLE  = Kind("DATABASE_UNAVAILABLE", 503, "The database is away; repeat the call.", 1)
DATABASE_TOO_SLOW     = Kind("DATABASE_TOO_SLOW", 503, "The call took the database too long and was given up.", 10)
STORAGE_UNAVAILABLE   = Kind("STORAGE_UNAVAILABLE", 503, "The storage is away; repeat the call.", 1, by=BOTH)
INTERNAL_ERROR        = Kind("INTERNAL_ERROR", 500, "Something went wrong here.", by=BOTH)
# -- said by the edge alone
BAD_REQUEST              = Kind("BAD_REQUEST", 400, "The request is malformed.", by=EDGE)
FORBIDDEN                = Kind("FORBIDDEN", 403, "This address is not open to you.", by=EDGE)
REQUEST_TIMEOUT          = Kind("REQUEST_TIMEOUT", 408, "The request did not arrive in time.", by=EDGE)
LENGTH_REQUIRED          = Kind("LENGTH_REQUIRED", 411, "A Content-Length is needed.", by=EDGE)
LENGTH_MISMATCH          = Kind("LENGTH_MISMATCH", 400,
                           "The body has not the length that the URL was signed for.", by=EDGE)
PRECONDITION_FAILED      = Kind("PRECONDITION_FAILED", 412,
                           "The content is not what the request's conditions name.", by=EDGE)
URI_TOO_LONG             = Kind("URI_TOO_LONG", 414, "The address is too long.", by=EDGE)
RANGE_NOT_SATISFIABLE    = Kind("RANGE_NOT_SATISFIABLE", 416, "The range lies beyond the content's end.", by=EDGE)
HEADERS_TOO_LARGE        = Kind("HEADERS_TOO_LARGE", 431, "The request's headers are too large.", by=EDGE)
METHOD_NOT_IMPLEMENTED   = Kind("METHOD_NOT_IMPLEMENTED", 501, "The server does not know how to do that.", by=EDGE)
HTTP_VERSION_UNSUPPORTED = Kind("HTTP_VERSION_UNSUPPORTED", 505, "This version of HTTP is not spoken here.", by=EDGE)
LINK_INVALID             = Kind("LINK_INVALID", 403, "The link is not valid.", by=EDGE)
LINK_EXPIRED             = Kind("LINK_EXPIRED", 410, "The link has expired.", by=EDGE)
LINK_REVOKED             = Kind("LINK_REVOKED", 410, "The link was withdrawn.", by=EDGE)
PART_URL_INVALID         = Kind("PART_URL_INVALID", 403, "The part's URL is not valid.", by=EDGE)
PART_URL_EXPIRED         = Kind("PART_URL_EXPIRED", 403, "The part's URL has expired.", by=EDGE)
PART_URL_REVOKED         = Kind("PART_URL_REVOKED", 403, "The part's URL was withdrawn.", by=EDGE)
PART_HASH_MISMATCH       = Kind("PART_HASH_MISMATCH", 400,
                           "The body is not the one whose hash the URL was signed for.", by=EDGE)
PART_TRIES_LIMITED       = Kind("PART_TRIES_LIMITED", 429, "This part was sent too often; wait a little.", 60, by=EDGE)
REQUESTS_LIMITED         = Kind("REQUESTS_LIMITED", 429, "Too many requests; wait a little.", 1, by=EDGE)
SIGNUPS_LIMITED          = Kind("SIGNUPS_LIMITED", 429,
                           "Too many sign-ups from this address; wait a little.", 60, by=EDGE)
CALLS_LIMITED            = Kind("CALLS_LIMITED", 429,
                           "Too many concurrent calls of this account; wait until one has ended.", 1, by=EDGE)
CONNECTIONS_LIMITED      = Kind("CONNECTIONS_LIMITED", 429,
                           "Too many concurrent downloads; wait until one has ended.", 1, by=EDGE)
BANDWIDTH_LIMITED        = Kind("BANDWIDTH_LIMITED", 429,
                           "More parts are being sent than the account's rate allows; wait a little.", 10, by=EDGE)
QUOTA_EXCEEDED           = Kind("QUOTA_EXCEEDED", 429, "The account's traffic for this time is used up.", 3600, by=EDGE)
PART_BUSY                = Kind("PART_BUSY", 429,
                           "Too many concurrent uploads of this part; wait a little.", 5, by=EDGE)
STORAGE_UNSUPPORTED      = Kind("STORAGE_UNSUPPORTED", 501, "The edge cannot read from this storage.", by=EDGE)
EDGE_STALE               = Kind("EDGE_STALE", 503,
                           "The edge does not know which tokens are still good; repeat the call.", 1, by=EDGE)
API_UNAVAILABLE          = Kind("API_UNAVAILABLE", 503, "The API is away; repeat the call.", 1, by=EDGE)
API_TIMEOUT              = Kind("API_TIMEOUT", 504, "The API did not answer in time; repeat the call.", 1, by=EDGE)
STORAGE_TIMEOUT          = Kind("STORAGE_TIMEOUT", 504,
                           "The storage did not answer in time; repeat the call.", 1, by=EDGE)
# fmt: on

KINDS: tuple[Kind, ...] = tuple(value for value in vars().values() if isinstance(value, Kind))


class SluiceError(Exception):
    """The root of everything that Sluice raises on purpose."""


class Problem(SluiceError):
    """An answer for the caller.

    Args:
        kind: a row of the table.
        message: the text to send instead of the row's message.
        retry_after: seconds, instead of the row's own.
        details: further members of the error body, such as ``parts=[3, 7]``; they stand in `api.http.schemas.Error`.
    """

    def __init__(
        self, kind: Kind, message: str | None = None, *, retry_after: int | None = None, **details: object
    ) -> None:
        super().__init__(f"{kind.code}: {message or kind.message}")
        self.kind = kind
        self.message = message or kind.message
        self.retry_after = kind.retry_after if retry_after is None else retry_after
        self.details = details


def problem_of(ex: StorageError) -> Problem:
    """The error that a caller gets if a storage fails."""
    return Problem(STORAGE_FULL if isinstance(ex, StorageFull) else STORAGE_UNAVAILABLE)


class ConfigError(SluiceError):
    """Settings that cannot work; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class TokenError(SluiceError):
    """A token that is malformed, or that this deployment did not sign for this purpose."""


class TokenExpired(TokenError):
    """A token with a valid signature that has expired."""


class DatabaseUnavailable(SluiceError):
    """The database cannot be reached, or gave up on a transaction three times."""


class DatabaseTooSlow(DatabaseUnavailable):
    """A call, or one of its statements, took the database too long and was given up."""


class DuplicateRow(SluiceError):
    """A unique key is taken already."""


class StorageError(SluiceError):
    """The root of what storages raise."""


class ObjectNotFound(StorageError):
    """There is no object under that key."""


class UploadGone(StorageError):
    """The multipart upload is not there any more: completed, aborted, or never made."""


class CompleteDoubtful(StorageError):
    """It is unknown whether an upload's complete created the object; see `MultipartStorage.copy_completed`."""


class PartMismatch(StorageError):
    """Parts are missing or hold other bytes than their rows say.

    Before it is raised, the upload has been made ready to take those parts again.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        super().__init__(f"parts {list(parts)} are not what their hashes say")
        self.parts = tuple(parts)


class StorageFull(StorageError):
    """No room is left."""


class StorageUnavailable(StorageError):
    """The storage does not answer, or answers nonsense; worth repeating."""
