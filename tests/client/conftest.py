"""A running gateway, users of it, and the command `sluice` as a person runs it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from sluice import Client, Settings

from tests.e2e.conftest import running
from tests.e2e.gateway import Gateway
from tests.e2e.sources import Sources

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long password"
PYTHON = os.environ.get("TEST_CLIENT_PYTHON", sys.executable)
SLUICE = [PYTHON, "-m", "sluice"]
"""The command; another Python has to have the packages that the client needs."""
_names = (f"client{number}" for number in itertools.count(1))


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """The gateway of every module that does not start a separate one."""
    with running({}) as made:
        yield made


@dataclass
class Account:
    """One user of a server."""

    url: str
    username: str
    password: str = PASSWORD

    def client(self, **settings: object) -> Client:
        """The SDK, as this user."""
        return Client(
            self.url,
            username=self.username,
            password=self.password,
            settings=Settings(**settings),  # type: ignore[arg-type]
        )


def sign_up(url: str) -> Account:
    """A new user."""
    account = Account(url, next(_names))
    with Client(url) as client:
        client.sign_up(account.username, account.password)
    return account


@pytest.fixture
def account(gateway: Gateway) -> Account:
    return sign_up(gateway.address)


@pytest.fixture
def client(account: Account) -> Iterator[Client]:
    with account.client() as made:
        yield made


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Files to upload."""
    folder = tmp_path / "sources"
    folder.mkdir()
    return Sources(folder)


@dataclass
class Command:
    """`python -m sluice` of one user, with settings and tokens in a separate folder."""

    account: Account
    home: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def with_settings(self, **settings: str) -> Command:
        """Returns the command with further SLUICE_CLIENT_… variables."""
        more = {f"SLUICE_CLIENT_{name}": value for name, value in settings.items()}
        return replace(self, settings={**self.settings, **more})

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT / "client" / "src"),
            "SLUICE_CLIENT_HOME": str(self.home),
            "SLUICE_CLIENT_CREDENTIALS": "file",
            "PYTHONWARNINGS": "error",
            **self.settings,
        }

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Starts a run in the background of the test."""
        process: subprocess.Popen[str] = subprocess.Popen(
            [*SLUICE, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        return process

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        stdin: str | None = None,
        timeout: float = 60,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """A run that has to end with an exit code; with None with any."""
        result = subprocess.run(
            [*SLUICE, *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or result.returncode == code, (
            f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        assert "Traceback" not in result.stderr
        return result

    def login(self) -> Command:
        self.run("login", self.account.url, "-u", self.account.username, "--password-stdin", stdin=PASSWORD + "\n")
        return self


@pytest.fixture
def command(account: Account, tmp_path: Path) -> Command:
    """The command, signed in; it runs in a separate folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Command(account, tmp_path / "home", folder).login()
