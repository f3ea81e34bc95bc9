"""Sluice's Python SDK: upload and download whole files, resumable and verified. Start at `Client`."""

from sluice.client import Client
from sluice.errors import (
    APIError,
    Cancelled,
    CertificateRefused,
    ConfigError,
    ContentError,
    DigestMismatch,
    DiskFull,
    FileChanged,
    Intercepted,
    LocalError,
    NameRefused,
    NetworkError,
    NotFound,
    PermissionRefused,
    ServerAway,
    ServerFull,
    SignInNeeded,
    SluiceError,
    SomeFailed,
    Unauthorized,
)
from sluice.models import File, Link, Upload, User
from sluice.progress import Progress
from sluice.settings import Settings
from sluice.uploader import UploadResult
from sluice.version import VERSION

__version__ = VERSION

__all__ = [
    "VERSION",
    "APIError",
    "Cancelled",
    "CertificateRefused",
    "Client",
    "ConfigError",
    "ContentError",
    "DigestMismatch",
    "DiskFull",
    "File",
    "FileChanged",
    "Intercepted",
    "Link",
    "LocalError",
    "NameRefused",
    "NetworkError",
    "NotFound",
    "PermissionRefused",
    "Progress",
    "ServerAway",
    "ServerFull",
    "Settings",
    "SignInNeeded",
    "SluiceError",
    "SomeFailed",
    "Unauthorized",
    "Upload",
    "UploadResult",
    "User",
    "__version__",
]
