"""The command's output: to a terminal, to another program, or to a pipe whose reader has closed it."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from sluice.errors import DiskFull, LocalError

_CONTROLS = [*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Characters that control a terminal: C0 and C1 controls, and those that reorder text (Unicode UAX 9)."""
_ESCAPES = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS}


class OutputGone(Exception):
    """The reader of the output has closed it. This is no OSError: click would end the program on one."""


def one_line(text: str) -> str:
    """Returns text that a terminal can show: control characters are escaped, such as ``\\x1b``."""
    return text.translate(_ESCAPES)


def say(text: str) -> None:
    """A line on standard output: in a pipe or a file exactly as it is.

    Raises:
        OutputGone, DiskFull, LocalError.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):  # bars are on the terminal, and move for what is written
        sys.stdout.write(one_line(text) + "\n")
        return
    _write(_encoded(one_line(text) if sys.stdout.isatty() else text, sys.stdout) + b"\n")


def say_json(text: str) -> None:
    """A line of JSON, which is UTF-8 wherever it goes (RFC 8259 section 8.1). Raises as `say`."""
    # half a surrogate pair, of a local name that is no UTF-8: its escape is JSON's own
    _write(text.encode("utf-8", "backslashreplace") + b"\n")


def write(data: bytes | memoryview) -> None:
    """Content on standard output. Raises as `say`."""
    with output_errors():
        sys.stdout.buffer.write(data)


def flush() -> None:
    """Nothing may be left in the buffer. Raises as `say`."""
    with output_errors():
        sys.stdout.flush()


def complain(text: str, *, as_is: bool = False) -> None:
    """Writes a line to standard error. If it cannot be written, it is dropped."""
    with contextlib.suppress(OSError, ValueError):
        stream = sys.stderr
        if not isinstance(stream, io.TextIOWrapper):
            stream.write((text if as_is else one_line(text)) + "\n")
            return
        stream.flush()
        shown = text if as_is else one_line(text)
        stream.buffer.write(shown.encode(stream.encoding or "utf-8", "backslashreplace") + b"\n")
        stream.buffer.flush()


def _write(line: bytes) -> None:
    with output_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _encoded(text: str, stream: TextIO) -> bytes:
    """In the stream's encoding; a local name that is no UTF-8 as the bytes that it has."""
    encoding = stream.encoding or "utf-8"
    try:
        return text.encode(encoding, "backslashreplace" if stream.isatty() else "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Around what writes to standard output."""
    try:
        yield
    except BrokenPipeError as ex:
        raise OutputGone from ex
    except OSError as ex:
        if ex.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull("standard output: the disk is full") from ex
        raise LocalError(f"standard output cannot be written: {ex.strerror}") from ex
