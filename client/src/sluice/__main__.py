"""`python -m sluice`, and the command `sluice`: the steps that come before all other imports."""

import os
import sys

INTERRUPTED = 130

try:
    import signal
except KeyboardInterrupt:
    os._exit(INTERRUPTED)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def _end(number: int, frame: "FrameType | None") -> None:
    os._exit(INTERRUPTED)


def _interrupt(then: "signal.Handlers | object") -> None:
    """Sets what Ctrl-C does from now on. If the process was told to ignore it, it still ignores it."""
    try:
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, then)  # type: ignore[arg-type]
    except ValueError:
        return  # not in the main thread


def _open_streams() -> None:
    """Standard streams that were closed lead nowhere: else the next file that is opened would be one of them."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            while os.open(os.devnull, mode) < descriptor:
                continue
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> int:
    """Runs the command line; the exit code (docs/client.md has the table)."""
    _interrupt(_end)  # while the rest is imported, Ctrl-C ends the process without a word
    _open_streams()
    from sluice.cli.main import run

    _interrupt(signal.default_int_handler)
    try:
        return run(sys.argv[1:])
    finally:
        _interrupt(_end)


if __name__ == "__main__":
    sys.exit(main())
