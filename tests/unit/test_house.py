"""The repository: files named in documents exist, versions agree, SQL is only in its files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import api

CODE = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=CODE, capture_output=True, text=True, check=True).stdout.split(
    "\0"
)
TEXT = [name for name in TRACKED if name.endswith((".py", ".lua", ".md", ".sh", ".conf", ".template", ".sql", ".toml"))]
NAMED = re.compile(
    r"(?<![\w/])(docs/[a-z0-9_./-]+\.md|(?:api|lua/sluice|nginx|scripts|client/src|loadtest)/[a-zA-Z0-9_./-]+\.(?:py|lua|sql|template))\b"
)
SLEEP = re.compile(r"\bsleep\([^)]")
HISTORY = {"CHANGELOG.md", "loadtest/results/results.md"}


def test_a_file_that_is_named_exists() -> None:
    named = [
        (name, found) for name in TEXT if name not in HISTORY for found in NAMED.findall((CODE / name).read_text())
    ]
    assert len(named) > 20
    assert [pair for pair in named if not (CODE / pair[1]).exists()] == []


def links() -> list[tuple[str, str]]:
    """(page, address) of every relative link of the documentation."""
    return [
        (name, address)
        for name in TRACKED
        if name.endswith(".md") and name not in HISTORY
        for address in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (CODE / name).read_text())
    ]


def test_a_link_leads_somewhere() -> None:
    assert [found for found in links() if not (CODE / found[0]).parent.joinpath(found[1]).resolve().exists()] == []


def test_an_anchor_names_a_heading() -> None:
    missing = []
    for name in {name for name, _ in links()}:
        for address, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", (CODE / name).read_text()):
            page = (CODE / name).parent / address if address else CODE / name
            headings = re.findall(r"^#+ (.*)", page.read_text(), re.M)
            if anchor not in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]:
                missing.append((name, address, anchor))
    assert missing == []


def test_server_and_client_share_one_version() -> None:
    client = tomllib.loads((CODE / "client" / "pyproject.toml").read_text())
    assert client["project"]["version"] == api.__version__


def test_the_license_is_declared_where_tools_look() -> None:
    client = tomllib.loads((CODE / "client" / "pyproject.toml").read_text())
    assert client["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (CODE / "LICENSE").read_text()
    assert "SPDX-License-Identifier: Apache-2.0" in (CODE / "pyproject.toml").read_text()


def test_every_file_of_statements_is_fenced_off_from_resources() -> None:
    contracts = tomllib.loads((CODE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (fence,) = [contract for contract in contracts if "never rows" in contract["name"]]
    rows = {name[:-3].replace("/", ".") for name in TRACKED if name.startswith("api/") and name.endswith("rows.py")}
    assert rows <= set(fence["forbidden_modules"])


def test_every_sleep_says_why_nothing_is_awaited() -> None:
    bare = []
    for name in TRACKED:
        if not name.startswith(("tests/", "loadtest/")) or not name.endswith(".py"):
            continue
        lines = ["", *(CODE / name).read_text().splitlines()]
        bare += [
            f"{name}:{number}"
            for number in range(1, len(lines))
            if SLEEP.search(lines[number]) and "  # " not in lines[number] and "# " not in lines[number - 1]
        ]
    assert bare == []
