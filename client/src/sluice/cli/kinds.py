"""A file's content type by its name."""

from __future__ import annotations

import mimetypes

_MORE = {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".heic": "image/heic",
    ".jxl": "image/jxl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".opus": "audio/ogg",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
"""Types that some Python versions from 3.10 on do not know."""
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz", "br": None}
_types = mimetypes.MimeTypes()  # not the machine's own tables: every machine says the same
for _ending, _type in _MORE.items():
    _types.add_type(_type, _ending)


def type_of(name: str) -> str | None:
    """Returns a content type, such as ``video/mp4`` for film.mp4; None if the name does not imply one."""
    found, packing = _types.guess_type(f"x{name[name.rfind('.') :]}" if "." not in name[:-1] else name, strict=False)
    return _PACKED.get(packing) if packing else found
