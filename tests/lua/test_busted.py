"""Runs the Lua tests, so that one pytest run includes them."""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def test_lua() -> None:
    # busted's shebang runs plain Lua, which has no FFI.
    busted = shutil.which("busted")
    assert busted, "lua-busted is not installed"
    code = HERE.parents[1] / "lua"
    command = ["luajit", busted, "--output=plainTerminal", f"--lpath={code}/?.lua;{HERE}/?.lua", str(HERE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures / 0 errors" in result.stdout, result.stdout
    assert not result.stdout.startswith("0 successes")
