"""``python -m tests.chaos``: a run by hand.

    python -m tests.chaos --storage ceph --minutes 10 --seed 7

It prints seed and schedule, its actions and findings, and a summary. It exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
from pathlib import Path

from scripts.stack.services import server_folder
from tests.chaos.run import CLIENTS, run
from tests.chaos.schedule import targets


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--storage", choices=["local", "ceph"], default="local")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--only", nargs="+", default=[], metavar="TARGET", help=f"of {', '.join(targets('ceph'))}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the servers' logs there")
    options = parser.parse_args()
    if unknown := set(options.only) - targets(options.storage).keys():
        parser.error(f"there is no {', '.join(unknown)} with --storage {options.storage}")
    with server_folder() as data:
        try:
            seconds, only = options.minutes * 60, tuple(options.only)
            result = run(data, options.storage, options.seed, seconds, say, options.clients, only)
        finally:
            if options.keep:
                shutil.copytree(data / "log", options.keep, dirs_exist_ok=True)
    say(result.report)
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
