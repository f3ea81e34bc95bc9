"""The command's beginning and end: sub-commands, errors in one line, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from types import FrameType

import click

from sluice.cli import account, completion, files, get, put, uploads
from sluice.cli.shared import OutputGone
from sluice.errors import SignInNeeded, SluiceError

INTERNAL = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Ended(KeyboardInterrupt):
    """SIGTERM: the same as Ctrl-C, with another exit code."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Upload and download files with a Sluice server. What was interrupted goes on when the same command runs again."""


for command in (
    account.login,
    account.logout,
    account.whoami,
    put.put,
    get.get,
    files.ls,
    files.find,
    files.mv,
    files.rm,
    files.link,
    files.du,
    uploads.uploads,
    uploads.abort,
    files.digest,
    account.version,
    completion.completion,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line; the exit code (docs/client.md has the table)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with contextlib.suppress(ValueError):  # not in the main thread: a test
        signal.signal(signal.SIGTERM, _on_terminate)
    try:
        return _run(arguments)
    except OutputGone:
        # whoever read our output has gone; Python would say so once more when it closes the streams
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    try:
        cli.main(arguments, prog_name="sluice", standalone_mode=False)
        return 0
    except click.exceptions.Exit as ex:
        return ex.exit_code
    except click.ClickException as ex:
        ex.show()
        return USAGE
    except OutputGone:
        raise
    except _Ended:
        return 128 + signal.SIGTERM
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except SluiceError as ex:
        _say(str(ex), ex, arguments)
        return ex.exit_code
    except OSError as ex:
        _say(f"{ex.filename or 'the system'}: {ex.strerror}", ex, arguments)
        return INTERNAL
    except Exception as ex:
        _say(f"this should not happen: {type(ex).__name__}: {ex}", ex, arguments)
        return INTERNAL


def _say(text: str, ex: Exception, arguments: list[str]) -> None:
    """One line about an error, on stderr."""
    code = getattr(ex, "exit_code", INTERNAL)
    line = f"{text}; sign in with: sluice login" if isinstance(ex, SignInNeeded) else text
    if "--json" in arguments:
        print(json.dumps({"error": {"message": line, "exit_code": code}}), file=sys.stderr)
    else:
        print(f"sluice: {line}", file=sys.stderr)
    if os.environ.get("SLUICE_CLIENT_DEBUG"):
        traceback.print_exception(ex)


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise _Ended
