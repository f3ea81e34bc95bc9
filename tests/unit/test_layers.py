"""The import rules in pyproject.toml cover every folder; the linter only checks what they name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def test_every_file_of_rows_is_forbidden_to_resources() -> None:
    (contract,) = (each for each in CONTRACTS if "api.db" in each.get("forbidden_modules", ()))
    rows = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "api").rglob("*rows.py")}
    assert len(rows) > 10
    assert set(contract["forbidden_modules"]) == rows | {"api.db"}


def test_no_rule_has_an_exception() -> None:
    assert [each["name"] for each in CONTRACTS if "ignore_imports" in each] == []
