"""Lets nginx test the configuration of a stack in a temporary folder; `scripts/check` runs it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.stack.gateway import RENDER, Address, Nginx, settings_in_force, stack_settings
from scripts.stack.paths import Paths
from scripts.stack.secrets import Secrets
from scripts.stack.services import MariaDB, Redis


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sluice-check-") as folder:
        paths, address = Paths.of(Path(folder)), Address("127.0.0.1", 8080)
        paths.make()
        Secrets(paths.secrets).make()
        settings = stack_settings(paths, address, MariaDB(paths), Redis(paths))
        nginx = Nginx(paths, {**settings_in_force(settings), **settings}, address)
        environment = {**os.environ, **nginx.environment()}
        subprocess.run([RENDER, str(paths.nginx)], env=environment, check=True)
        program, *_ = nginx.command()
        config = str(paths.nginx / "nginx.conf")
        return subprocess.run([program, "-t", "-e", "stderr", "-c", config], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
