"""Sluice's Python SDK: upload and download whole files, resumable and verified. Start at `Client`.

A name is imported when it is asked for, so that a command that needs little starts in little time.
"""

TYPE_CHECKING = False
# nothing is imported here, not even what a flag of typing or __future__ would cost: a Ctrl-C that comes now is Python's
if TYPE_CHECKING:
    from typing import Any

    from sluice.client import Client
    from sluice.content import Content
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
    from sluice.results import UploadResult
    from sluice.settings import Settings
    from sluice.version import VERSION

    __version__ = VERSION

_ELSEWHERE = {
    "Client": "client",
    "Content": "content",
    "File": "models",
    "Link": "models",
    "Progress": "progress",
    "Settings": "settings",
    "Upload": "models",
    "UploadResult": "results",
    "User": "models",
    "VERSION": "version",
    "__version__": "version",
}

__all__ = [
    "VERSION",
    "APIError",
    "Cancelled",
    "CertificateRefused",
    "Client",
    "ConfigError",
    "Content",
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


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module 'sluice' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"sluice.{_ELSEWHERE.get(name, 'errors')}")
    found = getattr(module, "VERSION" if name == "__version__" else name)
    globals()[name] = found
    return found


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
