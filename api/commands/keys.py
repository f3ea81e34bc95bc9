"""``python -m api keys``: lists and changes the keys that sign tokens, without a restart."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from api.core import keys, lifetimes
from api.core.config import Config
from api.core.errors import ConfigError


def longest_life(config: Config) -> int:
    """Seconds that the longest-lived token lives."""
    return lifetimes.longest_token(config.refresh_ttl)


def _path(config: Config) -> Path:
    if config.secret_keys_file is None:
        raise ConfigError(
            ["SLUICE_SECRET_KEYS contains the keys: this command can only change a file, SLUICE_SECRET_KEYS_FILE"]
        )
    return config.secret_keys_file


def _moment(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))


def _list(config: Config, arguments: argparse.Namespace) -> int:
    found = keys.parse(config.secret_keys_file.read_text()) if config.secret_keys_file else config.secret_keys
    now, signs = time.time(), keys.signing(found, time.time())
    for place, key in enumerate(found):
        moment = keys.useless_from(found, place, longest_life(config))
        if key is signs:
            state = "signs"
        elif key.signs_from > now:
            state = f"verifies, will sign from {_moment(key.signs_from)}"
        else:
            state = f"verifies, needed until {_moment(moment)}" if moment and moment > now else "can be retired"
        print(f"{key.fingerprint}  {state}")
    return 0


def _rotate(config: Config, arguments: argparse.Namespace) -> int:
    key = keys.rotate(_path(config), time.time(), arguments.after)
    print(f"{key.fingerprint} verifies immediately and signs from {_moment(key.signs_from)}")
    print(f"the key before it is needed until {_moment(key.signs_from + longest_life(config) + keys.MARGIN)}")
    return 0


def _retire(config: Config, arguments: argparse.Namespace) -> int:
    key = keys.retire(_path(config), time.time(), longest_life(config), arguments.force)
    print(f"{key.fingerprint} is gone: its tokens are refused within {2 * keys.LOOK_EVERY:.0f} s")
    return 0


def add(commands: Any) -> None:
    """Adds ``keys list``, ``rotate`` and ``retire``."""
    found = commands.add_parser("keys", help="the keys that sign tokens").add_subparsers(
        required=True, metavar="COMMAND"
    )
    found.add_parser("list", help="list the keys: which one signs, and until when the others are needed").set_defaults(
        run=_list
    )
    rotate = found.add_parser("rotate", help="add a key that signs as soon as every process has read it")
    rotate.add_argument(
        "--after", type=int, default=30, help="seconds until it signs; more if the file is copied to other machines"
    )
    rotate.set_defaults(run=_rotate)
    retire = found.add_parser("retire", help="remove the oldest key, if none of its tokens can be valid")
    retire.add_argument("--force", action="store_true", help="remove it even if some of its tokens are valid")
    retire.set_defaults(run=_retire)
