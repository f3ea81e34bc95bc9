"""Load on a running Sluice by realistic users; see loadtest/README.md, "Load".

    loadtest/locust --headless -u 50 -r 10 -t 2m --host http://127.0.0.1:8080
    loadtest/locust --host http://127.0.0.1:8080            with a web page on http://127.0.0.1:8089
    loadtest/locust --headless --processes 2 …              one master and two workers on this machine

The exit code is 0 if the limits were met, 1 if not, 2 if the run was refused.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # locust runs a file, not a package

from loadtest.locust_users import settings, verdict
from loadtest.locust_users.others import Abuser, Stranger
from loadtest.locust_users.owners import Reader, Uploader

__all__ = ["Abuser", "Reader", "Stranger", "Uploader"]
_REFUSED = 2


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    """Adds this file's options, and defaults that end the run."""
    settings.add_arguments(parser)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Sets the weights of users; ends the run if an option is invalid."""
    options = environment.parsed_options
    assert options is not None
    try:
        settings.check(options)
        weights = settings.shares(options.weights)
        kinds = {kind.__name__.lower(): kind for kind in environment.user_classes}
        if unknown := weights.keys() - kinds.keys():
            raise ValueError(f"there are no users {', '.join(sorted(unknown))}, only {', '.join(sorted(kinds))}")
    except (ArgumentTypeError, ValueError) as ex:
        _refuse(environment, str(ex))
    for name, kind in kinds.items():
        kind.weight = weights.get(name, 0)
    environment.user_classes = [kind for kind in environment.user_classes if kind.weight > 0]
    if environment.host and not settings.is_allowed(environment.host, options.allow_host):
        _refuse(environment, f"{environment.host} is not on this machine; --allow-host says that it may be loaded")


def _refuse(environment: Environment, why: str) -> None:
    print(f"locust: {why}", file=sys.stderr)
    sys.exit(_REFUSED)


@events.test_start.add_listener
def check_host(environment: Environment, **_: Any) -> None:
    """Checks the host again: the web page may have changed it."""
    options = environment.parsed_options
    assert options is not None
    if not settings.is_allowed(environment.host or "", options.allow_host):
        print(f"locust: {environment.host} is not on this machine; nothing is sent", file=sys.stderr)
        environment.process_exit_code = _REFUSED
        if environment.runner is not None:
            environment.runner.quit()


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Prints the table, and sets the exit code by the limits."""
    if isinstance(environment.runner, WorkerRunner) or environment.process_exit_code == _REFUSED:
        return
    options = environment.parsed_options
    assert options is not None
    print(verdict.summary(environment.stats))
    found = list(verdict.problems(environment.stats, options))
    for problem in found:
        print(f"locust: {problem}", file=sys.stderr)
    environment.process_exit_code = 1 if found else 0
