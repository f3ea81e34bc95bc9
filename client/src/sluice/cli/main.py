"""The command's beginning and end: sub-commands, errors in one line, exit codes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys

import click

from sluice.cli.stopping import Stopped, listen
from sluice.cli.streams import OutputGone, complain
from sluice.errors import SignInNeeded, SluiceError
from sluice.version import VERSION

INTERNAL = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Files": {
        "put": ("put", "Upload files and folders."),
        "get": ("get", "Download files."),
        "cat": ("get", "Write files to standard output."),
        "ls": ("files", "List files."),
        "find": ("files", "List files by a part of their names, or by digest."),
        "stat": ("files", "Say all about a file."),
        "check": ("check", "Compare a local folder with the server."),
        "mv": ("files", "Give a file another name."),
        "rm": ("files", "Put files into the trash."),
        "restore": ("files", "Take files out of the trash."),
        "du": ("files", "Say how much there is."),
        "digest": ("files", "Print the digest of local files."),
    },
    "Links": {
        "link": ("links", "Print a download URL."),
        "unlink": ("links", "Withdraw every link of a file."),
    },
    "Unfinished uploads": {
        "uploads": ("uploads", "List unfinished uploads."),
        "abort": ("uploads", "End unfinished uploads."),
    },
    "Account": {
        "login": ("account", "Sign in to a server."),
        "logout": ("account", "End the session."),
        "passwd": ("account", "Change the password."),
        "whoami": ("account", "Say who is signed in, and where."),
    },
    "This command": {
        "version": ("account", "Say the version."),
        "completion": ("completion", "Print what makes a shell complete."),
    },
}
"""Sub-commands as the help groups them: the module of `sluice.cli` that has each, and what it does in a few words."""
_COMMANDS = {name: found for section in SECTIONS.values() for name, found in section.items()}


class _Commands(click.Group):
    """The sub-commands; each is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"sluice.cli.{_COMMANDS[cmd_name][0]}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()], col_max=12)


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n"
    "  sluice login https://files.example\n"
    "  sluice put holiday.mp4\n"
    "  sluice link holiday.mp4 --expires 2d\n"
    "  sluice put --help",
)
@click.version_option(VERSION, "--version", prog_name="sluice", message="%(prog)s %(version)s")
def cli() -> None:
    """Upload and download files with a Sluice server. What was interrupted goes on when the same command runs again."""


def run(arguments: list[str]) -> int:
    """Runs a command line; the exit code (docs/client.md has the table)."""
    listen()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except (OutputGone, BrokenPipeError):
        # the reader of the output has closed it; Python would report that again when it closes the streams
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
        complain(_usage(ex), as_is=True)
        return USAGE
    except (OutputGone, BrokenPipeError):
        raise
    except Stopped as ex:
        return ex.exit_code
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


def _usage(ex: click.ClickException) -> str:
    """Returns click's message about a command line that cannot work."""
    context = getattr(ex, "ctx", None)
    if type(ex).__name__ == "NoArgsIsHelpError":  # of click 8.2; its message is the whole help
        return ex.format_message()
    head = f"{context.get_usage()}\nTry '{context.command_path} --help'.\n\n" if context is not None else ""
    return f"{head}Error: {ex.format_message()}"


def _say(text: str, ex: Exception, arguments: list[str]) -> None:
    """One line about an error, on stderr."""
    code = getattr(ex, "exit_code", INTERNAL)
    line = f"{text}; sign in with: sluice login" if isinstance(ex, SignInNeeded) else text
    if "--json" in arguments:
        complain(json.dumps({"error": {"message": line, "exit_code": code}}))
    else:
        complain(f"sluice: {line}")
    if os.environ.get("SLUICE_CLIENT_DEBUG"):
        import traceback

        traceback.print_exception(ex)
