"""Shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sluice.cli.shared import examples
from sluice.cli.streams import say
from sluice.errors import ConfigError


@click.command(epilog=examples('eval "$(sluice completion bash)"      # in ~/.bashrc'))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete `sluice …`; for bash: eval "$(sluice completion bash)" in ~/.bashrc."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ConfigError(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    say(kind(root, {}, "sluice", "_SLUICE_COMPLETE").source())
