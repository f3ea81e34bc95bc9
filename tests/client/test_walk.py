"""The README's walk and the line that `scripts/run` prints: pasted, on a fresh environment; and other Pythons."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import ROOT, sign_up
from tests.e2e.gateway import Gateway


def paste(text: str, folder: Path, code: int = 0, **variables: str) -> str:
    """Runs lines as a person's shell does, in a checkout, with a separate home folder."""
    checkout = folder / "checkout"
    checkout.mkdir(exist_ok=True)
    if not (checkout / "client").exists():
        shutil.copytree(ROOT / "client", checkout / "client", ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLUICE_", "XDG_", "PYTHON", "VIRTUAL_ENV"))
    }
    result = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text],
        cwd=checkout,
        env={**inherited, "HOME": str(folder), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def walk() -> str:
    """The commands of the README's walk."""
    section = re.search(r"^## A walk\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    assert section
    return "\n".join(line[4:] for line in section[1].splitlines() if line.startswith("    "))


@pytest.mark.timeout(300)
def test_the_walk_of_the_readme_works_as_it_is_pasted(gateway: Gateway, tmp_path: Path) -> None:
    commands = walk()
    assert "http://127.0.0.1:8080" in commands
    told = paste(commands.replace("http://127.0.0.1:8080", gateway.address), tmp_path)
    assert told.rstrip().endswith("the same bytes")
    # the line that scripts/run prints; a password is asked for at a terminal, which is not there
    (line,) = re.findall(r"^  client    (.*)$", gateway.stack.output, re.M)
    told = paste(line, tmp_path, 2)
    assert "use --username" in told or "use --password-stdin" in told
    assert line.endswith(f"sluice login {gateway.address}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_other_pythons_take_the_client(gateway: Gateway, tmp_path: Path, version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    account = sign_up(gateway.address)
    lines = [
        f"{python} -W error -m venv ~/venv && ~/venv/bin/pip install -q ./client",
        "head -c 20000000 /dev/urandom > big && sluice() { ~/venv/bin/python -W error -m sluice $@; }",
        "sluice put -q big --instant never && sluice put big --name big2 --instant always && sluice get -q big -o back",
        "cmp big back && sluice ls && sluice version",
    ]
    told = paste(
        "\n".join(lines),
        tmp_path,
        SLUICE_CLIENT_URL=account.url,
        SLUICE_CLIENT_USERNAME=account.username,
        SLUICE_CLIENT_PASSWORD=account.password,
        SLUICE_CLIENT_CREDENTIALS="file",
    )
    assert "instant" in told
    assert f"Python {version}." in told
