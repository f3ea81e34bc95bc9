"""Sluice's images: small, and quick to rebuild."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.compose.engine import run
from tests.compose.figures import IMAGES
from tests.compose.stack import CODE

# All output is a finding.
LEFT = r"""
for name in gcc cc g++ c++ clang make pip pip3 git; do command -v $name; done
find /var/lib/apt/lists /var/cache/apt /var/log /tmp -type f
find / -xdev \( -name .cache -o -path '*/site-packages/pip' \) -prune -print
"""


@pytest.mark.parametrize("image", IMAGES)
def test_no_compiler_and_no_cache_is_left_in_it(image: str) -> None:
    found = run("docker", "run", "--rm", "--user", "0", "--entrypoint", "bash", image, "-c", LEFT)
    assert found == ""


def test_a_change_of_the_code_builds_no_packages_again(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(CODE, code, ignore=shutil.ignore_patterns(".venv", ".git", "var", "__pycache__"))
    for changed, comment in (("api/__init__.py", "#"), ("lua/sluice/access.lua", "--")):
        with (code / changed).open("a") as file:
            file.write(f"{comment} {os.urandom(8).hex()}\n")
    said = run("docker", "build", "--target", "api", "-f", str(code / "deploy" / "Dockerfile"), str(code))
    steps = re.findall(r"^Step \d+/\d+ : (.+)\n(?: ---> (Using cache))?", said, re.M)
    built = [step for step, cached in steps if not cached]
    assert "COPY api api" in built
    assert [step for step in built if "apt-get" in step or "requirements" in step] == []
