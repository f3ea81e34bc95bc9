"""``python -m api``: commands for operators."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable

from api import app, routes
from api.accounts import rows as account_rows
from api.commands import docs as docs_commands
from api.commands import jobs as job_commands
from api.commands import keys as key_commands
from api.commands import lost as lost_commands
from api.commands import sweep as sweep_commands
from api.commands import transfer as transfer_commands
from api.commands.ending import quietly
from api.core import config, logs, metrics
from api.core.errors import USERNAME_TAKEN, ConfigError, Problem, SluiceError
from api.db.migrate import migrate
from api.db.pool import Database
from api.worker import Worker

EXIT_CONFIG, EXIT_EXISTS, EXIT_FAILED = 2, 3, 1


def _migrate(settings: config.Config, arguments: argparse.Namespace) -> int:
    applied = migrate(settings.database_url)
    print("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    return 0


def _config(settings: config.Config, arguments: argparse.Namespace) -> int:
    for name, value in settings.in_force():
        print(f"{name}={value}")
    return 0


def _routes(settings: config.Config, arguments: argparse.Namespace) -> int:
    for route in routes.ROUTES:
        print(f"{route.method:6} {route.path:44} {route.access.name.lower()}")
    return 0


def _worker(settings: config.Config, arguments: argparse.Namespace) -> int:
    logs.configure("worker", settings.log_level)
    services = app.compose(settings)
    services.health.probe_in_background()
    if settings.metrics_bind:
        metrics.serve(settings.metrics_bind)
    Worker(services).run()
    return 0


def _user_create(settings: config.Config, arguments: argparse.Namespace) -> int:
    password = sys.stdin.readline().rstrip("\n") if arguments.password_stdin else secrets.token_urlsafe(15)
    role = "admin" if arguments.admin else "user"
    try:
        user = app.compose(settings).accounts.create(arguments.name, password, role)
    except Problem as ex:
        print(ex.message, file=sys.stderr)
        return EXIT_EXISTS if ex.kind is USERNAME_TAKEN else EXIT_FAILED
    print(f"username: {user.username}")
    if not arguments.password_stdin:
        print(f"password: {password}")
    return 0


def _user_disable(settings: config.Config, arguments: argparse.Namespace) -> int:
    changed = app.compose(settings).accounts.disable(arguments.name)
    print(f"{arguments.name} {'is' if changed else 'was'} disabled")
    return 0


def _user_enable(settings: config.Config, arguments: argparse.Namespace) -> int:
    changed = app.compose(settings).accounts.enable(arguments.name)
    print(f"{arguments.name} {'is' if changed else 'was'} enabled")
    return 0


def _user_tier(settings: config.Config, arguments: argparse.Namespace) -> int:
    app.compose(settings).accounts.set_tier(arguments.name, arguments.tier)
    return 0


def _user_count(settings: config.Config, arguments: argparse.Namespace) -> int:
    print(int(account_rows.any_user(Database(settings.database_url, 1))))
    return 0


def _storage_list(settings: config.Config, arguments: argparse.Namespace) -> int:
    for name, kind, where, takes in app.compose(settings).doctor.storages():
        print(f"{name:12} {kind:6} {takes:14} {where}")
    return 0


def _storage_init(settings: config.Config, arguments: argparse.Namespace) -> int:
    for line in app.compose(settings).doctor.init(arguments.name):
        print(line, flush=True)
    return 0


def _storage_rescue(settings: config.Config, arguments: argparse.Namespace) -> int:
    def tell(what: str, about: str) -> None:
        print(f"{what}: {about}", flush=True)

    found = app.compose(settings).rescuer.run(arguments.name, tell, dry=arguments.dry_run)
    print(", ".join(f"{count} {what}" for what, count in sorted(found.items())) or "no object is in danger")
    return EXIT_FAILED if found.keys() - {"rescued", "gone meanwhile"} else 0


def _storage_check(settings: config.Config, arguments: argparse.Namespace) -> int:
    doctor = app.compose(settings).doctor
    wrong = 0
    for name in [arguments.name] if arguments.name else [found[0] for found in doctor.storages()]:
        for finding in doctor.check(name):
            wrong += not finding.ok
            state = ("note" if finding.mend else "ok") if finding.ok else "WRONG"
            mend = f" ({finding.mend.replace('NAME', name)})" if finding.mend else ""
            print(f"{name}: {state:5} {finding.about}: {finding.text}{mend}", flush=True)
    return EXIT_FAILED if wrong else 0


Command = Callable[[config.Config, argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m api", description="Sluice's control plane")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("migrate", _migrate, "apply the database migrations that are missing")
    command("config", _config, "check the settings and print what is in force")
    command("routes", _routes, "list the routes and who may call them")
    command("worker", _worker, "run a worker")
    docs_commands.add(commands)
    job_commands.add(commands)
    sweep_commands.add(commands)
    lost_commands.add(commands)
    user = commands.add_parser("user", help="accounts").add_subparsers(required=True, metavar="COMMAND")
    create = user.add_parser("create", help="create an account; prints its password unless one is given")
    create.add_argument("name")
    create.add_argument("--admin", action="store_true")
    create.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    create.set_defaults(run=_user_create)
    for name, run, text in (
        ("disable", _user_disable, "disable an account: its sessions, part URLs and links end permanently"),
        ("enable", _user_enable, "enable an account again"),
    ):
        added = user.add_parser(name, help=text)
        added.add_argument("name")
        added.set_defaults(run=run)
    tier = user.add_parser("tier", help="set an account's tier, one of SLUICE_TIERS")
    tier.add_argument("name")
    tier.add_argument("tier")
    tier.set_defaults(run=_user_tier)
    user.add_parser("count", help="print 0 if there is no account, otherwise 1").set_defaults(run=_user_count)
    key_commands.add(commands)
    transfer_commands.add(commands)
    storage = commands.add_parser("storage", help="storages").add_subparsers(required=True, metavar="COMMAND")
    storage.add_parser("list", help="list the configured storages").set_defaults(run=_storage_list)
    init = storage.add_parser("init", help="create what a storage needs: bucket and CORS; may be repeated")
    init.add_argument("name")
    init.set_defaults(run=_storage_init)
    text = "copy finished objects whose upload is still open to new keys, before the upload is aborted; may be repeated"
    rescue = storage.add_parser("rescue", help=text, description=text)
    rescue.add_argument("name")
    rescue.add_argument("--dry-run", action="store_true", help="only report which objects are in danger")
    rescue.set_defaults(run=_storage_rescue)
    check = storage.add_parser("check", help="test everything that the gateway needs of a storage, or of all storages")
    check.add_argument("name", nargs="?")
    check.set_defaults(run=_storage_check)
    return top


def main(argv: list[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0 success, 1 failure, 2 wrong settings, 3 it already exists."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.run == docs_commands.run:
            return docs_commands.run(arguments)
        settings = config.load()
        run: Command = arguments.run
        return run(settings, arguments)
    except ConfigError as ex:
        print("\n".join(ex.problems), file=sys.stderr)
        return EXIT_CONFIG
    except SluiceError as ex:
        print(f"{type(ex).__name__}: {ex}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(quietly(main))
