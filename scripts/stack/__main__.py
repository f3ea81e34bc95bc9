"""The entry point of `scripts/run`: runs all servers of one data folder as the unprivileged user, until stopped."""

import argparse
import errno
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts.stack import logs
from scripts.stack.ceph import STORAGE, Ceph
from scripts.stack.checks import CannotStart, check_disk, check_port, take_lock
from scripts.stack.gateway import (
    ANY_ADDRESS,
    API,
    Address,
    Nginx,
    Worker,
    api_command,
    settings_in_force,
    stack_settings,
    write_command,
)
from scripts.stack.paths import Paths
from scripts.stack.process import NotReady, ServiceError, adopt_orphans
from scripts.stack.secrets import Secrets
from scripts.stack.services import MariaDB, Redis, Service
from scripts.stack.supervisor import Stopped, Supervisor
from scripts.stack.tls import Certificate

# Debian's Python refuses installs by pip, so the client gets a virtual environment.
CLIENT = "python3 -m venv ~/.sluice && ~/.sluice/bin/pip install ./client && ~/.sluice/bin/sluice"
ALREADY_EXISTS = 3  # the exit code of `python -m api user create` for a name that is taken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.stack")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--storage", choices=["local", "ceph"], default="local")
    parser.add_argument("--ceph-port", type=int)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    os.umask(0o077)
    try:
        address = Address(options.host, options.port, options.tls or "SLUICE_TLS_CERT" in os.environ)
        run(address, options.data, options.storage == "ceph", options.ceph_port, options.tls)
    except Stopped:
        say("stopped")
        return 0
    except (CannotStart, ServiceError, OSError) as ex:
        full = isinstance(ex, OSError) and ex.errno == errno.ENOSPC
        print(f"sluice: {'the disk is full: ' if full else ''}{ex}", file=sys.stderr)
        for line in logs.last_lines(log) if (log := getattr(ex, "log", None)) else ():
            print(f"  | {line}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    tell(f"sluice: {text}")


def tell(*lines: str) -> None:
    """Print. If the terminal is gone, or stdout is a file on a full disk, the text is dropped."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), "".join(f"{line}\n" for line in lines).encode(errors="replace"))


def run(
    address: Address, data: Path, with_ceph: bool = False, ceph_port: int | None = None, on_trial: bool = False
) -> None:
    """Start all servers, show the logs, and run until told to stop.

    Args:
        address: where nginx listens.
        data: the data folder.
        with_ceph: also start a Ceph, which takes new uploads.
        ceph_port: the port of Ceph's S3.
        on_trial: make a self-signed certificate.

    Raises:
        Stopped: told to stop.
        CannotStart, ServiceError: the message is one line for the user; all servers have stopped.
    """
    begun = time.monotonic()
    paths = Paths.of(data)
    paths.make()
    lock = take_lock(paths.run / "lock")
    if paths.run.parent != paths.data:
        say(f"the path of {paths.data} is too long for sockets: they are in {paths.run}")
    with lock, closing_memory(paths), Supervisor(say) as supervisor:
        adopt_orphans()
        database, redis, ceph = MariaDB(paths), Redis(paths), Ceph(paths, ceph_port)
        supervisor.end_leftovers(ceph.services)  # leftover daemons hold ports
        if with_ceph:
            ceph.configure()
        elif ceph.holds_data:
            say(f"{ceph.folder} holds a Ceph, which is not started: files on it are unavailable (use --storage ceph)")
        certificate = Certificate(paths.secrets) if on_trial else None
        if certificate:
            certificate.make(address.reachable_host)
        settings = stack_settings(paths, address, database, redis, ceph if with_ceph else None, certificate)
        secrets = Secrets(paths.secrets)
        secrets.make()
        in_force = settings_in_force(settings)
        api, worker = API(paths, settings), Worker(paths, settings, database)
        nginx = Nginx(paths, {**in_force, **settings}, address)
        supervisor.end_leftovers([database, redis, api, worker, nginx])
        check_port(address.host, address.port)
        if not database.datadir.exists():  # with a database, reads, deletions and sign-ins work on a full disk
            check_disk(paths.data, int(in_force["SLUICE_MIN_FREE"]))

        supervisor.prepare(database)
        supervisor.start(database, redis)
        database.tend()
        supervisor.prepare(api)
        if with_ceph:
            start_ceph(supervisor, ceph, settings)  # after the API's migrations: the bucket's rules depend on rows
        make_admin(secrets, settings)
        start_anyway(supervisor, api)
        supervisor.start(worker)
        supervisor.prepare(nginx)
        start_anyway(supervisor, nginx)
        with suppress(OSError):
            write_command(paths, settings)
        show(address, paths, in_force, time.monotonic() - begun, ceph if with_ceph else None)
        show_admin(secrets)
        tail = logs.follow(paths.log / name for name in ("access.log", "edge.log", "api.log", "worker.log"))
        try:
            supervisor.watch()
        finally:
            say("stopping")
            tail.kill()
            tail.wait()


@contextmanager
def closing_memory(paths: Paths) -> Iterator[None]:
    """Remove the folder in memory when all servers have stopped."""
    try:
        yield
    finally:
        paths.free_memory()


def start_ceph(supervisor: Supervisor, ceph: Ceph, settings: dict[str, str]) -> None:
    """Start Ceph's daemons and make its bucket. If an existing Ceph fails, the other servers start without it.

    Raises:
        ServiceError: a new Ceph could not be made.
    """
    made = ceph.holds_data
    waiting = list(ceph.services)
    try:
        while waiting:
            supervisor.prepare(waiting[0])
            supervisor.start(waiting.pop(0))
        init_storage(settings)
    except ServiceError as ex:
        if not made:
            raise
        say(f"{ex}; startup continues, and Ceph is tried again")
        for daemon in waiting:
            supervisor.start_later(daemon)


def start_anyway(supervisor: Supervisor, service: Service) -> None:
    """Start a server. If it is not ready in time, say so and continue: the supervisor watches it.

    Raises:
        ServiceError: the server ended.
    """
    try:
        supervisor.start(service)
    except NotReady as ex:
        say(f"{ex}; startup continues")


def init_storage(settings: dict[str, str]) -> None:
    """Make Ceph's bucket, with its rules. Can be repeated.

    Raises:
        ServiceError: the bucket could not be made.
    """
    result = api_command(["storage", "init", STORAGE], settings)
    if result.returncode:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise ServiceError("Ceph's bucket could not be prepared: " + "".join(reason))


def make_admin(secrets: Secrets, settings: dict[str, str]) -> None:
    """Make the first account, if its password has not been shown yet.

    Raises:
        ServiceError: the API refused.
    """
    password = secrets.admin_password()
    if password is None:
        return
    result = api_command(["user", "create", "admin", "--admin", "--password-stdin"], settings, password + "\n")
    if result.returncode not in (0, ALREADY_EXISTS):
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise ServiceError("the account admin could not be made: " + "".join(reason))


def show_admin(secrets: Secrets) -> None:
    if password := secrets.admin_password():
        tell(f"  admin     sign in as admin with the password {password} (shown this once)")
        secrets.forget_admin_password()


def show(address: Address, paths: Paths, in_force: dict[str, str], seconds: float, ceph: Ceph | None) -> None:
    """Print the address, the data folder, the versions and the settings in force."""
    listens = "every address" if address.host in ANY_ADDRESS else address.host
    free = shutil.disk_usage(paths.storage).free // 1024**3
    own = [f"{name}={in_force.get(name, '')}" for name in sorted(os.environ) if name.startswith("SLUICE_")]
    tell(
        "",
        f"Sluice answers at {in_force.get('SLUICE_PUBLIC_URL', address.url)} (started in {seconds:.1f} s)",
        f"  listens   on {listens}, port {address.port}; Ctrl-C stops it",
        f"  data      {paths.data}, as user {_user_name()}",
        f"  storage   {f'ceph, S3 on {ceph.url}; ' if ceph else ''}local, {free} GiB free",
        f"  servers   {', '.join(_versions(['radosgw'] if ceph else []))}",
        f"  commands  {paths.run / 'api'} storage check (others: --help)",
        f"  client    {CLIENT} login {in_force.get('SLUICE_PUBLIC_URL', address.url)}",
        f"  settings  {', '.join(own) or 'the defaults'}",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _versions(more: list[str]) -> list[str]:
    """The installed versions of the servers' packages."""
    packages = ["nginx", "mariadb-server-core", "redis-tools", "python3", *more]
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.split("\n")[:-1]


if __name__ == "__main__":
    sys.exit(main())
