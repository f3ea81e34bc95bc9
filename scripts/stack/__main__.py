"""What `scripts/run` starts, as the unprivileged user: all servers of one data folder, until told to stop."""

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

# Debian's own Python takes no packages from pip, so the client gets an environment.
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
    """Print; a terminal that has gone away, or a file on a full disk, stops nothing."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), "".join(f"{line}\n" for line in lines).encode(errors="replace"))


def run(
    address: Address, data: Path, with_ceph: bool = False, ceph_port: int | None = None, on_trial: bool = False
) -> None:
    """Start everything, show the logs, and stay until told to stop.

    Args:
        address: where nginx listens.
        data: the data folder.
        with_ceph: start a Ceph, too, which takes new uploads.
        ceph_port: where its S3 answers.
        on_trial: make a certificate that is signed by itself.

    Raises:
        Stopped: when told.
        CannotStart, ServiceError: with one line for a person; nothing runs any more.
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
        supervisor.end_leftovers(ceph.services)  # they hold ports
        if with_ceph:
            ceph.configure()
        elif ceph.holds_data:
            say(f"{ceph.folder} holds a Ceph, which is not started: files on it cannot be reached (--storage ceph)")
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
        if not database.datadir.exists():  # what is there already can be read, deleted and signed in to on a full disk
            check_disk(paths.data, int(in_force["SLUICE_MIN_FREE"]))

        supervisor.prepare(database)
        supervisor.start(database, redis)
        database.tend()
        supervisor.prepare(api)
        if with_ceph:
            start_ceph(supervisor, ceph, settings)  # whose bucket's rules follow from rows
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
    """Frees the folder in memory when everything has stopped."""
    try:
        yield
    finally:
        paths.free_memory()


def start_ceph(supervisor: Supervisor, ceph: Ceph, settings: dict[str, str]) -> None:
    """Start Ceph's daemons and make its bucket. One that worked before keeps nothing else from starting.

    Raises:
        ServiceError: it cannot be made.
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
        say(f"{ex}; the start goes on, and Ceph is tried again")
        for daemon in waiting:
            supervisor.start_later(daemon)


def start_anyway(supervisor: Supervisor, service: Service) -> None:
    """Start a server; if it is not ready in time, say so and go on: it is watched, and may become ready later.

    Raises:
        ServiceError: it ended.
    """
    try:
        supervisor.start(service)
    except NotReady as ex:
        say(f"{ex}; the start goes on")


def init_storage(settings: dict[str, str]) -> None:
    """Make Ceph's bucket, with its rules; repeatable.

    Raises:
        ServiceError: it cannot be made.
    """
    result = api_command(["storage", "init", STORAGE], settings)
    if result.returncode:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise ServiceError("Ceph's bucket could not be prepared: " + "".join(reason))


def make_admin(secrets: Secrets, settings: dict[str, str]) -> None:
    """Make the first account; a start that was cut off before its password was shown is made good.

    Raises:
        ServiceError: the API refuses.
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
    """Say where it runs and what is in force."""
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
        f"  commands  {paths.run / 'api'} storage check, and others: --help",
        f"  client    {CLIENT} login {in_force.get('SLUICE_PUBLIC_URL', address.url)}",
        f"  settings  {', '.join(own) or 'the defaults'}",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _versions(more: list[str]) -> list[str]:
    """The installed versions of what runs, by their packages."""
    packages = ["nginx", "mariadb-server-core", "redis-tools", "python3", *more]
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.split("\n")[:-1]


if __name__ == "__main__":
    sys.exit(main())
