"""The peers that the bench installs: pinned, and reported if they cannot be installed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

PEERS = Path(__file__).parents[2] / "loadtest" / "peers"


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.txt")), ids=lambda path: path.name)
def test_python_packages_are_pinned(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if not re.fullmatch(r"[\w.-]+==[\w.+]+", line)] == []


@pytest.mark.parametrize("path", sorted(PEERS.glob("*/package.json")), ids=lambda path: path.parent.name)
def test_node_packages_are_pinned_and_name_no_registry(path: Path) -> None:
    wanted = json.loads(path.read_text())["dependencies"]
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    packages = json.loads((path.parent / "package-lock.json").read_text())["packages"]
    assert [name for name, found in packages.items() if name and not found.get("integrity")] == []
    assert [name for name, found in packages.items() if "resolved" in found] == []


def test_a_peer_that_cannot_be_installed_is_reported_as_left_out(tmp_path: Path) -> None:
    command: list[str | Path] = [PEERS / "install", "--folder", str(tmp_path), "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, "nothing is LEFT OUT" in result.stderr) == (1, True)
