"""Content whose end is not known before it comes: a pipe, standard input, a file object; read once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from sluice.content import Readable

_READ = 256 * 1024


class Stream:
    """A file object that is read to its end.

    Args:
        own: whether it is closed with this stream.

    Attributes:
        name: the name for messages.
    """

    def __init__(self, file: Readable, name: str, own: bool = False) -> None:
        self.name = name
        self._file = file
        self._own = own
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytearray:
        """The next bytes: as many as are asked for, fewer only at the end.

        Raises:
            ConfigError: the object gives text, or nothing at all (it does not block).
            LocalError: it cannot be read.
        """
        found = bytearray()
        while len(found) < size and not self._ended:
            piece = self._rest or self._piece(min(_READ, size - len(found)))
            self._rest = b""
            if not piece:
                self._ended = True
            wanted = size - len(found)
            found += memoryview(piece)[:wanted]
            self._rest = bytes(memoryview(piece)[wanted:])  # an object may give more than it was asked for
        return found

    def _piece(self, size: int) -> bytes:
        try:
            piece: Any = self._file.read(size)
        except ValueError as ex:  # io.UnsupportedOperation is one
            raise ConfigError(f"the file object cannot be read: {ex}") from ex
        except OSError as ex:
            raise LocalError(f"{self.name or 'the content'} cannot be read: {ex.strerror or ex}") from ex
        if piece is None:
            raise ConfigError("the file object does not block: nothing is there to be read yet")
        if isinstance(piece, str):
            raise ConfigError("the file object gives text: open it in binary mode ('rb')")
        try:
            return bytes(memoryview(piece).cast("B"))
        except TypeError:
            raise ConfigError(f"the file object's read gives no bytes but a {type(piece).__name__}") from None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of what is held."""
        if self._own:
            self._file.close()  # type: ignore[attr-defined]
