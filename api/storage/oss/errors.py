"""Maps oss2's exceptions to ours: a row for each of its classes, by name, so that a new one is noticed.

oss2 has a class for each code that it knows, and raises a plain ServerError for all others; those are told apart by
status. An absent bucket is never reported as an absent object: the first is a mistake in the settings, the second lets
callers drop what they know of the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from api.core.errors import ObjectNotFound, StorageError, StorageUnavailable, UploadGone


class Passing(StorageUnavailable):
    """A failure that may be over in a moment: a lost connection, a timeout, a 5xx, too many requests."""


class Unsaid(ObjectNotFound):
    """A 404 that does not name the missing thing: the response to HEAD has no body."""


class PastTheEnd(StorageError):
    """A range begins after the object's last byte."""


_BY_STATUS: Final[Mapping[int, type[StorageError]]] = {416: PastTheEnd, 429: Passing}

# Nobody asks for these features: live channels, WORM, inventories, websites, replication, append, select, …
_STRANGE: Final = (
    "BucketNotEmpty BucketReplicationAlreadyExist ChannelStillLive InvalidEncryptionAlgorithmError "
    "InvalidEncryptionRequest InvalidWORMConfiguration LiveChannelDisabled NoSuchBucketPolicy NoSuchCors "
    "NoSuchInventory NoSuchLifecycle NoSuchLiveChannel NoSuchReplicationRule NoSuchServerSideEncryptionRule "
    "NoSuchTransferAccelerationConfiguration NoSuchWORMConfiguration NoSuchWebsite NotModified ObjectAlreadyExists "
    "ObjectNotAppendable OpenApiFormatError OpenApiServerError PartNotSequential PositionNotEqualToLength "
    "PreconditionFailed RestoreAlreadyInProgress SelectOperationClientError SelectOperationFailed "
    "WORMConfigurationLocked"
)

ERRORS: Final[Mapping[str, type[StorageError]]] = {
    "NoSuchKey": ObjectNotFound,
    "NotFound": Unsaid,
    "NoSuchUpload": UploadGone,
    "RequestError": Passing,
    "InconsistentError": StorageUnavailable,
    # settings, permissions or clocks that are wrong
    "AccessDenied": StorageUnavailable,
    "ClientError": StorageUnavailable,
    "NoSuchBucket": StorageUnavailable,
    "SignatureDoesNotMatch": StorageUnavailable,
    # requests that OSS does not understand
    "Conflict": StorageUnavailable,
    "InvalidArgument": StorageUnavailable,
    "InvalidDigest": StorageUnavailable,
    "InvalidObjectName": StorageUnavailable,
    "InvalidRequest": StorageUnavailable,
    "MalformedXml": StorageUnavailable,
    "NotImplemented": StorageUnavailable,
    "OperationNotSupported": StorageUnavailable,
    "ServerError": StorageUnavailable,
    **dict.fromkeys(_STRANGE.split(), StorageUnavailable),
}


def translate(name: str, status: int, code: str, request_id: str) -> StorageError:
    """Our error for one of oss2's.

    Args:
        name: of oss2's class.
        status: HTTP status, below 0 if none came.
        code: OSS's error code; empty if none came.
        request_id: the ID that Alibaba's support asks for.
    """
    kind = ERRORS.get(name, StorageUnavailable)
    if kind is StorageUnavailable:
        kind = Passing if status >= 500 else _BY_STATUS.get(status, StorageUnavailable)
    # the SDK's own text may hold a signed URL
    return kind(f"{code or name}, status {status}, request {request_id}" if status > 0 else name)
